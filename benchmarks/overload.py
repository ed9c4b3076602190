"""`python -m benchmarks.overload`: what becomes of checkouts at five times the gateway's capacity,
and how soon after it everything is as before.

Every round drives one gateway, on a core of its own, through normal load, overload and normal load
again, without a pause between; the bare endpoint gets the same overload in turn, as the control.
"""

import argparse
import os
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.capacity import RATES, Climb, climb
from benchmarks.checkouts import from_baskets
from benchmarks.command import execute
from benchmarks.generator import LAG_LIMIT_MS, Generator, Options, Samples
from benchmarks.http_client import Exchange
from benchmarks.load import drive, positive
from benchmarks.pair import Pair, running
from benchmarks.profiles import ARRIVALS, Segment
from benchmarks.twin import live_manifest
from contract.errors import UserError
from contract.figures import Figures

PROGRAM = "benchmarks.overload"
TIMES = 5.0
MOST_ADMITTED_MS = 100.0
MOST_RECOVERY_SECONDS = 5.0
NORMAL_SHARE = 0.5  # of the capacity, before and after
LEAST_FULL = 0.99
_NORMAL_MS = 25.0  # what capacity is measured at; or what was normal before, if that was more
_BEFORE_SECONDS = 4.0
_AFTER_SECONDS = 8.0
_WINDOW_SECONDS = 0.5
_CONNECTIONS = 512
_RUNG = re.compile(rb'"rung":\s*"(\w+)"')
_RETRY_AFTER = re.compile(rb"\r\nretry-after:\s*[1-9]\d*\r\n", re.IGNORECASE)
FULL, CHEAPER, REFUSED, SILENT, BROKEN = "full", "cheaper", "429", "429 without when", "broken"


class Sorting(Generator):
    """Counts apart what was answered full, what cheaper, what was refused, and what broke."""

    def _kind(self, exchange: Exchange, status: int, body: bytes) -> str:
        if status == 429:
            return REFUSED if _RETRY_AFTER.search(exchange.head) else SILENT
        if status != 200:
            return BROKEN
        rung = _RUNG.search(body)
        return FULL if rung is not None and rung.group(1) == b"full" else CHEAPER


@dataclass(frozen=True)
class Round:
    """One passage: normal load, overload, and windows of normal load after it."""

    before: Samples
    overload: Samples
    after: Sequence[Samples]
    bare: Samples

    @property
    def admitted(self) -> Samples:
        """What was answered with 200 under overload."""
        kinds = self.overload.kinds
        return kinds.get(FULL, Samples()).merge(kinds.get(CHEAPER, Samples()))

    @property
    def lag_p99_ms(self) -> float:
        """How late the generator was, in the worse of its parts."""
        return max(self.before.lag_p99_ms, self.overload.lag_p99_ms)

    def recovery_seconds(self) -> float:
        """From the end of the overload to the beginning of the first window from which on all are
        normal; all of the time that was watched when the last one is not."""
        usual_ms = max(_NORMAL_MS, 1.5 * self.before.latencies.milliseconds(99))
        normal = [_is_normal(one, usual_ms) for one in self.after]
        bad = [number for number, good in enumerate(normal, 1) if not good]
        return (bad[-1] if bad else 0) * _WINDOW_SECONDS


def _is_normal(seen: Samples, usual_ms: float) -> bool:
    total = seen.statuses.total()
    full = len(seen.kinds[FULL].latencies) if FULL in seen.kinds else 0
    enough = full >= LEAST_FULL * total or total - full <= 1  # one in a small window is no share
    return (
        bool(total) and not seen.errors and enough and seen.latencies.milliseconds(99) <= usual_ms
    )


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Overload a gateway.")
    parser.add_argument(
        "--capacity",
        type=positive,
        metavar="R",
        help="full decisions a second that it makes; by default it is found first",
    )
    parser.add_argument("--times", type=positive, default=TIMES, help="the capacity")
    parser.add_argument("--seconds", type=positive, default=10.0, help="of overload, a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arrivals", choices=ARRIVALS, default="poisson")
    parser.add_argument("--data", type=Path, default=Path("build/demo/data"), metavar="DIR")
    parser.add_argument("--releases", type=Path, default=Path("releases"), metavar="DIR")
    parser.add_argument("--models", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether too many rounds were void. Raises UserError."""
    if args.rounds < 1:
        raise UserError("--rounds must be at least 1")
    manifest = live_manifest(args.releases)
    bodies = from_baskets(args.data, manifest.trained_until, seed=0)
    with running(args, manifest, bodies[0], apart=True) as pair:
        capacity = args.capacity or _capacity(pair, bodies, args.arrivals)
        kept: list[Round] = []
        void: list[Round] = []
        for turn in range(2 * args.rounds):
            if len(kept) == args.rounds:
                break
            rotated = bodies[turn * 97 :] + bodies[: turn * 97]
            one = _one_round(args, pair, rotated, capacity, turn)
            (void if one.lag_p99_ms > LAG_LIMIT_MS else kept).append(one)
            print(_progress(one, len(kept), args.rounds), file=sys.stderr)
    return _figures(args, capacity, kept, void)


def _capacity(pair: Pair, bodies: list[bytes], arrivals: str) -> float:
    found = Climb()
    climbing = argparse.Namespace(seconds=4.0, arrivals=arrivals)
    climb(climbing, found, pair.gateway_process.pid, pair.gateway, RATES, bodies)
    if not found.rates[0]:
        raise UserError("the gateway kept up with no rate; is the machine busy?")
    return found.rates[0]


def _one_round(
    args: argparse.Namespace, pair: Pair, bodies: list[bytes], capacity: float, turn: int
) -> Round:
    rate, normal = args.times * capacity, NORMAL_SHARE * capacity
    windows = int(_AFTER_SECONDS / _WINDOW_SECONDS)
    segments = [
        Segment("before", normal, _BEFORE_SECONDS),
        Segment("overload", rate, args.seconds),
        *(Segment(f"after {number}", normal, _WINDOW_SECONDS) for number in range(windows)),
    ]
    options = Options(connections=_CONNECTIONS)
    (bare,), _ = drive(
        pair.bare,
        bodies,
        [Segment("bare", rate, min(args.seconds, 4.0))],
        arrivals=args.arrivals,
        warm_up=0.5,
        seed=turn,
        options=options,
    )
    (before, overload, *after), _ = drive(
        pair.gateway,
        bodies,
        segments,
        arrivals=args.arrivals,
        warm_up=1.0,
        seed=turn,
        options=options,
        generator=Sorting,
    )
    return Round(before, overload, after, bare)


def _progress(one: Round, kept: int, wanted: int) -> str:
    kinds = {kind: len(seen.latencies) for kind, seen in sorted(one.overload.kinds.items())}
    return (
        f"{kept}/{wanted}: {kinds}, admitted p99 {one.admitted.latencies.milliseconds(99):.1f} ms, "
        f"normal after {one.recovery_seconds():.1f} s, lag p99 {one.lag_p99_ms:.2f} ms "
        f"(bare {one.bare.latencies.milliseconds(99):.1f} ms, lag {one.bare.lag_p99_ms:.2f} ms)"
    )


def _figures(
    args: argparse.Namespace, capacity: float, kept: Sequence[Round], void: Sequence[Round]
) -> tuple[Figures, bool]:
    figures = Figures("overload", machine={"load_average": round(os.getloadavg()[0], 2)})
    rounds = kept or void
    _add_rows(figures, rounds)
    whole = [one.overload.statuses for one in rounds]
    errors_5xx = sum(n for one in whole for status, n in one.items() if status >= 500)
    silent = sum(
        len(r.overload.kinds[SILENT].latencies) for r in rounds if SILENT in r.overload.kinds
    )
    broken = sum(
        len(r.overload.kinds[BROKEN].latencies) for r in rounds if BROKEN in r.overload.kinds
    )
    p99 = statistics.median(one.admitted.latencies.milliseconds(99) for one in rounds)
    recovery = statistics.median(one.recovery_seconds() for one in rounds)
    cheaper = all(len(one.overload.kinds.get(CHEAPER, Samples()).latencies) for one in rounds)
    reached = (
        not (broken or silent)
        and cheaper
        and p99 <= MOST_ADMITTED_MS
        and recovery <= MOST_RECOVERY_SECONDS
    )
    figures.notes += [
        f"capacity {capacity:g}/s; overload {args.times:g} times that; medians of {len(rounds)} "
        "rounds",
        f"{errors_5xx} answers 5xx, {broken} not 200 or 429, {silent} x 429 without Retry-After; "
        f"p99 of the admitted {p99:.1f} ms; normal {recovery:g} s after",
        f"cheaper rungs before 429, nothing else, p99 <= {MOST_ADMITTED_MS:g} ms, normal within "
        f"{MOST_RECOVERY_SECONDS:g} s: {'reached' if reached else 'MISSED'}",
        f"{args.arrivals} arrivals, server and control on one core, generator on another; load "
        f"average {os.getloadavg()[0]:.1f}",
    ]
    if void:
        figures.notes.append(
            f"{len(void)} void rounds left out and repeated, in which the generator's own lag p99 "
            f"was over {LAG_LIMIT_MS:g} ms"
        )
    if len(kept) < args.rounds:
        figures.notes.append("VOID: too few rounds in which the generator kept its schedule")
        return figures, True
    return figures, False


def _add_rows(figures: Figures, rounds: Sequence[Round]) -> None:
    def add(name: str, parts: Sequence[Samples]) -> None:
        each = [one.metrics() for one in parts]
        names = dict.fromkeys(metric for one in each for metric in one)
        figures.add(name, {metric: [one.get(metric, [0.0])[0] for one in each] for metric in names})

    add("bare", [one.bare for one in rounds])
    add("before", [one.before for one in rounds])
    add("overload", [one.overload for one in rounds])
    for kind in (FULL, CHEAPER, REFUSED, SILENT, BROKEN):
        parts = [one.overload.kinds.get(kind, Samples()) for one in rounds]
        for part, one in zip(parts, rounds, strict=True):
            part.seconds = one.overload.seconds
        if any(len(part.latencies) for part in parts):
            add(f"overload/{kind}", parts)
    add("overload/admitted", [one.admitted for one in rounds])
    figures.add("after", {"seconds_to_normal": [one.recovery_seconds() for one in rounds]})


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input, 3 when they are void."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

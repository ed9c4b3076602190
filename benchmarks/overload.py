"""`python -m benchmarks.overload`: what becomes of checkouts at five times the gateway's capacity,
and how soon after it everything is as before.

Every round drives one gateway, on a core of its own, through normal load, overload and normal load
again, without a pause between; the bare endpoint gets the same overload in turn, as the control. A
round whose beginning was not healthy, or whose generator lagged, is void and done again.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from benchmarks.capacity import RATES, Climb, climb
from benchmarks.checkouts import from_baskets
from benchmarks.command import Missed, add_data, add_json, add_release, execute
from benchmarks.generator import Options, Samples
from benchmarks.load import drive, positive
from benchmarks.overload_round import (
    KINDS,
    LEAST_CHEAPER,
    MOST_ADMITTED_MS,
    MOST_RECOVERY_SECONDS,
    WINDOW_SECONDS,
    Round,
    Sorting,
    Verdict,
)
from benchmarks.pair import Pair, running
from benchmarks.profiles import ARRIVALS, Segment
from benchmarks.servers import UNREMEMBERED_NOTE
from benchmarks.twin import live_manifest
from contract.errors import UserError
from contract.figures import Figures

PROGRAM = "benchmarks.overload"
TIMES = 5.0
NORMAL_SHARE = 0.5  # of the capacity, before and after
_BEFORE_SECONDS = 4.0
_AFTER_SECONDS = 8.0
_CONNECTIONS = 512


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
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether too many rounds were void. Raises UserError, and Missed where the
    figures do not reach what is demanded."""
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
            (void if one.void else kept).append(one)
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
    windows = int(_AFTER_SECONDS / WINDOW_SECONDS)
    segments = [
        Segment("before", normal, _BEFORE_SECONDS),
        Segment("overload", rate, args.seconds),
        *(Segment(f"after {number}", normal, WINDOW_SECONDS) for number in range(windows)),
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
    kinds = {kind: f"{share:.1%}" for kind, share in one.shares.items() if share}
    return (
        f"{kept}/{wanted}: {kinds}, admitted p99 {one.admitted.latencies.milliseconds(99):.1f} ms, "
        f"normal after {one.recovery_seconds():.1f} s, lag p99 {one.lag_p99_ms:.2f} ms "
        f"(bare {one.bare.latencies.milliseconds(99):.1f} ms, lag {one.bare.lag_p99_ms:.2f} ms)"
        f"{f', void: {one.void}' if one.void else ''}"
    )


def _figures(
    args: argparse.Namespace, capacity: float, kept: Sequence[Round], void: Sequence[Round]
) -> tuple[Figures, bool]:
    figures = Figures("overload", machine={"load_average": round(os.getloadavg()[0], 2)})
    rounds = kept or void
    _add_rows(figures, rounds)
    verdict = Verdict.of(rounds)
    missed = verdict.missed()
    shares = ", ".join(f"{kind} {share:.1%}" for kind, share in verdict.shares.items() if share)
    figures.notes += [
        f"capacity {capacity:g}/s; overload {args.times:g} times that; medians of {len(rounds)} "
        "rounds",
        f"under overload: {shares}; of the 200s at least "
        f"{verdict.cheaper_share:.1%} from cheaper rungs in every round",
        f"{verdict.errors_5xx} answers 5xx, {verdict.broken} not 200 or 429, {verdict.silent} x "
        f"429 without Retry-After; p99 of the admitted {verdict.admitted_p99_ms:.1f} ms; normal "
        f"{verdict.recovery_seconds:g} s after",
        f"at least {LEAST_CHEAPER:.0%} of the 200s from cheaper rungs, 429 and nothing else, p99 "
        f"<= {MOST_ADMITTED_MS:g} ms, normal within {MOST_RECOVERY_SECONDS:g} s: "
        f"{'MISSED' if missed else 'reached'}",
        f"{args.arrivals} arrivals, server and control on one core, generator on another; "
        f"{UNREMEMBERED_NOTE}; load average {os.getloadavg()[0]:.1f}",
    ]
    figures.notes += [f"a void round, left out and repeated: {one.void}" for one in void]
    if len(kept) < args.rounds:
        figures.notes.append(f"VOID: {len(kept)} of {args.rounds} rounds tell of overload")
        return figures, True
    if missed:
        raise Missed(figures, f"missed: {'; '.join(missed)}")
    return figures, False


def _add_rows(figures: Figures, rounds: Sequence[Round]) -> None:
    def add(name: str, parts: Sequence[Samples]) -> None:
        each = [one.metrics() for one in parts]
        names = dict.fromkeys(metric for one in each for metric in one)
        figures.add(name, {metric: [one.get(metric, [0.0])[0] for one in each] for metric in names})

    add("bare", [one.bare for one in rounds])
    add("before", [one.before for one in rounds])
    add("overload", [one.overload for one in rounds])
    for kind in KINDS:
        parts = [one.overload.kinds.get(kind, Samples()) for one in rounds]
        for part, one in zip(parts, rounds, strict=True):
            part.seconds = one.overload.seconds
        if any(part.statuses.total() for part in parts):
            add(f"overload/{kind}", parts)
    add("overload/admitted", [one.admitted for one in rounds])
    figures.add("after", {"seconds_to_normal": [one.recovery_seconds() for one in rounds]})


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand and reach what is demanded, 2 on bad input, 3 otherwise."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

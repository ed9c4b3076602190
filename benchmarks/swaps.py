"""`python -m benchmarks.swaps`: what changing the release costs the checkouts that go on meanwhile.

A gateway in embedded mode decides at a steady rate while `current` is pointed back and forth
between a release and its twin. Every request is told apart by when it was due: during a swap (from
the moment the pointer moved until half a second after the old release's last answer) or outside.
"""

import argparse
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.checkouts import DECIDE, from_baskets, probe
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.generator import LAG_LIMIT_MS, Generator, Options, Samples, run_precisely
from benchmarks.http_client import Exchange, Target
from benchmarks.load import positive
from benchmarks.profiles import Segment, schedule
from benchmarks.servers import command, created_key, free_port, server
from benchmarks.twin import copy_with_twin, live_manifest
from contract.errors import UserError
from contract.figures import Figures
from contract.rollout_file import promote

PROGRAM = "benchmarks.swaps"
MOST_RATIO = 2.0
ROWS = ("outside", "during a swap")
_WARM_UP_SECONDS = 3.0
_SETTLE_SECONDS = 0.5
_RELEASE = re.compile(rb'"release_id":\s*"([^"]+)"')
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True)
class Seen:
    """One request: when it was due (time.monotonic), how long it took, what came back."""

    due: float
    latency: float
    lag: float
    status: int
    release_id: str | None


@dataclass
class Round:
    """What one round saw; `moved` are the moments at which the pointer moved, and to what."""

    seen: list[Seen] = field(default_factory=list)
    moved: list[tuple[float, str]] = field(default_factory=list)
    resident_mib: list[float] = field(default_factory=list)

    def swaps(self) -> list[tuple[float, float]]:
        """The beginning and end of every swap that was seen through, in order."""
        found = []
        for (began, target), until in zip(self.moved, self._ends(), strict=True):
            old = [s.due for s in self.seen if began <= s.due < until and s.release_id != target]
            new = [s.due for s in self.seen if began <= s.due < until and s.release_id == target]
            if new:
                found.append((began, max(old, default=began)))
        return found

    def _ends(self) -> list[float]:
        return [*(moment for moment, _ in self.moved[1:]), float("inf")]

    def split(self) -> dict[str, Samples]:
        """The requests outside of swaps and during them."""
        swaps = [(began, ended + _SETTLE_SECONDS) for began, ended in self.swaps()]
        rows = {name: Samples() for name in ROWS}
        for one in self.seen:
            inside = any(began <= one.due <= ended for began, ended in swaps)
            rows[ROWS[inside]].add(one.latency, one.lag, one.status)
        inside_seconds = sum(ended - began for began, ended in swaps)
        whole = self.seen[-1].due - self.seen[0].due if self.seen else 0.0
        rows[ROWS[1]].seconds = inside_seconds
        rows[ROWS[0]].seconds = max(whole - inside_seconds, 0.0)
        return rows


class _Recording(Generator):
    """Keeps every request apart, with the release that answered it."""

    seen: list[Seen]

    def _ended(self, exchange: Exchange, status: int, body: bytes) -> None:
        latency = time.monotonic() - exchange.scheduled
        named = _RELEASE.search(body)
        release_id = named.group(1).decode() if named is not None else None
        self.seen.append(Seen(exchange.scheduled, latency, exchange.lag, status, release_id))
        super()._ended(exchange, status, body)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time swaps.")
    parser.add_argument("--rate", type=positive, default=50.0, help="decisions per second")
    parser.add_argument("--swaps", type=int, default=20, help="in each round")
    parser.add_argument("--every", type=positive, default=5.0, metavar="S", help="one swap")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arrivals", choices=("even", "poisson"), default="poisson")
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether too many rounds were void. Raises UserError."""
    if args.swaps < 1 or args.rounds < 1:
        raise UserError("--swaps and --rounds must be at least 1")
    manifest = live_manifest(args.releases)
    bodies = from_baskets(args.data, manifest.trained_until, seed=0)
    with tempfile.TemporaryDirectory(prefix="tillwise-") as folder:
        root = Path(folder)
        ids = copy_with_twin(args.releases, args.models, root)
        folders = [f"--{name}={root / name}" for name in ("releases", "models", "state")]
        state, until = folders[-1], manifest.trained_until.isoformat()
        command("serving", "backfill", f"--data={args.data.resolve()}", f"--until={until}", state)
        key = created_key(root / "state", "checkout")
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        arguments = ["run", f"--port={port}", *folders, f"--as-of={until}"]
        with server("serving", arguments, f"{url}/readyz") as process:
            probe(url, key, bodies[0])
            target = Target.of(url, DECIDE, key)
            rounds = [
                _one_round(args, target, bodies, root / "releases", ids, process.pid, turn)
                for turn in range(args.rounds)
            ]
    return _figures(args, rounds)


def _one_round(
    args: argparse.Namespace,
    target: Target,
    bodies: Sequence[bytes],
    releases: Path,
    ids: tuple[str, str],
    pid: int,
    turn: int,
) -> Round:
    seconds = _WARM_UP_SECONDS + args.swaps * args.every
    planned = schedule([Segment("round", args.rate, seconds)], args.arrivals, turn)
    found, ended = Round(), threading.Event()

    def swap() -> None:
        if ended.wait(_WARM_UP_SECONDS):
            return
        for _ in range(args.swaps):
            live = (releases / "current").read_text(encoding="utf-8").strip()
            wanted = ids[1] if live == ids[0] else ids[0]
            found.resident_mib.append(_resident_mib(pid))
            found.moved.append((time.monotonic(), wanted))
            promote(releases, wanted, datetime.now(UTC))
            if ended.wait(args.every):
                return

    async def generate() -> None:
        generator = _Recording(target, bodies, planned, Options())
        generator.seen = found.seen
        await generator.run()

    swapper = threading.Thread(target=swap, name="swapper")
    swapper.start()
    try:
        run_precisely(generate())
    except OSError as error:
        raise UserError(f"nobody answers at {target.host}:{target.port}: {error}") from None
    finally:
        ended.set()
        swapper.join()
    print(f"round {turn + 1}/{args.rounds}: {len(found.swaps())} swaps", file=sys.stderr)
    return found


def _resident_mib(pid: int) -> float:
    said = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    return int(said.group(1)) / 1_024 if said is not None else 0.0


def _figures(args: argparse.Namespace, rounds: Sequence[Round]) -> tuple[Figures, bool]:
    load = os.getloadavg()[0]
    figures = Figures("swaps", machine={"load_average": round(load, 2)})
    parts = [one.split() for one in rounds]
    for name in ROWS:
        metrics: dict[str, list[float]] = {}
        for part in parts:
            for metric, values in part[name].metrics().items():
                metrics.setdefault(metric, []).extend(values)
        figures.add(name, metrics, seconds=sum(part[name].seconds for part in parts))
    swaps = [ended - began for one in rounds for began, ended in one.swaps()]
    figures.add("a swap", {"seconds_to_switch": swaps or [0.0]})
    errors = sum(part[name].failed for part in parts for name in ROWS)
    ratios = [_p99(part, 1) / max(_p99(part, 0), 1e-9) for part in parts]
    ratio = statistics.median(ratios)
    held = errors == 0 and ratio <= MOST_RATIO and len(swaps) == args.swaps * len(rounds)
    each = ", ".join(f"{one:.2f}" for one in ratios)
    figures.notes += [
        f"{len(swaps)} of {args.swaps * len(rounds)} swaps seen through, {errors} failed requests, "
        f"p99 during a swap / outside: {ratio:.2f} (each round: {each})",
        f"0 failed and p99 at most {MOST_RATIO:g} times: {'reached' if held else 'MISSED'}",
        _answered_by(rounds),
        *(_memory(number, one) for number, one in enumerate(rounds, 1)),
        f"{args.arrivals} arrivals at {args.rate:g}/s, generator on the same {os.cpu_count()} "
        f"cores; load average {load:.1f}",
    ]
    lags = [part[name].lag_p99_ms for part in parts for name in ROWS]
    void = max(lags) > LAG_LIMIT_MS
    if void:
        figures.notes.append(
            f"VOID: the generator itself lagged, p99 up to {max(lags):.1f} ms, more than "
            f"{LAG_LIMIT_MS:g} ms"
        )
    return figures, void


def _p99(part: dict[str, Samples], row: int) -> float:
    return part[ROWS[row]].metrics()["p99_ms"][0]


def _answered_by(rounds: Sequence[Round]) -> str:
    counts = Counter(one.release_id for found in rounds for one in found.seen)
    each = ", ".join(f"{name}: {number}" for name, number in sorted(counts.items(), key=str))
    return f"answers by release: {each}"


def _memory(number: int, found: Round) -> str:
    kept = found.resident_mib
    if not kept:
        return f"round {number}: no swap"
    return (
        f"round {number}: resident memory before its first swap {kept[0]:.0f} MiB, before its "
        f"last {kept[-1]:.0f} MiB, most {max(kept):.0f} MiB"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input, 3 when they are void."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.capacity`: how many full decisions a second one gateway process on one core
makes at p99 <= 25 ms, beside a bare endpoint and beside what its kernels cost alone.

Both servers share a core and the generator has another. In every round each of them climbs through
the same rates for as long as it keeps up; rounds alternate.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.checkouts import DECIDE, from_baskets, probe
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.decide import seeded
from benchmarks.generator import Options, Samples
from benchmarks.http_client import Target
from benchmarks.kernels import SINGLE, kernel_ms
from benchmarks.load import drive
from benchmarks.profiles import ARRIVALS, Segment
from benchmarks.servers import UNREMEMBERED, UNREMEMBERED_NOTE, free_port, server
from benchmarks.twin import live_manifest
from contract.errors import UserError
from contract.figures import Figures
from serving.monitoring.decisions import STAGES

PROGRAM = "benchmarks.capacity"
MOST_P99_MS = 25.0
LEAST_FULL = 0.99
MOST_OF_KERNELS = 1.5
RATES = (50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 1_000, 1_200, 1_500)
_BARE_RATES = (500, 1_000, 2_000, 3_000, 4_000)
_WARM_UP_SECONDS = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Climb:
    """What one server reached in each round, and the CPU milliseconds of an answer there."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    best: list[Samples] = field(default_factory=list)
    void: int = 0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Find the limit.")
    parser.add_argument("--seconds", type=float, default=4.0, help="at each rate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arrivals", choices=ARRIVALS, default="poisson")
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether a round was void. Raises UserError."""
    if args.rounds < 1 or not args.seconds > 0:
        raise UserError("--rounds and --seconds must be above zero")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UserError("the generator needs a core of its own; this machine lends one in all")
    manifest = live_manifest(args.releases)
    bodies = from_baskets(args.data, manifest.trained_until, seed=0)
    until = manifest.trained_until.isoformat()
    with ExitStack() as started:
        state = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="tillwise-")))
        key = seeded(args, state, manifest)
        bare_port, port = free_port(), free_port()
        folders = [f"--{name}={getattr(args, name).resolve()}" for name in ("releases", "models")]
        told = [f"--port={port}", f"--state={state}", *folders, f"--as-of={until}"]
        url, bare = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{bare_port}"
        gateway = started.enter_context(
            server("serving", ["run", *told], f"{url}/readyz", UNREMEMBERED)
        )
        control = started.enter_context(
            server("benchmarks.bare", [f"--port={bare_port}"], f"{bare}/")
        )
        probe(url, key, bodies[0])
        for process in (gateway, control):
            bind(process.pid, cores[0])
        os.sched_setaffinity(0, {cores[1]})
        climbs = {"bare": Climb(), "decide/full": Climb()}
        kernels: list[dict[str, float]] = []
        for turn in range(args.rounds):
            rotated = bodies[turn * 97 :] + bodies[: turn * 97]
            for name, process, target, rates in (
                ("bare", control, Target.of(bare, DECIDE, key), _BARE_RATES),
                ("decide/full", gateway, Target.of(url, DECIDE, key), RATES),
            ):
                climb(args, climbs[name], process.pid, target, rates, rotated)
            os.sched_setaffinity(0, {cores[0]})
            kernels.append(kernel_ms(args.releases, args.models))
            os.sched_setaffinity(0, {cores[1]})
        stages = _stage_ms(url)
    return _figures(args, climbs, kernels, stages)


def climb(
    args: argparse.Namespace,
    climb: Climb,
    pid: int,
    target: Target,
    rates: Sequence[int],
    bodies: list[bytes],
) -> None:
    reached, cpu_ms, best, missed = 0.0, 0.0, Samples(), 0
    for rate in rates:
        before = _cpu_seconds(pid)
        (samples,), _ = drive(
            target,
            bodies,
            [Segment("rate", rate, args.seconds)],
            arrivals=args.arrivals,
            warm_up=_WARM_UP_SECONDS,
            options=Options(connections=256),
            seed=rate,
        )
        spent = _cpu_seconds(pid) - before
        climb.void += samples.void
        found = samples.metrics()
        full = found.get("rung_full", [1.0])[0]
        kept = found["p99_ms"][0] <= MOST_P99_MS and not samples.failed and full >= LEAST_FULL
        print(
            f"{target.port} {rate}/s: p99 {found['p99_ms'][0]:.1f} ms, full {full:.3f}, "
            f"{samples.failed} failed{', void' if samples.void else ''}",
            file=sys.stderr,
        )
        if not kept:  # one bad moment of the machine is not the limit
            missed += 1
            if missed == 2:
                break
            continue
        missed = 0
        reached, best = float(rate), samples
        sent = samples.statuses.total() + rate * _WARM_UP_SECONDS
        cpu_ms = spent * 1_000 / max(sent, 1)
        time.sleep(0.2)
    climb.rates.append(reached)
    climb.cpu_ms.append(cpu_ms)
    climb.best.append(best)


def _figures(
    args: argparse.Namespace,
    climbs: dict[str, Climb],
    kernels: list[dict[str, float]],
    stages: dict[str, float],
) -> tuple[Figures, bool]:
    figures = Figures("capacity", machine={"load_average": round(os.getloadavg()[0], 2)})
    for name, climb in climbs.items():
        found: dict[str, list[float]] = {"per_second": climb.rates}
        if any(climb.rates):
            kept = [one.metrics() for one in climb.best if len(one.latencies)]
            found |= {name: [one[name][0] for one in kept] for name in ("p50_ms", "p99_ms")}
            found["cpu_ms"] = [ms for ms in climb.cpu_ms if ms]
        figures.add(name, found)
    for name in kernels[0]:
        figures.add(f"kernel/{name}", {"cpu_ms": [one[name] for one in kernels]})
    sums = [sum(ms for name, ms in one.items() if name != SINGLE) for one in kernels]
    figures.add("kernels", {"cpu_ms": sums})
    if not any(climbs["decide/full"].rates):
        figures.notes.append("VOID: the gateway kept up with no rate; is the machine busy?")
        return figures, True
    whole = statistics.median(ms for ms in climbs["decide/full"].cpu_ms if ms)
    ratio = whole / statistics.median(sums)
    figures.notes.append(
        f"a decision costs {whole:.2f} ms of CPU, {ratio:.2f} times its kernels alone "
        f"(aimed at: {MOST_OF_KERNELS:g}); the rate is the highest with p99 <= "
        f"{MOST_P99_MS:g} ms, no error and {LEAST_FULL:.0%} on the rung full"
    )
    total = sum(stages.values())
    shares = ", ".join(
        f"{name} {ms / total:.0%}" for name, ms in sorted(stages.items(), key=lambda one: -one[1])
    )
    figures.notes.append(f"share of each stage of the time in stages: {shares}")
    void = sum(climb.void for climb in climbs.values())
    if void:
        figures.notes.append(f"{void} steps in which the generator lagged")
    figures.notes.append(
        f"{args.arrivals} arrivals, {args.rounds} rounds of {args.seconds:g} s a step in turn, "
        f"servers on one core, generator on another; {UNREMEMBERED_NOTE}"
    )
    return figures, False


def bind(pid: int, core: int) -> None:
    """All threads of `pid` on `core`; those that they start will be there too."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _stage_ms(url: str) -> dict[str, float]:
    """Milliseconds in each stage so far, from /metrics."""
    found = {}
    for line in httpx.get(f"{url}/metrics", timeout=10.0, trust_env=False).text.splitlines():
        if line.startswith("tillwise_stage_seconds_sum"):
            name = line.partition('stage="')[2].partition('"')[0]
            seconds = float(line.rpartition(" ")[2])
            if name in STAGES and seconds:
                found[name] = seconds * 1_000
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks.cross_check`: our generator beside hey, a load tool by others in another
language, on the same servers with the same request at the same even rates, in turn: who begins
changes each time, and each has its connections open and warm before anything counts.

hey is a closed loop: each of its connections sends the next request only once the last one was
answered, so what was due while an answer was late is sent later and its wait is left out
(coordinated omission). Here many of its processes share the rate, each of them with time to spare,
so that both tools should see the same; `hey, corrected` adds the requests left out back in, as HDR
histograms do.
"""

import argparse
import csv
import io
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.checkouts import from_baskets
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.generator import LAG_LIMIT_MS, Samples
from benchmarks.http_client import Target
from benchmarks.load import drive, positive
from benchmarks.pair import running
from benchmarks.profiles import Segment
from benchmarks.servers import UNREMEMBERED_NOTE
from benchmarks.twin import live_manifest
from contract.errors import UserError
from contract.figures import Figures

PROGRAM = "benchmarks.cross_check"
_COMPARED = ("p50_ms", "p99_ms", "per_second")
TOOLS = ("ours", "hey", "hey, corrected")
_LANE_RATE = 25.0  # of one hey process: 40 ms for every answer
_WARM_UP_SECONDS = 1.0  # of each tool, dropped
_ATTEMPTS = 3
_OWN_TOOLS = Path(__file__).resolve().parent.parent / ".tools"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Check our figures.")
    parser.add_argument("--bare-rates", type=positive, nargs="+", default=[50.0, 100.0, 200.0])
    parser.add_argument("--decide-rates", type=positive, nargs="+", default=[50.0, 100.0])
    parser.add_argument("--seconds", type=positive, default=8.0, help="of each tool, a round")
    parser.add_argument("--rounds", type=int, default=3)
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def hey_program() -> str:
    """Where hey is. Raises UserError that says how to get it."""
    found = shutil.which("hey") or shutil.which("hey", path=_OWN_TOOLS)
    if found is None:
        raise UserError("hey is not here; get it: make hey (or apt-get install hey)")
    return found


def run_hey(target: Target, body: bytes, rate: float, seconds: float) -> dict[str, Samples]:
    """What hey sees of `rate` a second for `seconds`, as it is and corrected. Each process keeps
    its connection from a warm-up on, what it sent in which is dropped. Raises UserError."""
    program = hey_program()
    lanes = max(1, math.ceil(rate / _LANE_RATE))
    scheme = "https" if target.secure else "http"
    whole = seconds + _WARM_UP_SECONDS
    command = [program, "-z", f"{whole:g}s", "-c", "1", "-q", f"{rate / lanes:g}", "-m", "POST"]
    command += ["-T", "application/json", "-disable-compression", "-cpus", "1", "-o", "csv"]
    if target.key is not None:
        command += ["-H", f"Authorization: Bearer {target.key}"]
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        command += ["-D", file.name, f"{scheme}://{target.host}:{target.port}{target.path}"]
        running = []
        for _ in range(lanes):
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            time.sleep(1 / rate)  # so that the lanes fall due one after the other
        said = [process.communicate(timeout=whole + 60)[0] for process in running]
    if any(process.returncode for process in running):
        raise UserError(f"hey failed with status {max(one.returncode for one in running)}")
    return read_hey(said, lanes / rate, seconds, _WARM_UP_SECONDS)


def read_hey(
    said: Sequence[str], interval: float, seconds: float, warm_up: float
) -> dict[str, Samples]:
    """From the CSV of each process, which sent one request every `interval` seconds; what it sent
    in its first `warm_up` seconds does not count, nor does what it opened its connection for."""
    plain, corrected = Samples(seconds=seconds), Samples(seconds=seconds)
    for text in said:
        for row in csv.DictReader(io.StringIO(text)):
            if float(row["offset"]) < warm_up:
                continue
            latency, status = float(row["response-time"]), int(row["status-code"])
            plain.add(latency, 0.0, status)
            corrected.add(latency, 0.0, status)
            for late in omitted(latency, interval):
                corrected.latencies.add(late)
    return {"hey": plain, "hey, corrected": corrected}


def omitted(latency: float, interval: float) -> list[float]:
    """What the requests would have taken that were due while this one kept the connection."""
    return [latency - n * interval for n in range(1, math.ceil(latency / interval))]


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether a round of ours was void. Raises UserError."""
    if args.rounds < 1:
        raise UserError("--rounds must be at least 1")
    hey_program()
    manifest = live_manifest(args.releases)
    body = from_baskets(args.data, manifest.trained_until, seed=0)[0]
    seen: dict[str, list[Samples]] = defaultdict(list)
    void: Counter[str] = Counter()
    with running(args, manifest, body, apart=False) as pair:
        measured = [("bare", pair.bare, rate) for rate in args.bare_rates]
        measured += [("decide", pair.gateway, rate) for rate in args.decide_rates]
        for done in range(args.rounds):
            for place, (server, target, rate) in enumerate(measured):
                where = f"{server} {rate:g}/s"
                # Not ours first every time, neither in a round nor at one rate.
                first = (done + place) % 2 == 0
                both, spoilt = both_tools(target, body, rate, args.seconds, ours_first=first)
                void[where] += spoilt
                for tool, samples in both.items():
                    seen[f"{where} {tool}"].append(samples)
            print(f"round {done + 1}/{args.rounds}", file=sys.stderr)
    return _figures(args, seen, void)


def both_tools(
    target: Target, body: bytes, rate: float, seconds: float, *, ours_first: bool
) -> tuple[dict[str, Samples], int]:
    """What each tool sees of the same load, one after the other, and in how many attempts our
    generator lagged: then both do it once more, the other one first, at most twice."""

    def ours() -> dict[str, Samples]:
        segments = [Segment("ours", rate, seconds)]
        return {"ours": drive(target, [body], segments, warm_up=_WARM_UP_SECONDS)[0][0]}

    def theirs() -> dict[str, Samples]:
        return run_hey(target, body, rate, seconds)

    void = 0
    for attempt in range(_ATTEMPTS):
        order = (ours, theirs) if ours_first == (attempt % 2 == 0) else (theirs, ours)
        seen: dict[str, Samples] = {}
        for tool in order:
            seen |= tool()
        if not seen["ours"].void:
            break
        void += 1
    return {tool: seen[tool] for tool in TOOLS}, void


def _figures(
    args: argparse.Namespace, seen: dict[str, list[Samples]], spoilt: Counter[str]
) -> tuple[Figures, bool]:
    figures = Figures("cross_check", machine={"load_average": round(os.getloadavg()[0], 2)})
    for name, rounds in seen.items():
        each = [one.metrics() for one in rounds]
        kept = (
            "p50_ms",
            "p90_ms",
            "p99_ms",
            "max_ms",
            "per_second",
            "requests",
            "refused",
            "errors",
        )
        figures.add(name, {metric: [one[metric][0] for one in each] for metric in kept})
    for name in seen:
        where, _, tool = name.partition("/s ")
        if tool == "ours":
            theirs = seen[f"{where}/s hey"]
            parts = (_difference(seen[name], theirs, metric) for metric in _COMPARED)
            figures.notes.append(f"{where}/s, ours against hey: {', '.join(parts)}")
    lag_ms = _note_how(args, figures, seen, spoilt)
    void = lag_ms > LAG_LIMIT_MS
    if void:
        figures.notes.append(
            f"VOID: our generator lagged, p99 up to {lag_ms:.1f} ms, in {_ATTEMPTS} attempts"
        )
    return figures, void


def _note_how(
    args: argparse.Namespace,
    figures: Figures,
    seen: dict[str, list[Samples]],
    spoilt: Counter[str],
) -> float:
    """Say how it was measured; the p99 of our generator's lag in the worst round, in ms."""
    late = [
        one.lag_p99_ms for name, rounds in seen.items() if name.endswith("ours") for one in rounds
    ]
    lanes = math.ceil(max(*args.bare_rates, *args.decide_rates) / _LANE_RATE)
    figures.notes.append(
        f"medians of {args.rounds} rounds of {args.seconds:g} s, the first tool in turn, each after"
        f" {_WARM_UP_SECONDS:g} s that do not count; one request over and over, evenly spaced; "
        f"{UNREMEMBERED_NOTE}; hey: a closed loop in up to {lanes} processes; load average "
        f"{os.getloadavg()[0]:.1f}"
    )
    each = ", ".join(f"{where}: {number}" for where, number in spoilt.items() if number)
    figures.notes.append(
        f"attempts in which our generator lagged, and both did it again: {spoilt.total()} beside "
        f"{len(late)} that count{f' ({each})' if each else ''}"
    )
    return max(late)


def _difference(ours: Sequence[Samples], theirs: Sequence[Samples], metric: str) -> str:
    a, b = (statistics.median(one.metrics()[metric][0] for one in each) for each in (ours, theirs))
    unit = "/s" if metric == "per_second" else " ms"
    name = metric.removesuffix("_ms").replace("per_second", "rate")
    return f"{name} {a:.2f} and {b:.2f}{unit} ({(a - b) / b if b else 0.0:+.1%})"


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input, 3 when they are void."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

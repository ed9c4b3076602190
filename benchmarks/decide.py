"""`python -m benchmarks.decide`: how long a whole decision takes over HTTP, at a steady rate.

It starts a gateway in embedded mode and, as the control, an endpoint that does nothing. Short
rounds of both alternate, so that whatever else the machine does falls on both alike.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import reduce
from pathlib import Path

from benchmarks.checkouts import DECIDE, from_baskets, probe
from benchmarks.command import add_data, add_json, add_release, execute
from benchmarks.generator import LAG_LIMIT_MS, Samples, describe_statuses
from benchmarks.http_client import Target
from benchmarks.load import drive, positive
from benchmarks.profiles import ARRIVALS, Segment
from benchmarks.servers import UNREMEMBERED, UNREMEMBERED_NOTE, command, free_port, server
from benchmarks.twin import live_manifest
from contract.errors import UserError
from contract.figures import Figures
from contract.manifest import ReleaseManifest

PROGRAM = "benchmarks.decide"
ROWS = ("bare", "decide/full")
TARGET_MS = 25.0
_WARM_UP_SECONDS = 1.0


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time decisions.")
    parser.add_argument("--rate", type=positive, default=50.0, help="decisions per second")
    parser.add_argument("--seconds", type=positive, default=60.0, help="of each row, all rounds")
    parser.add_argument("--rounds", type=int, default=6, help="alternations of the two rows")
    parser.add_argument("--arrivals", choices=ARRIVALS, default="even")
    add_data(parser)
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and whether too many rounds were void. Raises UserError."""
    manifest = live_manifest(args.releases)
    bodies = from_baskets(args.data, manifest.trained_until, seed=0)
    if args.rounds < 1:
        raise UserError("--rounds must be at least 1")
    with ExitStack() as started:
        state = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="tillwise-")))
        bare_port, port = free_port(), free_port()
        key = seeded(args, state, manifest)
        folders = [f"--{name}={getattr(args, name).resolve()}" for name in ("releases", "models")]
        until = manifest.trained_until.isoformat()
        gateway = [f"--port={port}", f"--state={state}", *folders, f"--as-of={until}"]
        url = f"http://127.0.0.1:{port}"
        started.enter_context(server("serving", ["run", *gateway], f"{url}/readyz", UNREMEMBERED))
        bare = f"http://127.0.0.1:{bare_port}"
        started.enter_context(server("benchmarks.bare", [f"--port={bare_port}"], f"{bare}/"))
        probe(url, key, bodies[0])
        targets = {"bare": Target.of(bare, DECIDE, key), "decide/full": Target.of(url, DECIDE, key)}
        return _measure(args, targets, bodies)


def seeded(args: argparse.Namespace, state: Path, manifest: ReleaseManifest) -> str:
    """Give the gateway the history of the import; its key."""
    until = manifest.trained_until.isoformat()
    folder = f"--state={state}"
    command("serving", "backfill", f"--data={args.data.resolve()}", f"--until={until}", folder)
    return command("serving", "keys", "create", "--role=checkout", folder).splitlines()[-1]


def _measure(
    args: argparse.Namespace, targets: dict[str, Target], bodies: list[bytes]
) -> tuple[Figures, bool]:
    """Alternate rounds. One whose generator lagged is done again, at most as often as planned."""
    kept: dict[str, list[Samples]] = {name: [] for name in ROWS}
    void: dict[str, list[Samples]] = {name: [] for name in ROWS}
    segments = [Segment("round", args.rate, args.seconds / args.rounds)]
    for turn in range(2 * args.rounds):
        for name in ROWS:
            if len(kept[name]) == args.rounds:
                continue
            (samples,), _ = drive(
                targets[name],
                bodies[turn:] + bodies[:turn],
                segments,
                arrivals=args.arrivals,
                warm_up=_WARM_UP_SECONDS,
                seed=turn,
            )
            (void if samples.void else kept)[name].append(samples)
            done = "void" if samples.void else f"{len(kept[name])}/{args.rounds}"
            print(f"{name}: {done}", file=sys.stderr)
    return _figures(args, kept, void)


def _figures(
    args: argparse.Namespace, kept: dict[str, list[Samples]], void: dict[str, list[Samples]]
) -> tuple[Figures, bool]:
    load = os.getloadavg()[0]
    figures = Figures("decide", machine={"load_average": round(load, 2)})
    for name in ROWS:
        rounds = kept[name] or void[name]
        pooled = reduce(Samples.merge, rounds)
        figures.add(name, pooled.metrics(), seconds=pooled.seconds)
        figures.notes += _remarks(name, kept[name], void[name])
    figures.notes.append(
        f"{args.arrivals} arrivals at {args.rate:g}/s, {args.rounds} rounds of each in turn, "
        f"generator on the same {os.cpu_count()} cores; {UNREMEMBERED_NOTE}; load "
        f"average {load:.1f}"
    )
    if any(len(kept[name]) < args.rounds for name in ROWS):
        figures.notes.append("VOID: too few rounds in which the generator kept its schedule")
        return figures, True
    whole = reduce(Samples.merge, kept["decide/full"])
    p99 = whole.metrics()["p99_ms"][0]
    reached = p99 <= TARGET_MS and not whole.failed
    figures.notes.append(
        f"p99 <= {TARGET_MS:g} ms without an error: {'reached' if reached else 'MISSED'}"
    )
    return figures, False


def _remarks(name: str, kept: Sequence[Samples], void: Sequence[Samples]) -> list[str]:
    """Every round's p99, what failed, and what was left out."""
    remarks = []
    if kept:
        each = ", ".join(f"{samples.metrics()['p99_ms'][0]:.1f}" for samples in kept)
        remarks.append(f"{name}: p99 of each round in ms: {each}")
    if void:
        each = ", ".join(
            f"{samples.metrics()['p99_ms'][0]:.1f} (lag {samples.lag_p99_ms:.1f})"
            for samples in void
        )
        remarks.append(
            f"{name}: {len(void)} void rounds left out and repeated, in which the generator's own "
            f"lag p99 was over {LAG_LIMIT_MS:g} ms; their p99 in ms: {each}"
        )
    failed = reduce(Samples.merge, [*kept, *void], Samples())
    if failed.failed:
        remarks.append(f"{name}: {failed.failed} failed: {describe_statuses(failed)}")
    return remarks


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input, 3 when they are void."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

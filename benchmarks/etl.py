"""`python -m benchmarks.etl`: from an event log to encoded sequences, 10 million events.

Makes the log itself, in a temporary folder and not counted; reads it in a fresh process, so that
memory and time are of the ETL alone.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.command import add_json, execute
from benchmarks.event_log import write_event_log
from contract.errors import UserError
from contract.figures import Figures
from training.commands import peak_mib
from training.data.encoded_sequences import MEMORY_MIB, read_sequences
from training.data.etl import By

PROGRAM = "benchmarks.etl"
MIN_ITEM_COUNT = 5


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time the ETL.")
    parser.add_argument("--events", type=int, default=10_000_000, metavar="N")
    parser.add_argument("--items", type=int, default=200_000, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--memory-mib", type=int, default=MEMORY_MIB, help="the engine's limit")
    parser.add_argument("--by", choices=get_args(By), help="only these sequences (default: both)")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, never void. Raises UserError."""
    if args.events < 1 or args.items < 1:
        raise UserError("--events and --items must be at least 1")
    figures = Figures(PROGRAM)
    with tempfile.TemporaryDirectory(prefix="tillwise-") as made:
        began = time.perf_counter()
        write_event_log(Path(made), args.events, args.items, args.seed)
        elapsed = time.perf_counter() - began
        figures.notes.append(f"made {args.events:,} events in {elapsed:.0f} s, not counted")
        for by in [args.by] if args.by else get_args(By):
            _add(figures, by, _in_fresh_process(Path(made), by, args.memory_mib), args.events)
    figures.notes.append(
        f"vocabulary: items in {MIN_ITEM_COUNT} or more sequences; the engine may hold "
        f"{args.memory_mib} MiB; load average {os.getloadavg()[0]:.1f} at the end"
    )
    return figures, False


def _add(figures: Figures, by: By, told: dict[str, Any], num_events: int) -> None:
    steps = {f"{name}_s": [seconds] for name, seconds in told["steps"].items()}
    metrics = {"per_second": [num_events / told["seconds"]]} | steps
    figures.add(f"etl/{by}", metrics, seconds=told["seconds"], peak_mib=told["peak_mib"])
    figures.notes.append(
        f"by {by}: {told['sequences']:,} sequences, {told['interactions']:,} interactions, "
        f"{told['items']:,} items"
    )


def _in_fresh_process(folder: Path, by: By, memory_mib: int) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (folder, by, memory_mib))


def measure(folder: Path, by: By, memory_mib: int) -> dict[str, Any]:
    """One reading of `folder`, with its time and the peak memory of this process."""
    began = time.perf_counter()
    read = read_sequences(folder, by=by, min_item_count=MIN_ITEM_COUNT, memory_mib=memory_mib)
    return {
        "seconds": time.perf_counter() - began,
        "peak_mib": peak_mib(),
        "steps": read.seconds,
        "sequences": len(read),
        "interactions": len(read.item),
        "items": len(read.vocabulary.item_ids),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

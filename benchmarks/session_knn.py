"""`python -m benchmarks.session_knn`: how long VMIS-kNN takes to build and to answer, and what it
weighs.

A synthetic log of clicks, and a click log of your own with `--data`. Predictions are made one at a
time, as serving makes them, with the settings of the `session-knn` protocol and the current item
dropped. Each log has a process of its own, so that memory is of its index alone.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.command import add_json, execute
from benchmarks.event_log import session_lengths, zipf_items
from contract.clock import MICROSECONDS
from contract.errors import UserError
from contract.figures import Figures
from training.commands import peak_mib
from training.data.clicks import Clicks, read_clicks
from training.evaluation.session_knn_benchmark import CUTOFF, QUERY_ITEMS, K, M, protocol_knn

PROGRAM = "benchmarks.session_knn"
_MEAN_CLICKS = 5.0
_ZIPF_POWER = 0.9
_WARM_UP = 200
_MIB = 2**20

Ints = npt.NDArray[np.int64]
Told = tuple[dict[str, list[float]], float, float, str]  # metrics, seconds, peak MiB, note


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time VMIS-kNN.")
    parser.add_argument("--clicks", type=int, default=10_000_000, metavar="N", help="0: none")
    parser.add_argument("--items", type=int, default=500_000, metavar="N")
    parser.add_argument("--predictions", type=int, default=20_000, metavar="N", help="at most")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a click log to measure as well")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, never void. Raises UserError."""
    if args.clicks < 0 or args.items < 1 or args.predictions < 1:
        raise UserError("--clicks must be at least 0, --items and --predictions at least 1")
    if not args.clicks and args.data is None:
        raise UserError("nothing to measure: give --clicks or --data")
    figures = Figures(PROGRAM)
    asked = (args.clicks, args.items, args.seed, args.predictions)
    if args.data is not None:
        _add(figures, "session-knn/data", measure_folder, (args.data, args.predictions))
    if args.clicks:
        _add(figures, "session-knn/synthetic", measure_synthetic, asked)
        figures.notes.append(
            "synthetic: items by a Zipf law, sessions independent of one another, lengths about "
            f"{_MEAN_CLICKS:.0f}; its predictions are for further sessions of the same kind"
        )
    figures.notes += [
        f"m={M}, k={K}, {QUERY_ITEMS} items; one prediction at a time, one thread; seconds are of "
        "the build",
        f"load average {os.getloadavg()[0]:.1f} at the end",
    ]
    return figures, False


def _add(
    figures: Figures, name: str, measured: Callable[..., Told], arguments: tuple[object, ...]
) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        metrics, seconds, peak, note = pool.apply(measured, arguments)
    figures.add(name, metrics, seconds=seconds, peak_mib=peak)
    figures.notes.append(f"{name}: {note}")


def measure_folder(folder: Path, predictions: int) -> Told:
    """The click log in `folder`, asked at every position of its test sessions."""
    return _measure(read_clicks(folder), predictions)


def measure_synthetic(clicks: int, items: int, seed: int, predictions: int) -> Told:
    """A made-up log of `clicks` clicks on `items` items."""
    return _measure(synthetic_clicks(clicks, items, seed, predictions), predictions)


def synthetic_clicks(clicks: int, items: int, seed: int, predictions: int) -> Clicks:
    """Training clicks in the order of their time, and test sessions for `predictions`."""
    chance = np.random.default_rng(seed)
    lengths = session_lengths(chance, clicks, _MEAN_CLICKS)
    session = np.repeat(np.arange(len(lengths)), lengths)
    number = chance.permutation(items)  # by popularity
    item = number[zipf_items(chance, clicks, items, _ZIPF_POWER)]
    asked = session_lengths(chance, 2 * predictions, _MEAN_CLICKS)
    drawn = zipf_items(chance, 2 * predictions, items, _ZIPF_POWER)
    tests = np.split(number[drawn], np.cumsum(asked)[:-1])
    times = np.arange(clicks) * MICROSECONDS
    return Clicks(
        session, item, times, pa.array(np.arange(items)), [t for t in tests if len(t) > 1]
    )


def _measure(clicks: Clicks, predictions: int) -> Told:
    began = time.perf_counter()
    knn = protocol_knn(clicks)
    seconds = time.perf_counter() - began
    asked = [s[:place] for s in clicks.test_sessions for place in range(1, len(s))][:predictions]
    found, elapsed_ms = [], []
    for number, seen in enumerate([*asked[:_WARM_UP], *asked]):
        start = time.perf_counter_ns()
        items, _ = knn.score(seen[-QUERY_ITEMS:], drop=seen[-1:])
        best = items[:CUTOFF]
        if number >= min(_WARM_UP, len(asked)):
            elapsed_ms.append((time.perf_counter_ns() - start) / 1e6)
            found.append(len(best))
    metrics = {f"p{share}_ms": [float(np.percentile(elapsed_ms, share))] for share in (50, 90, 99)}
    metrics["max_ms"] = [max(elapsed_ms)]
    metrics["index_mib"] = [sum(array.nbytes for array in knn.arrays().values()) / _MIB]
    note = (
        f"{len(clicks.item):,} clicks, {len(knn.session_offsets) - 1:,} sessions, "
        f"{clicks.num_items:,} items; {len(asked):,} predictions of "
        f"{np.mean(found):.1f} items on average"
    )
    return metrics, seconds, peak_mib(), note


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 with one line on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

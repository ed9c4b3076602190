"""`python -m benchmarks.index`: what the kinds of item index find, cost and weigh.

Each kind is built, asked with the least effort that passes the export's recall gate (or the most
there is), and timed as the gateway asks, Python and all: one query, eight at once, and under
filters. One thread, no model server, nothing but the search.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import faiss
import numpy as np

from benchmarks.command import add_json, execute
from benchmarks.vectors import held_out, synthetic
from contract.encoding import FIRST_ITEM
from contract.errors import UserError
from contract.figures import Figures
from contract.index_entry import EXACT_BELOW, FLAT, KINDS, RECALL_GATE, WANTED
from contract.item_index import ItemIndex, Mask
from contract.items import Floats
from training.export.index import FLAT_BELOW, Gate, Tried, choose, share_found, try_flat, try_kind
from training.export.index_kinds import Coarse

PROGRAM = "benchmarks.index"
SHARES = (0.5, 0.25, 0.1, 0.01, 0.001)  # of the items that a filter lets through
_BATCH = 8
_LEAST_ITEMS = 1_000
_ROUNDS = 150
_FILTERED_ROUNDS = 25


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Compare indexes.")
    parser.add_argument("--items", type=int, nargs="+", default=[26_000, 1_000_000], metavar="N")
    parser.add_argument("--dimension", type=int, default=64, metavar="D")
    parser.add_argument("--queries", type=int, default=400, metavar="Q")
    parser.add_argument(
        "--vectors", type=Path, metavar="FILE", help="item vectors [items, D] (.npy), not synthetic"
    )
    parser.add_argument(
        "--asked", type=Path, metavar="FILE", help="query vectors [Q, D] (.npy) for --vectors"
    )
    approximate = [kind for kind in KINDS if kind != FLAT]
    parser.add_argument("--kinds", nargs="*", choices=approximate, default=approximate)
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The table; its figures are never void. Raises UserError."""
    if min(args.items) < _LEAST_ITEMS or args.dimension < 2 or args.queries < _BATCH:
        raise UserError(
            f"--items must be at least {_LEAST_ITEMS}, --dimension 2 and --queries {_BATCH}"
        )
    faiss.omp_set_num_threads(1)
    figures = Figures("index", machine={"threads": 1, "faiss": faiss.__version__})
    for items, vectors, queries in _spaces(args):
        _compare(figures, f"{items:,}", vectors, queries, args)
    figures.notes += [
        f"recall: the share of the exact answer that is found; the gate asks {RECALL_GATE} at each "
        f"k in use and, of the first {WANTED}, under two filters (quarter, side)",
        f"p50, p90 and p99 are of one query for its {WANTED} nearest items; batch{_BATCH}_ms is of "
        f"{_BATCH} queries at once, the median for each of them",
        "MiB: the index and the exact vectors, as they are held while serving",
        f"filter rows: the share is what a random filter lets through; below {EXACT_BELOW:g} every "
        "kind is answered exactly, as flat is",
    ]
    return figures, False


def _spaces(args: argparse.Namespace) -> Iterator[tuple[int, Floats, Floats]]:
    if args.vectors is None:
        for items in args.items:
            yield items, *synthetic(items, args.dimension, args.queries, args.seed)
        return
    vectors = _read(args.vectors, _LEAST_ITEMS)
    if args.asked is not None:
        queries = _read(args.asked, _BATCH)[: args.queries]
        if queries.shape[1] != vectors.shape[1]:
            raise UserError(f"{args.asked}: {queries.shape} does not fit vectors {vectors.shape}")
    else:
        vectors, queries = held_out(vectors, args.queries, args.seed)
    yield len(vectors), vectors, queries


def _read(path: Path, least: int) -> Floats:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise UserError(f"{path}: is no readable .npy file") from None
    if getattr(found, "ndim", 0) != 2 or len(found) < least or not np.isfinite(found).all():
        raise UserError(f"{path}: needs at least {least} finite vectors, [number, dimension]")
    return np.ascontiguousarray(found, np.float32)


def _compare(
    figures: Figures, size: str, vectors: Floats, queries: Floats, args: argparse.Namespace
) -> None:
    """The rows of one catalogue."""
    gate = Gate(vectors, queries, args.seed)
    filters = _Filters(gate, args.seed)
    tried = [try_flat(gate)]
    _add(figures, size, tried[0], gate.exact, filters)
    coarse = Coarse.of(vectors, args.seed)
    for kind in args.kinds:
        print(f"{size}: {kind}", file=sys.stderr)
        for one, index in try_kind(kind, vectors, gate, coarse):
            tried.append(one)
            _add(figures, size, one, index, filters)
    taken = _name(choose(tried))
    if len(vectors) < FLAT_BELOW:
        taken = f"{FLAT}, as below {FLAT_BELOW:,} items; {taken} would pass and be quickest"
    figures.notes.append(f"{size} items: the export takes {taken}")


def _name(tried: Tried) -> str:
    asked = "".join(f" {name}={value}" for name, value in sorted(tried.parameters.items()))
    return f"{tried.kind}{asked}"


class _Filters:
    """Random masks with the exact answers under them."""

    def __init__(self, gate: Gate, seed: int) -> None:
        self.queries, rows = gate.queries, len(gate.exact.vectors)
        order = np.random.default_rng(seed + 1).permutation(rows - FIRST_ITEM) + FIRST_ITEM
        self.everything: Mask = np.ones(rows, bool)
        self.everything[:FIRST_ITEM] = False
        self.masks: dict[float, Mask] = {}
        for share in SHARES:
            mask = np.zeros(rows, bool)
            mask[order[: max(1, -int(-share * len(order) // 1))]] = True
            self.masks[share] = mask
        self.exact = {
            share: np.stack(gate.exact.exact(self.queries, mask, WANTED))
            for share, mask in self.masks.items()
        }


def _add(figures: Figures, size: str, tried: Tried, index: ItemIndex, filters: _Filters) -> None:
    recall = {
        f"recall@{one.k}" if one.filter == "none" else f"{one.filter.split()[-1]}@{one.k}": [
            one.value
        ]
        for one in tried.recall
    }
    one = _times(filters.queries, 1, _ROUNDS, index, filters.everything)
    many = _times(filters.queries, _BATCH, _ROUNDS // 3, index, filters.everything)
    name = f"{size} {_name(tried)}"
    mark = "" if tried.passed else " (fails)"
    figures.add(
        name + mark,
        {
            **recall,
            **_quantiles(one),
            f"batch{_BATCH}_ms": [float(np.median(many)) / _BATCH],
            "MiB": [tried.memory_mib],
        },
        seconds=tried.build_seconds,
    )
    for share, mask in filters.masks.items():
        if share < EXACT_BELOW and tried.kind != FLAT:
            continue  # the same exact search, whatever the kind
        rows = np.stack(index.nearest(filters.queries, mask, WANTED))
        took = _times(filters.queries, 1, _FILTERED_ROUNDS, index, mask)
        found = share_found(rows, filters.exact[share])
        figures.add(f"{name} filter {share:g}", {f"recall@{WANTED}": [found], **_quantiles(took)})


def _times(queries: Floats, together: int, rounds: int, index: ItemIndex, mask: Mask) -> Floats:
    """Milliseconds of each search of `together` queries."""

    def search(start: int) -> Callable[[], object]:
        part = np.take(queries, np.arange(start, start + together), axis=0, mode="wrap")
        return lambda: index.nearest(part, mask, WANTED)

    took = []
    for number in range(rounds + 1):
        ask = search(number * together)
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1e3)
    return np.array(took[1:], np.float32)  # the first warms up


def _quantiles(took: Floats) -> dict[str, list[float]]:
    return {f"p{q}_ms": [float(np.percentile(took, q))] for q in (50, 90, 99)}


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the table stands, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

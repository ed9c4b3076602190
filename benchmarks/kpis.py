"""`python -m benchmarks.kpis`: what key figures cost. Simulated shoppers of 90 days go through the
worker's own rollup, event by event, into a file of sums and facts; then a gateway that stands over
this file is asked what the dashboard asks, and the dashboard is loaded in a browser.

To build it takes minutes. `--folder` keeps it, and another run only asks.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from benchmarks.command import Missed, execute
from benchmarks.kpi_shoppers import COSTS, PER_VISIT, START, batches
from benchmarks.page_load import page_loads
from benchmarks.servers import created_key, free_port, server
from contract.errors import UserError
from contract.figures import Figures
from serving.commands.worker_duties import OBJECTS_TO_COLLECT
from serving.monitoring.kpi_rollup import KpiRollup
from serving.monitoring.kpis import FILE
from serving.state.sqlite_writer import connect

PROGRAM = "benchmarks.kpis"
EVENTS = 10_000_000
MOST_SECONDS = 1.0
DAYS = 90
_BATCH = 4_000
_ASKS = 9
# What the dashboard asks at once, and what is asked most rarely: everything of a week in 5 minutes.
QUESTIONS = {
    "90 days by day, every metric": ("bucket=day", 90),
    "7 days by hour, every metric": ("bucket=hour", 7),
    "7 days by 5 minutes, every metric": ("bucket=5m", 7),
    "90 days by segment, totals": ("bucket=day&group_by=segment&series=false", 90),
    "90 days by segment, by day": ("bucket=day&group_by=segment&metrics=conversion", 90),
    "7 days by arm, by hour": ("bucket=hour&group_by=experiment", 7),
    "90 days by country, totals": ("bucket=day&group_by=country&series=false", 90),
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Ask key figures.")
    parser.add_argument("--events", type=int, default=EVENTS, metavar="N")
    parser.add_argument("--subjects", type=int, default=400_000, metavar="N")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the file here, or take it")
    parser.add_argument("--releases", type=Path, default=Path("releases"), metavar="DIR")
    parser.add_argument("--models", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures, and False: there is nothing to be void. Raises UserError, and Missed where an
    answer takes longer than was promised."""
    if args.events < 1_000 or args.subjects < 1:
        raise UserError("at least 1,000 events and a subject")
    figures, slow = Figures("kpis"), list[str]()
    with _folder(args.folder) as state:
        _build(figures, state / FILE, args)
        _ask(figures, state, args, slow)
    if slow:
        raise Missed(figures, f"more than {MOST_SECONDS:.0f} s: {', '.join(slow)}")
    return figures, False


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="tillwise-") as folder:
        yield Path(folder)


def _build(figures: Figures, path: Path, args: argparse.Namespace) -> None:
    if path.is_file():
        figures.notes.append(f"{path.name} was built before")
    else:
        seconds, events = _count(path, args)
        figures.add(
            "built by the worker's rollup",
            {"events": [float(events)], "per_second": [events / seconds]},
            seconds=seconds,
        )
    with closing(connect(path, read_only=True)) as file:
        (buckets,) = file.execute("SELECT count(*) FROM kpi_sums").fetchone()
        (visits,) = file.execute(
            "SELECT sum(visits) FROM kpi_sums WHERE grain = 86400000000 AND cut = 'all'"
        ).fetchone()
    mib = path.stat().st_size / 2**20
    figures.add("the file", {"rows of sums": [float(buckets)], "MiB": [mib]})
    figures.notes.append(f"{visits:,.0f} visits of about {PER_VISIT} events over {DAYS} days")


def _count(path: Path, args: argparse.Namespace) -> tuple[float, int]:
    """CPU seconds of the counting alone, and how many events it were."""
    gc.set_threshold(OBJECTS_TO_COLLECT)  # as in the worker
    making = path.with_suffix(".partial")
    making.unlink(missing_ok=True)
    spent, events, told = 0.0, 0, time.monotonic()
    visits = args.events // PER_VISIT
    with closing(connect(making)) as file:
        file.execute("PRAGMA synchronous=OFF")  # nobody needs it after a crash
        rollup = KpiRollup(file)
        for batch in batches(visits, DAYS, args.subjects, args.seed, _BATCH):
            began = time.process_time()
            file.execute("BEGIN IMMEDIATE")
            rollup.take(batch, COSTS)
            file.execute("COMMIT")
            spent += time.process_time() - began
            events += len(batch)
            if sys.stderr.isatty() and time.monotonic() - told > 1:
                told = time.monotonic()
                print(f"\r{events:,} of about {args.events:,} events", end="", file=sys.stderr)
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    making.rename(path)
    return spent, events


def _ask(figures: Figures, state: Path, args: argparse.Namespace, slow: list[str]) -> None:
    end = START + timedelta(days=DAYS)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folders = (f"--releases={args.releases}", f"--models={args.models}", f"--state={state}")
    key = created_key(state, "admin")
    told = ["run", f"--port={port}", f"--as-of={end.isoformat()}", *folders]
    headers = {"Authorization": f"Bearer {key}"}
    with server("serving", told, f"{url}/readyz"), httpx.Client(timeout=60) as client:
        for name, (query, days) in QUESTIONS.items():
            start = (end - timedelta(days=days)).isoformat()
            asked = httpx.URL(f"{url}/v1/kpis?{query}").copy_merge_params(
                {"start": start, "end": end.isoformat()}
            )
            spent = []
            for _ in range(_ASKS):
                began = time.perf_counter()
                answer = client.get(asked, headers=headers)
                spent.append((time.perf_counter() - began) * 1_000)
                if answer.status_code != 200:
                    raise UserError(f"the gateway answered {answer.status_code}: {answer.text}")
            _row(figures, name, spent, {"KiB": [len(answer.content) / 1_024]}, slow)
        loads = page_loads(f"{url}/dashboard/", key, _ASKS)
        if loads is None:
            figures.notes.append("no browser here: the dashboard was not loaded")
        else:
            _row(figures, "dashboard: from its address to all of its figures", loads, {}, slow)


def _row(
    figures: Figures,
    name: str,
    spent_ms: Sequence[float],
    more: dict[str, list[float]],
    slow: list[str],
) -> None:
    ordered = sorted(spent_ms)
    middle = ordered[len(ordered) // 2]
    figures.add(name, {"p50_ms": [middle], "max_ms": [ordered[-1]], **more})
    if middle > MOST_SECONDS * 1_000:
        slow.append(name)


def main(argv: Sequence[str] | None = None) -> int:
    """Build, ask, and say what it took."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

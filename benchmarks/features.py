"""`python -m benchmarks.features`: what the features of one decision cost to read, in memory and
from a Valkey server over loopback: those of a shopper alone, and of one who came as three visitors
and so has three states that are read at once and merged."""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import numpy as np
import uvloop

from benchmarks.command import add_json, execute
from benchmarks.valkey_process import valkey
from contract.errors import UserError
from contract.events import Event, EventItem
from contract.figures import Figures
from serving.inference.breaker import Breaker
from serving.state.control_records import Consent
from serving.state.feature_store import FeatureStore, LinkedFeatureStore, MemoryFeatureStore
from serving.state.sealing import SubjectKeys
from serving.state.secrets import Pseudonym, Secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.valkey_client import valkey_place
from serving.state.valkey_feature_store import ValkeyFeatureStore

PROGRAM = "benchmarks.features"
LIMITS_MS = {"memory": 0.2, "valkey": 5.0}
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_AT_ONCE = 500
_WARM_UP = 200


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time feature reads.")
    parser.add_argument("--subjects", type=int, default=2_000)
    parser.add_argument("--reads", type=int, default=5_000, help="of each row and run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--concurrent", type=int, default=8, help="reads at once, of its row")
    parser.add_argument("--seed", type=int, default=0)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures; they are never void. Raises UserError."""
    if min(args.subjects, args.reads, args.runs, args.concurrent) < 1:
        raise UserError("--subjects, --reads, --runs and --concurrent must be at least 1")
    figures = Figures("features", machine={"load_average": round(os.getloadavg()[0], 2)})
    with tempfile.TemporaryDirectory(prefix="tillwise-") as folder, valkey(Path(folder)) as server:
        place = valkey_place(server.url)
        control = SqliteControlStore(Path(folder) / "control.sqlite", Secrets((b"m" * 32,)))
        keys = SubjectKeys(control)
        makers: dict[str, Callable[[], FeatureStore]] = {
            "memory": lambda: MemoryFeatureStore(Path(folder), keys),
            "valkey": lambda: ValkeyFeatureStore(place, timedelta(days=1), Breaker(), keys),
        }
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            agreed = Consent(frozenset(("analytics", "personalization")), _BEGIN, "benchmark")
            runner.run(control.import_subjects(_known(args.subjects), agreed, (PROGRAM, "made")))
            for name, make in makers.items():
                runner.run(_measure(figures, name, make(), args))
        control.close()
    return figures, False


async def _measure(
    figures: Figures, name: str, store: FeatureStore, args: argparse.Namespace
) -> None:
    subjects = [str(UUID(int=number + 1)) for number in range(args.subjects)]
    chance = random.Random(args.seed)
    for start in range(0, len(subjects), 50):
        some = [
            one for subject in subjects[start : start + 50] for one in _history(chance, subject)
        ]
        for first in range(0, len(some), _AT_ONCE):
            await store.absorb(some[first : first + _AT_ONCE])
    for linked in (1, 3):
        reader = LinkedFeatureStore(
            store,
            lambda subject, n=linked: _linked(subjects, subject, n),  # type: ignore[misc]
        )

        async def read(subject: str, reader: LinkedFeatureStore = reader) -> None:
            await reader.read(subject)

        for at_once in (1, args.concurrent):
            label = f"{name}, {linked} linked, {at_once} at once"
            metrics: dict[str, list[float]] = {"p50_ms": [], "p99_ms": [], "cpu_ms": []}
            for _ in range(args.runs):
                computed = time.process_time()
                times = await _timed(read, chance.choices(subjects, k=args.reads), at_once)
                # What does not depend on who else uses the machine; with the warm-up's reads.
                spent = (time.process_time() - computed) * 1_000
                metrics["cpu_ms"].append(spent / (args.reads + min(args.reads, _WARM_UP)))
                metrics["p50_ms"].append(float(np.percentile(times, 50)))
                metrics["p99_ms"].append(float(np.percentile(times, 99)))
            figures.add(label, metrics)
            if at_once == 1:
                limit, p99 = LIMITS_MS[name], float(np.median(metrics["p99_ms"]))
                held = "reached" if p99 <= limit else "MISSED"
                figures.notes.append(
                    f"{label}: p99 at most {limit:g} ms: {held}, {p99:.3f} ms in the median run"
                )
    await store.aclose()


def _known(count: int) -> list[tuple[Pseudonym, str]]:
    return [(Pseudonym("v", f"{n}"), str(UUID(int=n + 1))) for n in range(count)]


def _linked(subjects: Sequence[str], subject: str, count: int) -> tuple[str, ...]:
    first = int(UUID(subject)) - 1
    return tuple(subjects[(first + n) % len(subjects)] for n in range(count))


async def _timed(
    read: Callable[[str], Awaitable[None]], subjects: Sequence[str], at_once: int
) -> list[float]:
    """Milliseconds of each read, by `at_once` readers that wait for nothing else."""
    times: list[float] = []

    async def reader(share: Sequence[str]) -> None:
        for subject in share:
            began = time.perf_counter()
            await read(subject)
            times.append((time.perf_counter() - began) * 1_000)

    await reader(subjects[:_WARM_UP])  # connections, compiled functions
    times.clear()
    await asyncio.gather(*(reader(subjects[n::at_once]) for n in range(at_once)))
    return times


def _history(chance: random.Random, subject: str) -> list[Event]:
    """A shopper's 30 to 200 events, a quarter of them purchases of 1 to 8 items."""
    events = []
    for number in range(chance.randint(30, 200)):
        bought = chance.random() < 0.25
        at = _BEGIN + timedelta(minutes=chance.randrange(500_000))
        count = chance.randint(1, 8) if bought else 1
        items = tuple(EventItem(item_id=f"item-{chance.randrange(20_000)}") for _ in range(count))
        events.append(
            Event.model_construct(
                event_id=UUID(int=chance.getrandbits(128)),
                event_name="purchase" if bought else "view_item",
                occurred_at=at,
                received_at=at,
                subject_id=UUID(subject),
                session_id=f"session-{number // 5}",
                purposes=("analytics", "personalization"),
                items=items,
                transaction_id=str(number),
            )
        )
    return events


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

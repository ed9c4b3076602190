"""`python -m benchmarks.control_store`: what the control store costs in SQLite and in PostgreSQL (a
server of its own on this machine, with fsync): a look-up, new subjects one by one and many at once,
how soon another gateway sees a word of consent, and how long a copy takes to make."""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np

from benchmarks.command import add_json, execute
from benchmarks.postgres_process import postgres
from contract.errors import UserError
from contract.figures import Figures
from serving.control import open_control
from serving.settings import load_settings
from serving.state.control_records import Consent
from serving.state.secrets import Pseudonym, Secrets
from serving.state.sql_control_store import SqlControlStore

PROGRAM = "benchmarks.control_store"
SEEN_MS = 1_000.0
_SECRETS = Secrets((b"m" * 32,))
_AGREED = Consent(frozenset({"analytics"}), datetime(2026, 1, 1, tzinfo=UTC), "benchmark")

Open = Callable[[], SqlControlStore]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Time the store.")
    parser.add_argument("--subjects", type=int, default=20_000, help="that are there already")
    parser.add_argument("--lookups", type=int, default=20_000)
    parser.add_argument("--writes", type=int, default=500, help="of each kind")
    parser.add_argument("--at-once", type=int, default=64, help="writers, of its row")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures; they are never void. Raises UserError."""
    if min(args.subjects, args.lookups, args.writes, args.at_once) < 1:
        raise UserError("--subjects, --lookups, --writes and --at-once must be at least 1")
    figures = Figures("control_store", machine={"load_average": round(os.getloadavg()[0], 2)})
    for name, place in (("sqlite", _sqlite), ("postgresql", _postgresql)):
        with place() as open_one:
            asyncio.run(_measure(figures, name, open_one, args))
    return figures, False


@contextmanager
def _sqlite() -> Iterator[Open]:
    with tempfile.TemporaryDirectory(prefix="tillwise-") as folder:
        settings = load_settings(state=Path(folder))
        yield lambda: open_control(settings, _SECRETS)


@contextmanager
def _postgresql() -> Iterator[Open]:
    with tempfile.TemporaryDirectory(prefix="tillwise-") as folder, postgres() as server:
        settings = load_settings(
            state=Path(folder), control_store=server.url, postgres_user=server.user
        )
        yield lambda: open_control(settings, _SECRETS)


async def _measure(figures: Figures, name: str, open_one: Open, args: argparse.Namespace) -> None:
    here = open_one()
    known = [_SECRETS.pseudonyms(f"known-{n}", "visitor") for n in range(args.subjects)]
    rows: list[tuple[Pseudonym, str]] = [
        (names[0], str(UUID(int=n))) for n, names in enumerate(known)
    ]
    await here.import_subjects(rows, _AGREED, (PROGRAM, "made"))
    began = time.perf_counter()
    there = open_one()
    figures.add(f"{name}/open", {"open_ms": [_since(began)]})
    await asyncio.sleep(1)  # the copies have settled
    times = []
    for n in range(args.lookups):
        began = time.perf_counter()
        here.look_up(known[n % args.subjects], None)
        times.append(_since(began))
    figures.add(f"{name}/look-up", _percentiles(times))
    for at_once in (1, args.at_once):

        async def new(number: int, at_once: int = at_once) -> None:
            names = _SECRETS.pseudonyms(f"new-{at_once}-{number}", "visitor")
            await here.establish(names, None, _AGREED)

        label = f"{name}/new subject, {at_once} at once"
        figures.add(label, await _written(new, args.writes, at_once))
    seen = await _seen(here, there, max(args.writes // 5, 1))
    figures.add(f"{name}/seen elsewhere", seen)
    (p99,) = seen["p99_ms"]
    held = "reached" if p99 <= SEEN_MS else "MISSED"
    figures.notes.append(f"{name}: seen elsewhere within {SEEN_MS:g} ms: {held}, p99 {p99:.1f} ms")
    there.close()
    here.close()


async def _written(
    write: Callable[[int], Awaitable[None]], count: int, at_once: int
) -> dict[str, list[float]]:
    times: list[float] = []

    async def writer(first: int) -> None:
        for number in range(first, count, at_once):
            began = time.perf_counter()
            await write(number)
            times.append(_since(began))

    began = time.perf_counter()
    await asyncio.gather(*(writer(first) for first in range(at_once)))
    return {"per_second": [count / (time.perf_counter() - began)], **_percentiles(times)}


async def _seen(
    here: SqlControlStore, there: SqlControlStore, count: int
) -> dict[str, list[float]]:
    """From the answer to a write to the moment at which another store reads it."""
    times = []
    for number in range(count):
        names = _SECRETS.pseudonyms(f"seen-{number}", "visitor")
        await here.establish(names, None, _AGREED)
        began = time.perf_counter()
        while there.look_up(names, None).consent is None:
            await asyncio.sleep(0.0005)
        times.append(_since(began))
    return _percentiles(times)


def _percentiles(times: list[float]) -> dict[str, list[float]]:
    return {f"p{share}_ms": [float(np.percentile(times, share))] for share in (50, 99)} | {
        "max_ms": [max(times)]
    }


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1_000


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

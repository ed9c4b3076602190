"""`python -m benchmarks.ingest`: events accepted durably by one gateway on one core, in batches of
500 over HTTP, with the log encrypted and unencrypted in turn; and what it costs to read it back.

Shoppers are known and have agreed; a batch holds the latest events of some fifty of them, as a
shop's server or a proxy of its pages would send it.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import httpx

from benchmarks.command import execute
from benchmarks.servers import created_key, free_port, server
from contract.errors import UserError
from contract.figures import Figures
from serving.state.event_log import SqliteEventLog
from serving.state.records import Codec, PlainCodec
from serving.state.sealing import SealedCodec, SubjectKeys
from serving.state.secrets import load_secrets
from serving.state.sqlite_control_store import SqliteControlStore
from serving.state.state_folder import CONTROL, EVENTS

PROGRAM = "benchmarks.ingest"
BATCH = 500
WANTED_PER_SECOND = 10_000
KINDS = ("encrypted", "unencrypted")
_PER_SHOPPER = 10  # events of one shopper in a batch
_AGREED = {"personalization": True, "analytics": True, "offers": True}
_NAMES = ("view_item", "view_item", "page_view", "search", "add_to_cart", "click", "purchase")


@dataclass
class Measured:
    """What the rounds of one kind gave."""

    per_second: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)  # of the gateway, per event
    batch_ms: list[float] = field(default_factory=list)
    read_us: list[float] = field(default_factory=list)  # to read an event back, per event


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description="Measure ingest.")
    parser.add_argument("--rounds", type=int, default=3, help="of each kind, in turn")
    parser.add_argument("--events", type=int, default=60_000, help="in each round")
    parser.add_argument("--shoppers", type=int, default=2_000)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--releases", type=Path, default=Path("releases"), metavar="DIR")
    parser.add_argument("--models", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures there")
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures; they are never void. Raises UserError."""
    if min(args.rounds, args.shoppers, args.connections) < 1 or args.events < BATCH:
        raise UserError(f"ask for at least one round, shopper and connection, and {BATCH} events")
    found = {kind: Measured() for kind in KINDS}
    for number in range(args.rounds):
        # The other way round in every second one, so that neither always comes first.
        for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
            print(f"round {number + 1}, {kind} ...", file=sys.stderr, flush=True)
            _round(args, kind, number, found[kind])
    return _figures(found), False


def _round(args: argparse.Namespace, kind: str, seed: int, measured: Measured) -> None:
    """One gateway with a fresh state, started, filled with subjects, measured and ended."""
    with tempfile.TemporaryDirectory(prefix="tillwise-") as name:
        folder = Path(name)
        key = created_key(folder, "checkout")
        port = free_port()
        places = {"releases": args.releases.resolve(), "models": args.models.resolve()}
        arguments = [f"--port={port}", f"--state={folder}"]
        arguments += [f"--{one}={place}" for one, place in places.items()]
        arguments += ["--plain"] if kind == "unencrypted" else []
        cores = sorted(os.sched_getaffinity(0))
        arguments += [f"--core={cores[0]}"] if len(cores) > 1 else []
        url = f"http://127.0.0.1:{port}"
        with server("benchmarks.ingest_server", arguments, f"{url}/healthz") as process:
            if len(cores) > 1:
                os.sched_setaffinity(0, set(cores[1:]))
            try:
                asyncio.run(_drive(args, url, key, seed, process.pid, measured))
            finally:
                os.sched_setaffinity(0, set(cores))
        measured.read_us.append(_read_back(folder, kind))


async def _drive(
    args: argparse.Namespace, url: str, key: str, seed: int, pid: int, measured: Measured
) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=60.0, trust_env=False
    ) as client:
        for body in _batches(args.shoppers, args.shoppers, seed=1_000 + seed, each=1):
            await _send(client, body)  # everybody is known from here on
        bodies = list(_batches(args.events, args.shoppers, seed, _PER_SHOPPER))
        waiting = iter(bodies)

        async def one_after_another() -> None:
            for body in waiting:
                began = time.perf_counter()
                await _send(client, body)
                measured.batch_ms.append((time.perf_counter() - began) * 1_000)

        began, cpu = time.perf_counter(), _cpu_seconds(pid)
        await asyncio.gather(*(one_after_another() for _ in range(args.connections)))
        seconds, count = time.perf_counter() - began, len(bodies) * BATCH
        measured.per_second.append(count / seconds)
        measured.cpu_us.append((_cpu_seconds(pid) - cpu) / count * 1e6)


async def _send(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/v1/events", content=body)
    statuses = {one["status"] for one in answer.json().get("results", [])}
    if answer.status_code != 202 or statuses != {"accepted"}:
        raise UserError(f"a batch was answered {answer.status_code}, {sorted(statuses)}")


def _batches(num_events: int, shoppers: int, seed: int, each: int) -> Iterator[bytes]:
    """Bodies of `BATCH` events, `each` in a row of the same shopper."""
    chance = random.Random(seed)
    for start in range(0, num_events, BATCH):
        events = []
        for place in range(BATCH):
            number = (start + place) // each
            shopper = number % shoppers if each == 1 else (number * 7_919) % shoppers
            events.append(_event(chance, shopper))
        yield json.dumps({"events": events}).encode()


def _event(chance: random.Random, shopper: int) -> dict[str, object]:
    name = chance.choice(_NAMES)
    event: dict[str, object] = {
        "event_id": str(UUID(int=chance.getrandbits(128), version=4)),
        "event_name": name,
        "occurred_at": f"2026-01-{chance.randrange(1, 28):02d}T11:{chance.randrange(60):02d}:00Z",
        "visitor_id": f"visitor-{shopper}",
        "session_id": f"session-{shopper}-{chance.randrange(3)}",
        "consent": _AGREED,
        "context": {"device": "mobile", "country": "DE", "timezone": "Europe/Berlin"},
    }
    if name != "page_view":
        count = 4 if name == "purchase" else 1
        event["items"] = [
            {"item_id": f"item-{chance.randrange(20_000)}", "quantity": 1, "price": 399}
            for _ in range(count)
        ]
    if name == "search":
        event["search_term"] = "oat milk"
    if name == "purchase":
        event["transaction_id"] = f"t-{chance.randrange(10**6)}"
    return event


def _read_back(folder: Path, kind: str) -> float:
    """Microseconds an event to read the whole log, as a replay does."""
    control = SqliteControlStore(folder / CONTROL, load_secrets(folder, None))
    codec: Codec = PlainCodec() if kind == "unencrypted" else SealedCodec(SubjectKeys(control))
    event_log = SqliteEventLog(folder / EVENTS, codec)
    began = time.perf_counter()
    count = sum(1 for _ in event_log.read_from(0))
    seconds = time.perf_counter() - began
    event_log.close()
    control.close()
    return seconds / count * 1e6


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system


def _figures(found: dict[str, Measured]) -> Figures:
    figures = Figures("ingest", machine={"load_average": round(os.getloadavg()[0], 2)})
    for kind, measured in found.items():
        ordered = sorted(measured.batch_ms)
        metrics: dict[str, Sequence[float]] = {
            "per_second": measured.per_second,
            "cpu_us_per_event": measured.cpu_us,
            "read_us_per_event": measured.read_us,
            "p50_ms": [ordered[len(ordered) // 2]],
            "p99_ms": [ordered[int(len(ordered) * 0.99)]],
        }
        figures.add("tillwise" if kind == "encrypted" else f"tillwise/{kind}", metrics)
    encrypted, plain = found["encrypted"], found["unencrypted"]
    pairs = list(zip(encrypted.cpu_us, plain.cpu_us, strict=True))
    cost = sum(one - other for one, other in pairs) / len(pairs)
    figures.notes.append(f"encryption costs {cost:.1f} us of CPU an event to write")
    slowest = min(encrypted.per_second)
    held = slowest >= WANTED_PER_SECOND
    figures.notes.append(
        f"at least {WANTED_PER_SECOND:,} events/s, encrypted: {'reached' if held else 'MISSED'}, "
        f"slowest round {slowest:,.0f}; load average {os.getloadavg()[0]:.1f}"
    )
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

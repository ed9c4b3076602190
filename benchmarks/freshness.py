"""`python -m benchmarks.freshness`: from the 202 for an event to the first decision that it
changes, with the gateway as a process: features in memory, features in Valkey, and events through
Kafka's protocol besides. Other shoppers' events come in meanwhile.

The brokers are librdkafka's mock cluster: the real protocol, but no broker's disks or replicas.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np

from benchmarks.checkouts import DECIDE, stranger
from benchmarks.command import add_json, add_release, execute
from benchmarks.kafka_brokers import brokers
from benchmarks.servers import created_key, free_port, server
from benchmarks.valkey_process import valkey
from contract.errors import UserError
from contract.figures import Figures

PROGRAM = "benchmarks.freshness"
LIMIT_MS = 1_000.0
ROWS = ("memory", "valkey", "kafka, valkey")
_ALL = {"personalization": True, "analytics": True, "offers": False}
_PATIENCE_S = 10.0
_BETWEEN_S = 0.002
_BATCH = 10


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}", description="Time events to their effect."
    )
    parser.add_argument("--trials", type=int, default=150, help="of each row")
    parser.add_argument("--rate", type=float, default=100.0, help="other events per second")
    add_release(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> tuple[Figures, bool]:
    """The figures; they are never void. Raises UserError."""
    if args.trials < 1 or args.rate < 0:
        raise UserError("--trials must be at least 1, --rate not negative")
    figures = Figures("freshness", machine={"load_average": round(os.getloadavg()[0], 2)})
    for name in ROWS:
        with ExitStack() as stack:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tillwise-")))
            settings: dict[str, str] = {}
            if "valkey" in name:
                settings["TILLWISE_FEATURE_STORE"] = stack.enter_context(valkey(root)).url
            if "kafka" in name:
                addresses = stack.enter_context(brokers())
                settings["TILLWISE_EVENT_LOG"] = f"kafka://{addresses}/events"
            times = _row(args, root, settings)
        metrics = {f"p{part}_ms": [float(np.percentile(times, part))] for part in (50, 99)}
        figures.add(name, metrics | {"max_ms": [max(times)], "trials": [float(len(times))]})
        held = "reached" if metrics["p99_ms"][0] <= LIMIT_MS else "MISSED"
        figures.notes.append(
            f"{name}: p99 at most {LIMIT_MS:g} ms: {held}, {metrics['p99_ms'][0]:.1f} ms"
        )
    return figures, False


def _row(args: argparse.Namespace, root: Path, settings: Mapping[str, str]) -> list[float]:
    port, state = free_port(), f"--state={root / 'state'}"
    key = created_key(root / "state", "checkout")
    arguments = ["run", f"--port={port}", state, f"--releases={args.releases.resolve()}"]
    arguments.append(f"--models={args.models.resolve()}")
    url = f"http://127.0.0.1:{port}"
    with server("serving", arguments, f"{url}/readyz", settings):
        return asyncio.run(_trials(url, key, args.trials, args.rate))


async def _trials(url: str, key: str, count: int, rate: float) -> list[float]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=10.0, trust_env=False
    ) as client:
        items = [one["item_id"] for one in await _decide(client, _checkout("warm-up", []))]
        if not items:
            raise UserError("the gateway suggests nothing")
        others = asyncio.create_task(_others(client, items, rate))
        try:
            await _trial(client, items[0])  # by then the gateway has joined its group of consumers
            return [await _trial(client, items[0]) for _ in range(count)]
        finally:
            others.cancel()
            await asyncio.gather(others, return_exceptions=True)


async def _trial(client: httpx.AsyncClient, cart: str) -> float:
    """Milliseconds from the 202 to the answer that differs."""
    visitor = str(uuid4())
    body = _checkout(visitor, [cart])
    await _decide(client, body)  # by which the shopper becomes known
    before = await _decide(client, body)
    if before != await _decide(client, body):
        raise UserError("answers differ without any event; nothing can be told from them")
    bought = before[-1]["item_id"]
    answer = await client.post("/v1/events", content=_events([(visitor, bought)]))
    began = time.perf_counter()
    if answer.status_code != 202 or "rejected" in answer.text:
        raise UserError(f"the event was refused: {answer.text[:200]}")
    while before == await _decide(client, body):
        if time.perf_counter() - began > _PATIENCE_S:
            raise UserError(f"an event had no effect within {_PATIENCE_S:g} s")
        await asyncio.sleep(_BETWEEN_S)
    return (time.perf_counter() - began) * 1_000


async def _decide(client: httpx.AsyncClient, body: bytes) -> list[dict[str, Any]]:
    answer = await client.post(DECIDE, content=body)
    if answer.status_code != 200:
        raise UserError(f"a decision was refused: {answer.text[:200]}")
    said = answer.json()
    if "features" in said["degraded"]:
        return []
    found: list[dict[str, Any]] = said["recommendations"]
    return found


async def _others(client: httpx.AsyncClient, items: Sequence[str], rate: float) -> None:
    chance = random.Random(0)
    while rate > 0:
        pairs = [(f"other-{chance.randrange(500)}", chance.choice(items)) for _ in range(_BATCH)]
        await client.post("/v1/events", content=_events(pairs))
        await asyncio.sleep(_BATCH / rate)


def _checkout(visitor: str, items: Sequence[str]) -> bytes:
    said = json.loads(stranger(items, "USD", 0))
    return json.dumps(said | {"visitor_id": visitor, "consent": _ALL, "deadline_ms": 500}).encode()


def _events(pairs: Sequence[tuple[str, str]]) -> bytes:
    events = [
        {
            "event_id": str(uuid4()),
            "event_name": "purchase",
            "occurred_at": datetime.now(UTC).isoformat(),
            "session_id": visitor,
            "visitor_id": visitor,
            "items": [{"item_id": item_id}],
            "transaction_id": str(uuid4()),
            "consent": _ALL,
        }
        for visitor, item_id in pairs
    ]
    return json.dumps({"events": events}).encode()


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the figures stand, 2 on bad input."""
    args = build_parser().parse_args(argv)
    return execute(PROGRAM, lambda: run(args), args.json)


if __name__ == "__main__":
    sys.exit(main())

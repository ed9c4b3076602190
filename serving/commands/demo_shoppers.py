"""Simulated shoppers of the demo: real baskets from the days after the release was trained, which
it never saw, each bought through the real gateway at its own time of the week, so that the
dashboard has a running test to show.

Real: who comes when, with which basket, and what the gateway answers. Made up, by the parameters
below: that half of a basket is in the cart when the suggestions are shown; that a shopper takes a
suggestion that the rest of the basket holds, and each one found there makes buying likelier;
whether they buy at all; device, country and consent.
"""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from contract.clock import AsOfClock
from contract.experiments import ExperimentBook, personalised_against_generic
from serving.api.demo_page import Shelf
from serving.api.demo_shop import DECIDE
from serving.api.gateway import Gateway
from serving.commands.held_out import split
from serving.commands.parquet import read_columns
from serving.decision.experiment_arms import DOCUMENT
from serving.state.audit import COMMAND_LINE

_COLUMNS = ("event_name", "subject_id", "session_id", "occurred_at", "items")
EVENTS: Final = "/v1/events"
TEST: Final = personalised_against_generic().model_copy(update={"status": "running"})
CONTROL: Final = TEST.control.key
_NOTE: Final = "the demo's test, on simulated shoppers"
_THREADS = 4
_LOOK_S = 0.2  # how often its progress is told
_MOST_LINES = 12
_BUYS, _BUYS_MORE = 0.62, 0.07  # with nothing found, and for each suggestion that was found
_FINDS = 0.75  # how often a suggestion that belongs to the basket is taken
_LOOKS_ON = timedelta(minutes=3)
_DEVICES = {"mobile": 0.58, "desktop": 0.34, "tablet": 0.08}
_COUNTRIES = {"US": 0.86, "CA": 0.1, "MX": 0.04}
_REFUSES_ALL, _AGREES, _AGREES_TO_OFFERS = 0.06, 0.82, 0.6


@dataclass(frozen=True)
class Basket:
    """A visit: who, when, what is in the cart and what the rest of the basket held."""

    visitor_id: str
    session_id: str
    at: datetime
    cart: tuple[str, ...]
    rest: frozenset[str]


def baskets(
    source: Path, after: datetime, shelf: Shelf, passed_over: Sequence[str], most: int
) -> list[Basket]:
    """The first `most` baskets after `after`, in the order of time."""
    table = read_columns(source / "subjects.parquet", ("subject_id", "visitor_id"))
    visitors = dict(
        zip(table["subject_id"].to_pylist(), table["visitor_id"].to_pylist(), strict=True)
    )
    late = pa.scalar(after)
    parts = []
    for path in sorted((source / "events").glob("*.parquet")):
        part = read_columns(path, _COLUMNS)
        kept = pc.and_(
            pc.greater_equal(part["occurred_at"], late), pc.equal(part["event_name"], "purchase")
        )
        parts.append(part.filter(kept))
    events = pa.concat_tables(parts).sort_by(
        [("occurred_at", "ascending"), ("session_id", "ascending")]
    )
    found: list[Basket] = []
    left_out = set(passed_over)
    for event in events.to_pylist():
        visitor = visitors.get(event["subject_id"])
        if visitor is None or visitor in left_out:
            continue
        names = [line["item_id"] for line in event["items"] if shelf.item(line["item_id"])]
        cart, rest = split(event["session_id"], list(dict.fromkeys(names)))
        if cart and rest:
            at = event["occurred_at"].replace(tzinfo=event["occurred_at"].tzinfo or UTC)
            found.append(
                Basket(visitor, event["session_id"], at, tuple(cart[:_MOST_LINES]), frozenset(rest))
            )
        if len(found) == most:
            break
    return found


async def start_test(gateway: Gateway) -> None:
    """Let personalised against generic run, unless somebody wrote experiments before."""
    if gateway.control.document(DOCUMENT) is None:
        body = ExperimentBook().saved(TEST, gateway.clock.now()).model_dump_json(exclude_none=True)
        await gateway.control.put_document(DOCUMENT, body, 0, COMMAND_LINE, _NOTE)
        gateway.experiments.follow()


class Shoppers:
    """Sends visits to the gateway at `host`:`port`, whose clock goes along with them."""

    def __init__(
        self, host: str, port: int, api_key: str, shelf: Shelf, clock: AsOfClock, seed: int = 7
    ) -> None:
        self._place = (host, port)
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
        }
        self._shelf = shelf
        self._clock = clock
        self._seed = seed
        self._held = threading.local()

    def come(
        self, visits: Sequence[Basket], seconds: float, progress: Callable[[float], object]
    ) -> int:
        """Let them come in their order, some at once, for at most about so long; returns how many
        came. `progress` is told the share of the days that have passed."""
        ahead = _Turns(visits, seconds)
        came = 0
        with ThreadPoolExecutor(_THREADS, "shoppers") as pool:
            tasks = [pool.submit(self._send, ahead) for _ in range(_THREADS)]
            while not all(task.done() for task in tasks):
                time.sleep(_LOOK_S)
                progress(ahead.share)
            came = sum(task.result() for task in tasks)
        self._clock.move_to(self._clock.now() + _LOOKS_ON)
        return came

    def _send(self, ahead: "_Turns") -> int:
        came = 0
        for basket in ahead:
            self._clock.move_to(basket.at)
            self.visit(basket)
            came += 1
        return came

    def visit(self, basket: Basket) -> None:
        """One checkout, and what comes of it."""
        draw = random.Random(f"{self._seed}:{basket.session_id}")
        who = _who(basket, draw)
        lines = [
            {"item_id": one, "quantity": 1, "price": price}
            for one in basket.cart
            if (price := self._price(one)) is not None
        ]
        currency = self._shelf.currency
        if not lines:
            return
        cart = {"cart_id": basket.session_id, "currency": currency, "items": lines}
        asked = {**who, "cart": cart, "placements": ["recommendations"], "deadline_ms": 1_000}
        shown = [one["item_id"] for one in self._post(DECIDE, asked)["recommendations"]]
        taken = [one for one in shown if one in basket.rest and draw.random() < _FINDS]
        now = self._clock.now().isoformat()
        events = [
            _event("add_to_cart", who, now, draw, items=lines),
            _event("begin_checkout", who, now, draw, items=lines),
        ]
        if draw.random() < _BUYS + _BUYS_MORE * len(taken):
            added = [
                {"item_id": one, "quantity": 1, "price": price}
                for one in taken
                if (price := self._price(one)) is not None
            ]
            bought = [*lines, *added]
            said = {"transaction_id": basket.session_id, "items": bought, "currency": currency}
            events.append(_event("purchase", who, now, draw, **said))
        self._post(EVENTS, {"events": events})

    def _price(self, item_id: str) -> int | None:
        item = self._shelf.item(item_id)
        return None if item is None else item.price

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = getattr(self._held, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(*self._place, timeout=10)
            self._held.connection = connection
        connection.request("POST", path, json.dumps(body).encode(), self._headers)
        answer = connection.getresponse()
        said: dict[str, Any] = json.loads(answer.read())
        if answer.status >= 400:
            raise ConnectionError(f"{path}: {said.get('detail', answer.status)}")
        return said


class _Turns:
    """Whose turn it is. On a machine that can not send them all in `seconds` some are left out all
    along, so that the days are covered to the end."""

    def __init__(self, visits: Sequence[Basket], seconds: float) -> None:
        self._visits = visits
        self._seconds = seconds
        self._began = time.monotonic()
        self._next = 0
        self._lock = threading.Lock()

    @property
    def share(self) -> float:
        """How far it has come."""
        return min(self._next / max(len(self._visits), 1), 1.0)

    def __iter__(self) -> Iterator[Basket]:
        while True:
            with self._lock:
                passed = (time.monotonic() - self._began) / self._seconds
                place = max(self._next, int(passed * len(self._visits)))
                self._next = place + 1
            if place >= len(self._visits):
                return
            yield self._visits[place]


def _who(basket: Basket, draw: random.Random) -> dict[str, Any]:
    refuses, agrees = draw.random() < _REFUSES_ALL, draw.random() < _AGREES
    agrees = agrees and not refuses
    return {
        "visitor_id": basket.visitor_id,
        "session_id": basket.session_id,
        "context": {"device": _drawn(_DEVICES, draw), "country": _drawn(_COUNTRIES, draw)},
        "consent": {
            "personalization": agrees,
            "analytics": not refuses,
            "offers": agrees and draw.random() < _AGREES_TO_OFFERS,
        },
    }


def _event(
    name: str, who: dict[str, Any], at: str, draw: random.Random, **said: Any
) -> dict[str, Any]:
    event_id = str(UUID(int=draw.getrandbits(128), version=4))
    return {"event_id": event_id, "event_name": name, "occurred_at": at, **who, **said}


def _drawn(shares: dict[str, float], draw: random.Random) -> str:
    return draw.choices(list(shares), list(shares.values()))[0]

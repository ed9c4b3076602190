"""Traffic of a shop from recorded or simulated sessions: behaviour goes to `POST /v1/events` while
it happens, the growing cart asks for a decision as it grows, when it is looked at and at checkout.

Of a folder of the simulator it reads events and subjects, as of an import, and the world that it
was made from, because shoppers who agree to nothing leave no event and must come all the same. What
is true of its shoppers is not read.

Sessions are sent whole. When all have been sent they come again, as other visitors with the same
carts and pages.
"""

import json
import random
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from benchmarks.checkouts import DECIDE
from benchmarks.http_client import Request
from benchmarks.recorded import SAID, latest_sessions
from contract.errors import UserError
from training.data.simulate.world import World

EVENTS = "/v1/events"
KINDS = ("decide", "events")
_PURPOSES = ("personalization", "analytics", "offers")
_MOST_REQUESTS = 20_000
_MOST_IN_BATCH = 20  # a page does not wait for more
_MOST_RECENT = 20
_MOST_LINES = 100
_STRANGERS = 0.2  # where no world says how many
_WORLD = Path("truth") / "world.json"  # the simulator's copy of the file it was given
# When a shop asks: the drawer that opens as something is added, the cart, the checkout.
_LOOKS = frozenset({"add_to_cart", "view_cart", "begin_checkout"})
_EVENT_ID = re.compile(rb'"event_id":"[0-9a-f-]{36}"')
_WHO = re.compile(rb'("(?:visitor_id|session_id|cart_id)":"(?:[^"\\]|\\.)*)"')
_WHEN = re.compile(rb'"occurred_at":"([^"]+)"')


@dataclass(frozen=True)
class Strangers:
    """Visits of people who agree to nothing: their share of all visits, and how many of them say so
    by Global Privacy Control."""

    share: float = _STRANGERS
    gpc: float = 0.0

    @classmethod
    def of(cls, world: World) -> "Strangers":
        """As `world` has them."""
        coming = unseen = 0.0
        for kind in world.archetypes.values():
            agrees = 1 - (1 - kind.consent.analytics) * (1 - kind.consent.personalization)
            visits = kind.share * kind.visits_per_week
            coming += visits
            unseen += visits * (1 - (1 - world.gpc_share) * agrees)
        return cls(unseen / coming, coming * world.gpc_share / unseen if unseen else 0.0)


@dataclass
class _Shopper:
    """One visit on its way: who it is and what it has come to."""

    visitor_id: str
    session_id: str
    consent: dict[str, bool]
    now: datetime
    draw: random.Random
    gpc: bool = False
    traced: bool = True  # whether its pages send behaviour
    context: dict[str, str] = field(default_factory=dict)
    currency: str | None = None
    cart: dict[str, dict[str, Any]] = field(default_factory=dict)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_RECENT))
    searched: deque[str] = field(default_factory=lambda: deque(maxlen=5))
    pending: list[dict[str, Any]] = field(default_factory=list)

    def requests(self, events: Sequence[dict[str, Any]]) -> Iterator[tuple[datetime, Request]]:
        """What the shop sends in the course of `events`, each with its time in the recording."""
        looked = False
        for event in events:
            name, at = event["event_name"], event["occurred_at"]
            self.currency = event["currency"] or self.currency
            self.context = {k: v for k, v in (event["context"] or {}).items() if v is not None}
            if name == "purchase" and not looked:
                # An import knows what was bought and not how the cart grew: half of it, so far.
                self._put(event["items"][: len(event["items"]) // 2])
                if self.cart:
                    yield at, self._decide()
            self._see(name, event)
            if name in _LOOKS or name == "purchase" or len(self.pending) == _MOST_IN_BATCH:
                yield from ((at, one) for one in self._sent())
            if name in _LOOKS and self.cart:
                looked = True
                yield at, self._decide()
        yield from ((events[-1]["occurred_at"], one) for one in self._sent())

    def _see(self, name: str, event: dict[str, Any]) -> None:
        if name == "add_to_cart":
            self._put(event["items"])
        elif name == "remove_from_cart":
            for line in event["items"]:
                self.cart.pop(line["item_id"], None)
        elif name in ("view_item", "select_item"):
            for line in event["items"]:
                if line["item_id"] in self.recent:
                    self.recent.remove(line["item_id"])
                self.recent.append(line["item_id"])
        if event.get("search_term"):
            self.searched.append(event["search_term"])
        self.pending.append(event)

    def _put(self, lines: Sequence[dict[str, Any]]) -> None:
        for line in lines:
            held = self.cart.setdefault(
                line["item_id"], {"item_id": line["item_id"], "quantity": 0}
            )
            held["quantity"] += line["quantity"] or 1
            if line["price"] is not None:
                held["price"] = line["price"]

    def _decide(self) -> Request:
        body: dict[str, Any] = {
            **self._who(),
            "cart": {
                "cart_id": self.session_id,
                "currency": self.currency or "USD",
                "items": list(self.cart.values())[:_MOST_LINES],
            },
            "placements": ["recommendations"],
        }
        if self.traced:
            body["recent_items"] = list(self.recent)
            body["search_terms"] = list(dict.fromkeys(self.searched))
        return Request(_encoded(body), DECIDE, "decide", partial(renewed, self.now))

    def _who(self) -> dict[str, Any]:
        return {
            "visitor_id": self.visitor_id,
            "session_id": self.session_id,
            "context": self.context,
            "consent": self.consent,
            "gpc": self.gpc,
        }

    def _sent(self) -> Iterator[Request]:
        """The behaviour so far as one request: its last event is just now, those before it as long
        ago as they were."""
        events, self.pending = self.pending, []
        if events and self.traced:
            last = events[-1]["occurred_at"]
            told = [self._told(one, self.now - (last - one["occurred_at"])) for one in events]
            yield Request(_encoded({"events": told}), EVENTS, "events", partial(renewed, self.now))

    def _told(self, event: dict[str, Any], at: datetime) -> dict[str, Any]:
        items = [{k: v for k, v in one.items() if v is not None} for one in event["items"] or ()]
        said = {name: event[name] for name in SAID if event[name] is not None}
        return {
            "event_id": str(UUID(int=self.draw.getrandbits(128), version=4)),
            "event_name": event["event_name"],
            "occurred_at": at.isoformat(),
            "items": items,
            **said,
            **self._who(),
        }


def renewed(made_at: datetime, body: bytes, turn: int) -> bytes:
    """The same by somebody else, in a session, with a cart and events of their own, and as much
    later than `made_at` as it is now."""
    draw, later = random.SystemRandom(), datetime.now(UTC) - made_at

    def fresh(_: re.Match[bytes]) -> bytes:
        return f'"event_id":"{UUID(int=draw.getrandbits(128), version=4)}"'.encode()

    def moved(found: re.Match[bytes]) -> bytes:
        at = datetime.fromisoformat(found.group(1).decode()) + later
        return f'"occurred_at":"{at.isoformat()}"'.encode()

    other = _WHO.sub(rb'\1~%d"' % turn, body)
    return _WHEN.sub(moved, _EVENT_ID.sub(fresh, other))


def from_shoppers(source: Path, seed: int, most: int = _MOST_REQUESTS) -> list[Request]:
    """The requests of the latest sessions in `source`, at most about `most`, in the order of time:
    of whole sessions, and of at least one. Raises UserError."""
    try:
        known = pq.read_table(source / "subjects.parquet", columns=["subject_id", "visitor_id"])
        sessions = latest_sessions(source / "events")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{source}: {' '.join(str(error).split())}") from None
    visitors = dict(
        zip(known["subject_id"].to_pylist(), known["visitor_id"].to_pylist(), strict=True)
    )
    draw, now = random.Random(seed), datetime.now(UTC)
    strangers = _strangers(source / _WORLD)
    found: list[tuple[datetime, Request]] = []
    for number, events in enumerate(sessions):
        if len(found) >= most:
            break
        first = events[0]
        consent = {name: name in first["purposes"] for name in _PURPOSES}
        visitor_id = visitors.get(first["subject_id"], f"visitor-{number}")
        shopper = _Shopper(visitor_id, first["session_id"], consent, now, draw)
        found += shopper.requests(events)
        while draw.random() < strangers.share:  # so many for each who can be seen
            found += _stranger(len(found), strangers, now, draw).requests(events)
    if not any(one.kind == "decide" for _, one in found):
        raise UserError(f"{source} holds no session with a cart")
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _stranger(number: int, some: Strangers, now: datetime, draw: random.Random) -> _Shopper:
    """Somebody who walks the same way and agrees to nothing, in one of two ways."""
    gpc = draw.random() < some.gpc
    consent = dict.fromkeys(_PURPOSES, gpc)  # GPC counts whatever was agreed to
    name = f"stranger-{number}"
    return _Shopper(name, name, consent, now, draw, gpc=gpc, traced=False)


def _strangers(path: Path) -> Strangers:
    try:
        return Strangers.of(World.model_validate(json.loads(path.read_bytes())["world"]))
    except FileNotFoundError:
        return Strangers()  # an import
    except (OSError, ValueError, KeyError, ValidationError):
        raise UserError(f"{path} is not the world of a simulation") from None


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()

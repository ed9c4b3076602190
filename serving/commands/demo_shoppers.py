"""Simulated shoppers of the demo: real baskets from the days after the release was trained, which
it never saw, each bought through the real gateway at its own time of the week, so that the
dashboard has a running test to show.

Real: who comes when, with which basket, and what the gateway answers. Made up, by the parameters
below: that half of a basket is in the cart when the suggestions are shown; that a shopper takes a
suggestion that the rest of the basket holds, and each one found there makes buying likelier, as an
offer does; whether they buy at all; device, country and consent, which is everybody's own.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from contract.clock import AsOfClock
from contract.experiments import ExperimentBook, personalised_against_generic
from serving.api.demo_options import DELIVERIES
from serving.api.demo_page import Shelf
from serving.api.demo_shop import DECIDE, SOURCE, WORDING_VERSION
from serving.api.gateway import Gateway
from serving.commands.demo_baskets import Basket
from serving.commands.shop_client import ShopClient
from serving.decision.experiment_arms import DOCUMENT
from serving.state.audit import COMMAND_LINE

EVENTS: Final = "/v1/events"
TEST: Final = personalised_against_generic().model_copy(update={"status": "running"})
CONTROL: Final = TEST.control.key
_NOTE: Final = "the demo's test, on simulated shoppers"
_THREADS = 4
_LOOK_S = 0.2  # how often its progress is told
_BUYS, _BUYS_MORE = 0.62, 0.07  # with nothing found, and for each suggestion that was found
_BUYS_FOR_OFFER = 0.06
_FINDS = 0.75  # how often a suggestion that belongs to the basket is taken
_LOOKS_ON = timedelta(minutes=3)
_DEVICES = {"mobile": 0.58, "desktop": 0.34, "tablet": 0.08}
_COUNTRIES = {"US": 0.86, "CA": 0.1, "MX": 0.04}
_REFUSES_ALL, _AGREES, _AGREES_TO_OFFERS = 0.06, 0.82, 0.6
_DELIVERIES = [one.model_dump(exclude={"label"}) for one in DELIVERIES]
_PLACEMENTS = ["recommendations", "offers"]


async def start_test(gateway: Gateway) -> None:
    """Let personalised against generic run, unless somebody wrote experiments before."""
    if gateway.control.document(DOCUMENT) is None:
        body = ExperimentBook().saved(TEST, gateway.clock.now()).model_dump_json(exclude_none=True)
        await gateway.control.put_document(DOCUMENT, body, 0, COMMAND_LINE, _NOTE)
        gateway.experiments.follow()


class Shoppers:
    """Sends visits to the gateway, whose clock goes along with them; it stands while one pays."""

    def __init__(self, client: ShopClient, shelf: Shelf, clock: AsOfClock, seed: int = 7) -> None:
        self._client = client
        self._shelf = shelf
        self._clock = clock
        self._seed = seed
        self._clock_stands = threading.Lock()
        self._said: set[str] = set()
        self.redeemed = 0

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
            with self._clock_stands:
                self._clock.move_to(basket.at)
            self.visit(basket)
            came += 1
        return came

    def visit(self, basket: Basket) -> None:
        """One checkout, and what comes of it."""
        draw = random.Random(f"{self._seed}:{basket.session_id}")
        who = self._who(basket, draw)
        lines = self._lines(basket.cart)
        if not lines:
            return
        asked = {
            **who,
            "cart": self._cart(basket, lines),
            "shipping_options": _DELIVERIES,
            "placements": _PLACEMENTS,
            "deadline_ms": 1_000,
        }
        decided = self._client.post(DECIDE, asked)
        shown = [one["item_id"] for one in decided["recommendations"]]
        taken = [one for one in shown if one in basket.rest and draw.random() < _FINDS]
        now = self._clock.now().isoformat()
        events = [
            _event("add_to_cart", who, now, draw, items=lines),
            _event("begin_checkout", who, now, draw, items=lines),
        ]
        offered = bool(decided["offers"])
        if draw.random() < _BUYS + _BUYS_MORE * len(taken) + _BUYS_FOR_OFFER * offered:
            bought = self._cart(basket, [*lines, *self._lines(taken)])
            if offered:
                self._redeem(asked | {"cart": bought, "placements": ["offers"]})
            said = {"items": bought["items"], "currency": bought["currency"]}
            events.append(
                _event("purchase", who, now, draw, transaction_id=basket.session_id, **said)
            )
        self._client.post(EVENTS, {"events": events})

    def _redeem(self, asked: dict[str, Any]) -> None:
        """Pay for a cart with what is offered for it as it is now; without, where that is over."""
        with self._clock_stands:
            offers = self._client.post(DECIDE, asked)["offers"]
            if not offers:
                return
            try:
                held = [self._reserve(one, asked["visitor_id"]) for one in offers]
                paid = _paid(asked["cart"], offers) | {"combined_with": held[1:]}
                self._client.post(f"/v1/reservations/{held[0]}/redeem", paid)
            except ConnectionError:
                return  # used up by somebody else meanwhile; what is held lapses by itself
            self.redeemed += 1

    def _reserve(self, offer: dict[str, Any], visitor_id: str) -> str:
        asked = {"offer_token": offer["offer_token"], "visitor_id": visitor_id}
        path = f"/v1/offers/{offer['offer_id']}/reservations"
        return str(self._client.post(path, asked)["reservation_id"])

    def _who(self, basket: Basket, draw: random.Random) -> dict[str, Any]:
        consent = consent_of(basket.visitor_id, self._seed)
        if consent["offers"] and basket.visitor_id not in self._said:
            self._said.add(basket.visitor_id)
            self._agree(basket.visitor_id, consent)
        return {
            "visitor_id": basket.visitor_id,
            "session_id": basket.session_id,
            "context": {"device": _drawn(_DEVICES, draw), "country": _drawn(_COUNTRIES, draw)},
            "consent": consent,
        }

    def _agree(self, visitor_id: str, consent: dict[str, bool]) -> None:
        """More than the import knows of was agreed to, so it has to be said."""
        found = self._client.post("/v1/subjects/resolve", {"visitor_id": visitor_id})
        word = {"purposes": consent, "source": SOURCE, "wording_version": WORDING_VERSION}
        self._client.send("PUT", f"/v1/consent/{found['subject_id']}", word)

    def _cart(self, basket: Basket, lines: list[dict[str, Any]]) -> dict[str, Any]:
        return {"cart_id": basket.session_id, "currency": self._shelf.currency, "items": lines}

    def _lines(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        found = [self._shelf.item(one) for one in item_ids]
        return [
            {"item_id": one.item_id, "quantity": 1, "price": one.price}
            for one in found
            if one is not None and one.price is not None
        ]


def consent_of(visitor_id: str, seed: int) -> dict[str, bool]:
    """What somebody agrees to, at every visit the same."""
    draw = random.Random(f"{seed}:{visitor_id}")
    refuses, agrees = draw.random() < _REFUSES_ALL, draw.random() < _AGREES
    agrees = agrees and not refuses
    return {
        "personalization": agrees,
        "analytics": not refuses,
        "offers": agrees and draw.random() < _AGREES_TO_OFFERS,
    }


def _paid(cart: dict[str, Any], offers: list[dict[str, Any]]) -> dict[str, Any]:
    """The final order, delivered by the first way: goods and delivery less what offers take off."""
    delivery = DELIVERIES[0]
    goods = sum(line["price"] for line in cart["items"])
    reductions = [one["discount"] for one in offers]
    off = sum(one["amount"] for one in reductions if one["kind"] != "free_shipping")
    free = any(one["kind"] == "free_shipping" for one in reductions)
    return {
        "transaction_id": cart["cart_id"],
        "cart": cart,
        "total": goods - min(off, goods) + (0 if free else delivery.price),
        "shipping": {"id": delivery.id, "price": delivery.price},
    }


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


def _event(
    name: str, who: dict[str, Any], at: str, draw: random.Random, **said: Any
) -> dict[str, Any]:
    event_id = str(UUID(int=draw.getrandbits(128), version=4))
    return {"event_id": event_id, "event_name": name, "occurred_at": at, **who, **said}


def _drawn(shares: dict[str, float], draw: random.Random) -> str:
    return draw.choices(list(shares), list(shares.values()))[0]

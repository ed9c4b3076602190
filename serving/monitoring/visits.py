"""What is remembered of one subject to count visits and orders, and what of it counts where.

The sums are linear: those of everybody's facts, each counted by `counted`. So a subject whose facts
change is counted anew, and the difference is added. That makes late, repeated and refunded orders
come out as they would have in order: the facts themselves do not depend on the order of events, and
nothing else is asked.

A decision counts once, when it is first seen, by `decided`: nothing that comes later changes it.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from contract.clock import DAY_US
from contract.events import NO_AMOUNT, Event, given_back, order_amount
from serving.monitoring.decisions import RUNGS
from serving.monitoring.kpi_metrics import CLASSES, EDGES_MS, PLACE, SLOW_MS

Where = tuple[tuple[str, str], ...]  # slices: a cut and the value of it
What = tuple[tuple[int, float], ...]  # a counter's place in COUNTERS, and how much
# How often: by the beginning of its 5 minutes, the slices that it counts in, and what it is. What
# did not change cancels as a whole, and what many did alike is added to the sums once.
Counts = dict[tuple[int, Where, What], int]

BUCKET_US: Final = 300_000_000
COUNTS_US: Final = DAY_US  # an order counts for a decision of its session, or within a day of it
VISIT_US: Final = 3 * DAY_US  # how long a visit is remembered that came to nothing
ORDER_US: Final = 35 * DAY_US  # and an order, which may be given back
MOST_VISITS: Final = 200  # of one subject; nobody real has more
_CARTED = frozenset(
    {
        *("add_to_cart", "view_cart", "begin_checkout", "add_shipping_info"),
        *("add_payment_info", "purchase", "decision"),
    }
)
_REFUSALS: Final = frozenset({"not_for_me", "hidden"})
_NEVER: Final = 2**62


class Visit(msgspec.Struct, array_like=True):
    """A session. Device and country are those of its first event that says them; `slices` those of
    its last decision."""

    start_us: int
    last_us: int
    device: str | None = None
    country: str | None = None
    context_us: int = _NEVER
    carted: bool = False
    first_decision_us: int = _NEVER
    last_decision_us: int = -1
    slices: list[tuple[str, str]] = []
    shown: list[str] = []
    refused: list[str] = []  # said not to be for them, or hidden


class Order(msgspec.Struct, array_like=True):
    """A transaction as it was told first; `revenue` is None where nobody said what it is worth."""

    at_us: int
    event_id: str
    session: str
    revenue: int | None
    margin: int | None
    pieces: int
    items: list[str]
    device: str | None
    country: str | None


class SubjectFacts(msgspec.Struct, array_like=True):
    """Of one subject, all by their ids; kept as JSON, in the order of its fields. `seen`:
    decisions that were counted, and when; `refunds`: of which transaction, and how much of it
    (None: all); `offers`: what redeemed offers took off a transaction."""

    visits: dict[str, Visit] = {}
    orders: dict[str, Order] = {}
    refunds: dict[str, tuple[str, int | None]] = {}
    seen: dict[str, int] = {}
    offers: dict[str, int] = {}

    @property
    def latest_us(self) -> int:
        """When the latest of it happened."""
        times = [one.last_us for one in self.visits.values()]
        times += [one.at_us for one in self.orders.values()]
        return max((*times, *self.seen.values()), default=0)

    def note(self, event: Event, at_us: int, costs: Mapping[str, int]) -> None:
        """Remember what `event` says. Nothing depends on what was noted before it."""
        name = event.event_name
        if name == "refund":
            self.refunds[_short(event)] = (event.transaction_id or "", given_back(event))
            return
        visit = self.visits.get(event.session_id)
        if visit is None:
            visit = self.visits[event.session_id] = Visit(at_us, at_us)
        elif at_us > visit.last_us:
            visit.last_us = at_us
        elif at_us < visit.start_us:
            visit.start_us = at_us
        context = event.context
        if (
            context is not None
            and at_us < visit.context_us
            and (context.device is not None or context.country is not None)
        ):
            visit.context_us, visit.device, visit.country = at_us, context.device, context.country
        if name in _CARTED:
            visit.carted = True
        if name == "purchase":
            self._ordered(event, at_us, costs)
        elif name == "decision" and event.decision is not None:
            visit.first_decision_us = min(visit.first_decision_us, at_us)
            if at_us >= visit.last_decision_us:
                visit.last_decision_us, visit.slices = at_us, slices_of(event.decision)
            visit.shown = sorted({*visit.shown, *(one.item_id for one in event.items)})
        elif event.feedback in _REFUSALS:
            visit.refused = sorted({*visit.refused, *(one.item_id for one in event.items)})

    def _ordered(self, event: Event, at_us: int, costs: Mapping[str, int]) -> None:
        said = self.orders.get(event.transaction_id or "")
        if said is not None and (said.at_us, said.event_id) <= (at_us, _short(event)):
            return
        amount = order_amount(event)
        revenue = None if amount == NO_AMOUNT else amount
        margin = None
        if revenue is not None and all(one.item_id in costs for one in event.items):
            margin = revenue - sum(costs[one.item_id] * one.quantity for one in event.items)
        context = event.context
        self.orders[event.transaction_id or ""] = Order(
            at_us=at_us,
            event_id=_short(event),
            session=event.session_id,
            revenue=revenue,
            margin=margin,
            pieces=sum(one.quantity for one in event.items),
            items=sorted({one.item_id for one in event.items}),
            device=None if context is None else context.device,
            country=None if context is None else context.country,
        )

    def decided_before(self, order: Order) -> tuple[str, Visit] | None:
        """The visit whose decision an order counts for: that of its session, else the latest that
        had one within a day of it."""
        own = self.visits.get(order.session)
        if own is not None and own.first_decision_us <= order.at_us:
            return order.session, own
        within = [
            (one.last_decision_us, session)
            for session, one in self.visits.items()
            if one.first_decision_us <= order.at_us < one.last_decision_us + COUNTS_US
        ]
        if not within:
            return None
        session = max(within)[1]
        return session, self.visits[session]

    def counted(self) -> Counts:
        """Where all of it counts."""
        counts: Counts = {}
        back: dict[str, int | None] = {}
        for transaction, amount in self.refunds.values():
            so_far = back.get(transaction, 0)
            back[transaction] = None if so_far is None or amount is None else so_far + amount
        bought: dict[str, set[str]] = {}
        for transaction, order in self.orders.items():
            given = back.get(transaction, 0)
            if given is None or (order.revenue is not None and 0 < order.revenue <= given):
                continue  # what was given back whole is no order
            found = self.decided_before(order)
            for session in {order.session, *(() if found is None else (found[0],))}:
                bought.setdefault(session, set()).update(order.items)
            self._count_order(counts, order, given, self.offers.get(transaction, 0), found)
        for session, visit in self.visits.items():
            items = bought.get(session)
            taken = 0 if items is None else len(items.intersection(visit.shown))
            refused = len(set(visit.shown).intersection(visit.refused)) if visit.refused else 0
            what = _visited(items is not None, visit.carted, len(visit.shown), taken, refused)
            _count(counts, visit.start_us, _where(visit, None), what)
        return counts

    def _count_order(
        self,
        counts: Counts,
        order: Order,
        back: int,
        offer_cost: int,
        found: tuple[str, Visit] | None,
    ) -> None:
        net = 0 if order.revenue is None else order.revenue - back
        what = {
            "orders": 1.0,
            "valued": float(order.revenue is not None),
            "revenue": float(net),
            "revenue_squares": float(net) ** 2,
            "items_sold": float(order.pieces),
            "refunded_orders": float(back > 0),
            "refunded": float(back),
            "offer_cost": float(offer_cost),
            "discounted": float(offer_cost > 0),
        }
        margin = 0.0
        if order.margin is not None:
            margin = order.margin * (net / order.revenue if order.revenue else 1.0)
            what |= {"margin": margin, "with_cost": 1.0, "cost_revenue": float(net)}
        if found is not None:
            what |= {"decided_orders": 1.0, "decided_revenue": float(net), "decided_margin": margin}
        visit = self.visits.get(order.session) if found is None else found[1]
        _count(counts, order.at_us, _where(visit, order), _amounts(what))

    def prune(self, now_us: int) -> None:
        """Let go of what nothing can change any more; it stays counted."""
        late = [name for name, one in self.orders.items() if one.at_us < now_us - ORDER_US]
        for transaction in late:
            del self.orders[transaction]
            self.offers.pop(transaction, None)
        if late:
            self.refunds = {
                name: (transaction, amount)
                for name, (transaction, amount) in self.refunds.items()
                if transaction not in late
            }
        old = now_us - VISIT_US
        if any(at < old for at in self.seen.values()):
            self.seen = {one: at for one, at in self.seen.items() if at >= old}
        if any(one.last_us < old for one in self.visits.values()):
            self._prune_visits(old)
        if len(self.visits) > MOST_VISITS:
            order = sorted(self.visits, key=lambda name: self.visits[name].start_us)
            for name in order[: len(order) - MOST_VISITS]:
                del self.visits[name]

    def _prune_visits(self, old_us: int) -> None:
        needed = {one.session for one in self.orders.values()}
        needed |= {found[0] for one in self.orders.values() if (found := self.decided_before(one))}
        self.visits = {
            name: one
            for name, one in self.visits.items()
            if name in needed or one.last_us >= old_us
        }

    def as_json(self) -> bytes:
        """For `read_facts`."""
        return _ENCODER.encode(self)


_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(SubjectFacts)


def read_facts(text: str | bytes) -> SubjectFacts:
    """What `as_json` wrote."""
    return _DECODER.decode(text)


def slices_of(decision: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The cuts that a decision knows of, with their values."""
    found = [("release", str(decision["release_id"]))] if decision.get("release_id") else []
    arms = decision.get("experiments")
    if isinstance(arms, list):
        found += [("experiment", f"{one['key']}:{one['variant']}") for one in arms]
    segments = decision.get("segments")
    if isinstance(segments, list):
        found += [("segment", str(one)) for one in segments]
    return found


def decided(event: Event, at_us: int, decision: Mapping[str, Any]) -> Counts:
    """Where one decision, of that moment, counts."""
    rung, spent = decision.get("rung"), decision.get("total_ms")
    offers = decision.get("offers")
    what = decision_counters(
        rung=rung if isinstance(rung, str) else None,
        spent_ms=float(spent) if isinstance(spent, int | float) else None,
        purposes=decision.get("agreed", event.purposes),
        degraded=bool(decision.get("degraded")),
        offered=isinstance(offers, dict) and any(one.get("shown") for one in offers["arms"]),
    )
    context = event.context
    on: list[tuple[str, str]] = []
    if context is not None:
        on = [*_context(context.device, context.country)]
        on += [] if context.region is None else [("region", context.region)]
    where = (("all", ""), *slices_of(decision), *on)
    counts: Counts = {}
    _count(counts, at_us, where, _amounts(what))
    return counts


def decision_counters(
    *,
    rung: str | None,
    spent_ms: float | None,
    purposes: Iterable[str],
    degraded: bool,
    offered: bool,
) -> dict[str, float]:
    """The counters of one decision, those that are not 0."""
    agreed = frozenset(purposes)
    what = {"decisions": 1.0}
    named = (("personalization", "personal"), ("analytics", "counted"), ("offers", "offers_agreed"))
    what |= {counter: 1.0 for purpose, counter in named if purpose in agreed}
    if rung in RUNGS:
        what[f"rung_{rung}"] = 1.0
    if degraded:
        what["degraded"] = 1.0
    if offered:
        what["offered"] = 1.0
    if spent_ms is not None:
        place = next(n for n, edge in enumerate(EDGES_MS) if spent_ms <= edge)
        what |= {"timed": 1.0, "time_us": spent_ms * 1_000, CLASSES[place]: 1.0}
        if spent_ms > SLOW_MS:
            what["slow"] = 1.0
    return what


def merge(into: Counts, counts: Counts, times: int) -> None:
    """Add `counts` to others so many times; -1 takes them away."""
    for key, often in counts.items():
        into[key] = into.get(key, 0) + times * often


def _count(counts: Counts, at_us: int, where: Where, what: What) -> None:
    key = (at_us // BUCKET_US * BUCKET_US, where, what)
    counts[key] = counts.get(key, 0) + 1


def _amounts(what: Mapping[str, float]) -> What:
    """Counters by name as `What`."""
    return tuple([(PLACE[name], amount) for name, amount in what.items() if amount])


@lru_cache(maxsize=1_024)
def _visited(bought: bool, carted: bool, shown: int, taken: int, refused: int) -> What:
    return _amounts(
        {
            "visits": 1.0,
            "converted": float(bought),
            "carts": float(carted),
            "abandoned": float(carted and not bought),
            "shown": float(shown),
            "taken": float(taken),
            "refused": float(refused),
        }
    )


def _where(visit: Visit | None, order: Order | None) -> Where:
    device = country = None
    slices: list[tuple[str, str]] = []
    if visit is not None:
        slices, device, country = visit.slices, visit.device, visit.country
    if order is not None:
        device, country = device or order.device, country or order.country
    return (("all", ""), *slices, *_context(device, country))


def _context(device: str | None, country: str | None) -> Where:
    if device is None:
        return () if country is None else (("country", country),)
    return (("device", device),) if country is None else (("device", device), ("country", country))


def _short(event: Event) -> str:
    """Enough of an event's id to tell it from the others of one subject."""
    return event.event_id.hex[:16]

"""What is remembered of one subject to count visits and orders, and what of it counts where.

The sums are linear: those of everybody's facts, each counted by `counted`. So a subject whose facts
change is counted anew, and the difference is added. That makes late, repeated and refunded orders
come out as they would have in order: the facts themselves do not depend on the order of events, and
nothing else is asked.

A decision counts once, when it is first seen, by `decided`: nothing that comes later changes it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from contract.clock import DAY_US, to_us
from contract.events import NO_AMOUNT, Event, order_amount
from serving.monitoring.decisions import RUNGS
from serving.monitoring.kpi_metrics import CLASSES, COUNTERS, EDGES_MS, PLACE, SLOW_MS

Place = tuple[int, str, str]  # the beginning of its 5 minutes, the cut and the value
Counts = dict[Place, list[float]]

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
_NEVER: Final = 2**62


@dataclass(slots=True)
class Visit:
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
    slices: list[tuple[str, str]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Order:
    """A transaction as it was told first."""

    at_us: int
    event_id: str
    session: str
    revenue: int
    margin: int | None
    pieces: int
    items: list[str]
    device: str | None
    country: str | None


@dataclass(slots=True)
class SubjectFacts:
    """Of one subject, all by their ids. `seen`: decisions that were counted, and when; `offers`:
    what redeemed offers took off a transaction."""

    visits: dict[str, Visit] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    refunds: dict[str, tuple[str, int]] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    offers: dict[str, int] = field(default_factory=dict)

    @property
    def latest_us(self) -> int:
        """When the latest of it happened."""
        times = [one.last_us for one in self.visits.values()]
        times += [one.at_us for one in self.orders.values()]
        return max((*times, *self.seen.values()), default=0)

    def note(self, event: Event, costs: Mapping[str, int]) -> None:
        """Remember what `event` says. Nothing depends on what was noted before it."""
        at_us, name = to_us(event.occurred_at), event.event_name
        if name == "refund":
            amount = max(order_amount(event), 0)
            self.refunds[_short(event)] = (event.transaction_id or "", amount)
            return
        visit = self.visits.get(event.session_id)
        if visit is None:
            visit = self.visits[event.session_id] = Visit(at_us, at_us)
        visit.start_us, visit.last_us = min(visit.start_us, at_us), max(visit.last_us, at_us)
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

    def _ordered(self, event: Event, at_us: int, costs: Mapping[str, int]) -> None:
        said = self.orders.get(event.transaction_id or "")
        if said is not None and (said.at_us, said.event_id) <= (at_us, _short(event)):
            return
        revenue = order_amount(event)
        revenue = 0 if revenue == NO_AMOUNT else revenue
        margin = None
        if all(one.item_id in costs for one in event.items):
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
        back: dict[str, int] = {}
        for transaction, amount in self.refunds.values():
            back[transaction] = back.get(transaction, 0) + amount
        bought: dict[str, set[str]] = {}
        for transaction, order in self.orders.items():
            given = back.get(transaction)
            if given is not None and given >= order.revenue:
                continue  # what was given back whole is no order
            found = self.decided_before(order)
            for session in {order.session, *(() if found is None else (found[0],))}:
                bought.setdefault(session, set()).update(order.items)
            self._count_order(counts, order, given or 0, self.offers.get(transaction, 0), found)
        for session, visit in self.visits.items():
            items = bought.get(session)
            taken = 0 if items is None else len(items.intersection(visit.shown))
            what = {
                "visits": 1.0,
                "converted": float(items is not None),
                "carts": float(visit.carted),
                "abandoned": float(visit.carted and items is None),
                "shown": float(len(visit.shown)),
                "taken": float(taken),
            }
            add(counts, visit.start_us, _where(visit, None), what)
        return counts

    def _count_order(
        self,
        counts: Counts,
        order: Order,
        given_back: int,
        offer_cost: int,
        found: tuple[str, Visit] | None,
    ) -> None:
        net = order.revenue - given_back
        what = {
            "orders": 1.0,
            "revenue": float(net),
            "revenue_squares": float(net) ** 2,
            "items_sold": float(order.pieces),
            "refunded_orders": float(given_back > 0),
            "refunded": float(given_back),
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
        add(counts, order.at_us, _where(visit, order), what)

    def prune(self, now_us: int) -> None:
        """Let go of what nothing can change any more; it stays counted."""
        late = [name for name, one in self.orders.items() if one.at_us < now_us - ORDER_US]
        for transaction in late:
            del self.orders[transaction]
            self.offers.pop(transaction, None)
        self.seen = {one: at for one, at in self.seen.items() if at >= now_us - VISIT_US}
        self.refunds = {
            name: (transaction, amount)
            for name, (transaction, amount) in self.refunds.items()
            if transaction not in late
        }
        needed = {one.session for one in self.orders.values()}
        needed |= {found[0] for one in self.orders.values() if (found := self.decided_before(one))}
        self.visits = {
            name: one
            for name, one in self.visits.items()
            if name in needed or one.last_us >= now_us - VISIT_US
        }
        if len(self.visits) > MOST_VISITS:
            order = sorted(self.visits, key=lambda name: self.visits[name].start_us)
            for name in order[: len(order) - MOST_VISITS]:
                del self.visits[name]

    def as_json(self) -> str:
        """For `read_facts`."""
        held = [
            {
                name: [
                    *(v.start_us, v.last_us, v.device, v.country, v.context_us, v.carted),
                    *(v.first_decision_us, v.last_decision_us, v.slices, v.shown),
                ]
                for name, v in self.visits.items()
            },
            {
                name: [
                    *(o.at_us, o.event_id, o.session, o.revenue, o.margin, o.pieces),
                    *(o.items, o.device, o.country),
                ]
                for name, o in self.orders.items()
            },
            self.refunds,
            self.seen,
            self.offers,
        ]
        return json.dumps(held, separators=(",", ":"))


def read_facts(text: str) -> SubjectFacts:
    """What `as_json` wrote."""
    visits, orders, refunds, seen, offers = json.loads(text)
    return SubjectFacts(
        visits={name: _visit(row) for name, row in visits.items()},
        orders={name: Order(*row) for name, row in orders.items()},
        refunds={name: (transaction, amount) for name, (transaction, amount) in refunds.items()},
        seen=seen,
        offers=offers,
    )


def _visit(row: list[Any]) -> Visit:
    visit = Visit(*row)
    visit.slices = [(cut, value) for cut, value in visit.slices]
    return visit


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


def decided(event: Event, decision: Mapping[str, Any]) -> Counts:
    """Where one decision counts."""
    rung, spent = decision.get("rung"), decision.get("total_ms")
    offers = decision.get("offers")
    what = decision_counters(
        rung=rung if isinstance(rung, str) else None,
        spent_ms=float(spent) if isinstance(spent, int | float) else None,
        purposes=decision.get("agreed", event.purposes),
        degraded=bool(decision.get("degraded")),
        offered=isinstance(offers, dict) and any(one.get("shown") for one in offers["arms"]),
    )
    counts: Counts = {}
    where = slices_of(decision)
    context = event.context
    if context is not None:
        where += _context(context.device, context.country)
    add(counts, to_us(event.occurred_at), [("all", ""), *where], what)
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


def add(
    counts: Counts, at_us: int, where: Iterable[tuple[str, str]], what: Mapping[str, float]
) -> None:
    """Count `what` at that moment in all of these slices."""
    start = at_us // BUCKET_US * BUCKET_US
    named = [(PLACE[name], value) for name, value in what.items() if value]
    for cut, value in where:
        row = counts.get((start, cut, value))
        if row is None:
            row = counts[start, cut, value] = [0.0] * len(COUNTERS)
        for place, amount in named:
            row[place] += amount


def _where(visit: Visit | None, order: Order | None) -> list[tuple[str, str]]:
    found = [("all", "")]
    device = country = None
    if visit is not None:
        found += visit.slices
        device, country = visit.device, visit.country
    if order is not None:
        device, country = device or order.device, country or order.country
    return found + _context(device, country)


def _context(device: str | None, country: str | None) -> list[tuple[str, str]]:
    named = (("device", device), ("country", country))
    return [(cut, value) for cut, value in named if value is not None]


def _short(event: Event) -> str:
    """Enough of an event's id to tell it from the others of one subject."""
    return event.event_id.hex[:16]

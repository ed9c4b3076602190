"""Checkouts of a gateway's own log (`tillwise-serve export`): one row for each session, in the
columns that a simulated log has, so that what learns from one learns from the other.

What was offered is of the first decision of a session: later ones may be looks at what the first
one had moved. Left out of it is what a rule gave (it was no chance), what was not shown for want of
a record, decisions in which not every arm had a chance, and those so late that nobody can know what
came of them. A purchase counts when something of the decision's cart is bought in the same session
or within 24 hours of it, and was not given back. Options are of the last decision before the
choice. Only what was written under `personalization` is here: an export holds no other decision.
"""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from contract.clock import DAY_US, to_us
from contract.errors import UserError
from contract.frames import holds
from contract.offer_arms import NO_OFFER_ARM, Arm, OfferArms
from contract.offers import Discount
from training.data.returns import WHOLE, returned
from training.data.storage import CHECKOUTS_SCHEMA, read_events

LABEL_WINDOW_US: Final = DAY_US
_COLUMNS = (
    *("event_name", "occurred_at", "subject_id", "session_id", "purposes", "items", "context"),
    *("payment_type", "shipping_tier", "transaction_id", "value", "feedback", "decision"),
)
# An arm that so few of the decisions might have shown is none that anything is learned of.
_FEWEST_SHARE = 0.05
_DISCOUNT: TypeAdapter[Discount] = TypeAdapter(Discount)

# An offer with what it took off: the same offer with another discount is another arm.
ArmKey = tuple[str, str]
Row = dict[str, Any]


@dataclass
class _Session:
    """What one shopper did in one session, in the order of time."""

    decisions: list[Row] = field(default_factory=list)
    choices: list[Row] = field(default_factory=list)  # events that say how it is paid or sent


@dataclass(frozen=True)
class _Bought:
    """A purchase, of items that were kept."""

    at_us: int
    session_id: str
    items: frozenset[str]


@dataclass(frozen=True)
class LoggedCheckouts:
    """`table` of CHECKOUTS_SCHEMA, in the order of time, and the `arms` that its offers are."""

    table: pa.Table
    arms: OfferArms | None  # None: no offer was decided by chance


def has_decisions(folder: Path) -> bool:
    """Whether the events of `folder` say what decisions were made of."""
    events = read_events(folder, ["decision"])
    return bool(events["decision"].null_count < len(events))


def read_offers_shown(folder: Path) -> list[Row]:
    """Of each session that agreed to `offers`, by its first decision: `subject_id`, `decided_at`,
    `context`, and whether any offer was `offered`: by chance, surely, or by a rule, which is all
    one to whoever is shown none."""
    events = _agreed(folder)
    events = events.filter(pa.array(holds(events["purposes"], "offers")))
    first = (one.decisions[0] for one in _gathered(events)[0].values())
    return [
        {
            "subject_id": row["subject_id"],
            "decided_at": row["occurred_at"],
            "context": row["context"],
            "offered": any(arm["shown"] for arm in row["decision"]["offers"]["arms"]),
        }
        for row in first
        if row["decision"].get("offers")
    ]


def read_logged_checkouts(folder: Path) -> LoggedCheckouts:
    """From the export in `folder`. UserError where it has no decisions."""
    events = _agreed(folder)
    sessions, bought = _gathered(events)
    if not sessions:
        raise UserError(f"{folder}: no decision of a gateway is in its events; export them first")
    until_us = to_us(events["occurred_at"][-1].as_py()) - LABEL_WINDOW_US
    drawn = {key: _drawn(one.decisions[0], until_us) for key, one in sessions.items()}
    arms = _arms([one for one in drawn.values() if one])
    rows = [
        _row(key, one, _offered(drawn[key], arms), bought.get(key[0], ()))
        for key, one in sessions.items()
    ]
    rows.sort(key=lambda row: row["decided_at"])
    return LoggedCheckouts(
        pa.Table.from_pylist(rows, CHECKOUTS_SCHEMA),
        OfferArms(
            arms=tuple(Arm(name=name, discount=_DISCOUNT.validate_json(off)) for name, off in arms)
        )
        if arms
        else None,
    )


def _agreed(folder: Path) -> pa.Table:
    """Events under `personalization`, in the order of time."""
    events = read_events(folder, _COLUMNS)
    events = events.filter(pa.array(holds(events["purposes"], "personalization")))
    return events.sort_by([("occurred_at", "ascending")])


def _gathered(
    events: pa.Table,
) -> tuple[dict[tuple[str, str], _Session], dict[str, list[_Bought]]]:
    """Sessions with a decision by subject and session, and purchases by subject."""
    sessions: dict[tuple[str, str], _Session] = {}
    gone: dict[str, set[str]] = defaultdict(set)
    for order, item_id in returned(events):
        gone[order].add(item_id)
    purchases: list[Row] = []
    wanted = ("decision", "add_payment_info", "add_shipping_info", "purchase")
    kept = events.filter(pc.is_in(events["event_name"], value_set=pa.array(wanted)))
    for row in kept.to_pylist():
        key, name = (row["subject_id"], row["session_id"]), row["event_name"]
        if name == "decision":
            if row["decision"] is not None:
                made = row | {"decision": json.loads(row["decision"])}
                sessions.setdefault(key, _Session()).decisions.append(made)
            continue
        if name == "purchase":
            purchases.append(row)
        if key in sessions:
            sessions[key].choices.append(row)
    bought: dict[str, list[_Bought]] = defaultdict(list)
    for row in purchases:
        back = gone.get(row["transaction_id"], set())
        items = frozenset(one["item_id"] for one in row["items"]) - back
        if items and WHOLE not in back:
            at_us = to_us(row["occurred_at"])
            bought[row["subject_id"]].append(_Bought(at_us, row["session_id"], items))
    return sessions, bought


def _drawn(event: Row, until_us: int) -> Row | None:
    """What the decision says of its offers, where it was by chance, and long enough ago."""
    said: Row | None = event["decision"].get("offers")
    if said is None or said.get("rules") or said.get("withdrawn"):
        return None
    value, margin = said.get("value"), said.get("margin")
    if to_us(event["occurred_at"]) > until_us or not value or margin is None:
        return None
    shown = [arm for arm in said["arms"] if arm["shown"]]
    chances = [arm["propensity"] for arm in said["arms"]]
    # Offers that go together are shown together: they are no arms of one choice.
    one_choice = abs(sum(chances) + said["no_offer_propensity"] - 1.0) < 1e-6
    if len(shown) > 1 or not one_choice or not said["no_offer_propensity"] > 0:
        return None
    return said if any(chances) else None


def _chances(said: Row) -> dict[ArmKey, float]:
    return {_key(arm): arm["propensity"] for arm in said["arms"] if arm["propensity"] > 0}


def _key(arm: Row) -> ArmKey:
    return arm["offer_id"], json.dumps(arm.get("discount"), sort_keys=True)


def _arms(drawn: Sequence[Row]) -> tuple[ArmKey, ...]:
    """The arms that most can be learned of: all of them had a chance in every decision that counts,
    so each one more is a trade for decisions."""
    possible = [set(_chances(said)) for said in drawn]
    counted = Counter(key for one in possible for key in one if key[1] != "null")
    best: tuple[int, tuple[ArmKey, ...]] = (0, ())
    chosen: list[ArmKey] = []
    for key, count in sorted(counted.items(), key=lambda found: (-found[1], found[0])):
        if count < _FEWEST_SHARE * len(drawn) or key[0] in {name for name, _ in chosen}:
            continue
        chosen.append(key)
        rows = sum(one.issuperset(chosen) for one in possible)
        if rows * len(chosen) > best[0]:
            best = (rows * len(chosen), tuple(sorted(chosen)))  # alike in every export
    return best[1]


def _offered(said: Row | None, arms: Sequence[ArmKey]) -> Row:
    """The columns of what was offered by chance among `arms`; empty where it was none of them."""
    nothing: Row = {"arms": None, "propensities": None, "reductions": None, "arm": None}
    if said is None or not arms:
        return nothing
    chances = _chances(said)
    shown = next((_key(arm) for arm in said["arms"] if arm["shown"]), None)
    if not chances.keys() >= set(arms) or (shown is not None and shown not in arms):
        return nothing
    amount = {_key(arm): arm["amount"] for arm in said["arms"]}
    likely = [said["no_offer_propensity"], *(chances[key] for key in arms)]
    return {
        "arms": [NO_OFFER_ARM, *(name for name, _ in arms)],
        # Given that none of the others was shown.
        "propensities": [one / sum(likely) for one in likely],
        "reductions": [0, *(amount[key] for key in arms)],
        "arm": NO_OFFER_ARM if shown is None else shown[0],
    }


def _row(key: tuple[str, str], session: _Session, offered: Row, bought: Sequence[_Bought]) -> Row:
    first = session.decisions[0]
    said, at_us = first["decision"], to_us(first["occurred_at"])
    lines = _lines(said)
    prices = [one["price"] for one in lines]
    value = None if None in prices else sum(one["price"] * one["quantity"] for one in lines)
    return (
        {
            "subject_id": key[0],
            "session_id": key[1],
            "decided_at": first["occurred_at"],
            "context": first["context"],
            "items": lines,
            "value": value,
            "margin": (said.get("offers") or {}).get("margin"),
            "purchased": _counts(at_us, key[1], {one["item_id"] for one in lines}, bought),
        }
        | offered
        | _options(session)
    )


def _lines(said: Row) -> list[Row]:
    """The cart; decisions of earlier versions say no prices."""
    item_ids = said["cart"]
    unknown = [None] * len(item_ids)
    return [
        {"item_id": item_id, "quantity": quantity or 1, "price": price}
        for item_id, quantity, price in zip(
            item_ids,
            said.get("cart_quantities", unknown),
            said.get("cart_prices", unknown),
            strict=True,
        )
    ]


def _counts(at_us: int, session_id: str, cart: set[str], bought: Sequence[_Bought]) -> bool:
    """Whether something of the cart was bought in its session or within the label window."""
    start = bisect_left(bought, at_us, key=lambda one: one.at_us)
    return any(
        one.items & cart
        for one in bought[start:]
        if one.session_id == session_id or one.at_us < at_us + LABEL_WINDOW_US
    )


def _options(session: _Session) -> Row:
    """What could be chosen at the last decision before each choice, and what was."""
    payment, payments = _last(session, "payment_type", "payment_methods")
    delivery, deliveries = _last(session, "shipping_tier", "shipping_options")
    unknown = [None] * len(deliveries.get("order", ()))
    return {
        "payment_methods": payments.get("order"),
        "payment_type": payment,
        "shipping_options": [
            {"id": name, "price": price, "days": days}
            for name, price, days in zip(
                deliveries.get("order", ()),
                deliveries.get("prices", unknown),
                deliveries.get("days", unknown),
                strict=True,
            )
        ],
        "shipping_tier": delivery,
    }


def _last(session: _Session, chosen: str, options: str) -> tuple[str | None, Mapping[str, Any]]:
    """The last word of the shopper, and the options of the decision before it."""
    said: Iterable[Row] = (one for one in reversed(session.choices) if one[chosen])
    choice = next(iter(said), None)
    until = None if choice is None else choice["occurred_at"]
    before = (
        one["decision"].get(options)
        for one in reversed(session.decisions)
        if until is None or one["occurred_at"] <= until
    )
    sent: Mapping[str, Any] = next((one for one in before if one), {})
    return (None if choice is None else choice[chosen]), sent

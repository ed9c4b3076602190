"""A gateway's own log as examples: what counts for a decision, and what is left out."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contract.errors import UserError
from contract.offers import AmountOff, PercentOff
from tests.training.data.event_logs import event, write
from training.choices.examples import choices_in
from training.data.checkouts import read_checkouts, read_offer_arms, read_offer_log

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
TEN = {"kind": "percent", "percent": 10.0}
FIVE = {"kind": "amount", "amount": 500}
ALL = ["analytics", "offers", "personalization"]


def arm(offer_id: str, discount: Any, propensity: float, shown: bool = False) -> dict[str, Any]:
    return {
        "offer_id": offer_id,
        "amount": 500 if offer_id == "five" else 300,
        "discount": discount,
        "propensity": propensity,
        "shown": shown,
    }


def decision(
    name: str, *arms: dict[str, Any], none: float = 0.5, hours: float = 0.0, **changed: Any
) -> dict[str, Any]:
    """A decision of shopper and session `name`, with milk and bread in the cart."""
    offers = {
        "policy": "chance",
        "holdout": False,
        "no_offer_propensity": none,
        "value": 3_000,
        "margin": 1_200,
        "arms": list(arms),
        "rules": {},
    }
    body: dict[str, Any] = {
        "cart": ["milk", "bread"],
        "cart_quantities": [2, 1],
        "cart_prices": [1_000, 1_000],
        "offers": offers | changed.pop("offers", {}),
    }
    said = {
        "event_id": f"decision-{name}-{hours}",
        "event_name": "decision",
        "occurred_at": NOON + timedelta(hours=hours),
        "subject_id": name,
        "session_id": f"session-{name}",
        "purposes": ALL,
        "items": [],
        "decision": json.dumps(body | changed.pop("body", {})),
    }
    return event(**(said | changed))


def purchase(name: str, *items: str, hours: float = 0.1, **changed: Any) -> dict[str, Any]:
    said = {
        "event_id": f"{changed.get('event_name', 'purchase')}-{name}-{hours}",
        "event_name": "purchase",
        "occurred_at": NOON + timedelta(hours=hours),
        "subject_id": name,
        "session_id": f"session-{name}",
        "purposes": ALL,
        "items": list(items),
        "transaction_id": f"order-{name}",
    }
    return event(**(said | changed))


END = purchase("last", "milk", hours=50)
HALF = (arm("ten", TEN, 0.25, shown=True), arm("five", FIVE, 0.25))
NONE = (arm("ten", TEN, 0.25), arm("five", FIVE, 0.25))


def outcomes(folder: Path, *events: dict[str, Any]) -> dict[str, float]:
    """Of the decisions that count, by shopper."""
    data = write(folder, [*events, END])
    table = read_checkouts(data)
    kept = [row for row in table.to_pylist() if row["arm"] is not None]
    log = read_offer_log(data)
    assert len(log) == len(kept)
    return dict(zip([row["subject_id"] for row in kept], log.outcome.tolist(), strict=True))


def test_a_decision_is_what_was_shown_with_its_chances(tmp_path: Path) -> None:
    data = write(tmp_path, [decision("a", *HALF), decision("b", *NONE, hours=1), END])
    log = read_offer_log(data)
    assert log.arms == ("none", "five", "ten")
    ten = log.arms.index("ten")
    assert log.arm.tolist() == [ten, 0]
    assert log.propensity[0, ten] == 0.25
    assert log.propensity[:, 0].tolist() == [0.5, 0.5]
    assert log.reduction[0, ten] == 300
    assert (log.value.tolist(), log.margin.tolist()) == ([3_000, 3_000], [1_200, 1_200])
    assert {one.name: one.discount for one in read_offer_arms(data).arms} == {
        "ten": PercentOff(percent=10),
        "five": AmountOff(amount=500),
    }


def test_what_counts_as_bought(tmp_path: Path) -> None:
    found = outcomes(
        tmp_path,
        *(decision(name, *HALF) for name in "abcdefgh"),
        purchase("a", "milk"),
        purchase("b", "beer"),  # nothing of the cart
        purchase("c", "bread", hours=23, session_id="another"),
        purchase("d", "bread", hours=25, session_id="another"),
        purchase("e", "bread", hours=30),  # the same session, however long
        purchase("f", "milk"),
        purchase("f", "milk", hours=5, event_name="refund"),
        purchase("g", "milk", "bread"),
        purchase("g", "milk", hours=5, event_name="refund"),  # the bread was kept
        purchase("h", "milk", hours=-0.5),  # before the decision
    )
    assert found == dict(zip("abcdefgh", [1, 0, 1, 0, 1, 0, 1, 0], strict=True))


def test_what_was_no_chance_is_left_out(tmp_path: Path) -> None:
    certain = (arm("ten", TEN, 1.0, shown=True), arm("five", FIVE, 0.0))
    together = (arm("ten", TEN, 0.95, shown=True), arm("five", FIVE, 0.95, shown=True))
    found = outcomes(
        tmp_path,
        decision("counts", *HALF),
        decision("forced", *certain, none=0.0, offers={"rules": {"ten": "r-1"}}),
        decision("sure", *certain, none=0.0),
        decision("together", *together, none=0.05),
        decision("withdrawn", *HALF, offers={"withdrawn": True}),
        decision("unpriced", *HALF, offers={"value": None}),
        decision("no-margin", *HALF, offers={"margin": None}),
        decision("too-late", *HALF, hours=30),
        decision("counted-only", *HALF, purposes=["analytics"]),
        decision("nothing", body={"offers": None}),
        decision("again", *NONE),
        decision("again", *HALF, hours=0.2),  # a second look of the same session
        purchase("again", "milk"),
    )
    assert found == {"counts": 0.0, "again": 1.0}
    table = read_checkouts(tmp_path)
    again = next(row for row in table.to_pylist() if row["subject_id"] == "again")
    assert again["arm"] == "none"


def test_decisions_in_which_an_arm_had_no_chance_do_not_teach_of_it(tmp_path: Path) -> None:
    other = arm("other", {"kind": "free_shipping", "shipping_ids": []}, 0.1)
    events = [decision(f"a-{n}", *NONE) for n in range(8)]
    events += [
        decision("three", *NONE, other, none=0.4),
        decision("third", *NONE, other | {"shown": True}, none=0.4),
        decision("one", NONE[0], none=0.75),
    ]
    log = read_offer_log(write(tmp_path, [*events, END]))
    assert set(log.arms) == {"none", "ten", "five"}
    assert len(log) == 9  # not where only one arm could be, nor where the rare one was shown
    assert log.propensity.sum(1).tolist() == pytest.approx([1.0] * 9)
    assert log.propensity[:, 0].min() == pytest.approx(0.4 / 0.9)
    assert log.propensity[:, 0].max() == 0.5


def test_choices_are_of_the_options_before_them(tmp_path: Path) -> None:
    def sent(*order: str) -> dict[str, Any]:
        return {"order": list(order), "shares": [], "reason": "as_sent"}

    delivery = sent("slow", "fast") | {"prices": [0, 500], "days": [5, None]}
    options = {"payment_methods": sent("card", "invoice"), "shipping_options": delivery}
    events = [
        decision("a", body=options | {"offers": None}),
        decision("a", hours=1, body={"payment_methods": sent("wallet", "card")}),
        purchase("a", hours=0.5, event_name="add_shipping_info", shipping_tier="fast"),
        purchase("a", hours=1.1, event_name="add_payment_info", payment_type="card"),
        purchase("a", "milk", hours=1.2, payment_type="wallet"),
        decision("b", body=options),  # says nothing
    ]
    data = write(tmp_path, [*events, END])
    (paid,) = choices_in(data, "payment")
    assert [one.id for one in paid.options] == ["wallet", "card"]
    assert (paid.taken, paid.value) == (0, 3_000)
    (delivered,) = choices_in(data, "shipping")
    assert [(one.id, one.price, one.days) for one in delivered.options] == [
        ("slow", 0, 5),
        ("fast", 500, None),
    ]
    assert delivered.taken == 1


def test_a_log_without_decisions_says_what_is_missing(tmp_path: Path) -> None:
    data = write(tmp_path, [purchase("a", "milk"), END])
    with pytest.raises(UserError, match="tillwise-serve export"):
        read_checkouts(data)
    data = write(tmp_path, [decision("a", body={"offers": None}), END])
    for read in (read_offer_log, read_offer_arms):
        with pytest.raises(UserError, match="no offer was decided at random"):
            read(data)

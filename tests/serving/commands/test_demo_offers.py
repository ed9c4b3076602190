"""The demo's example offers are there at its first start, and are the shop's own after that."""

from pathlib import Path

from contract.offer_arms import Arm, OfferArms
from contract.offers import AmountOff, PercentOff
from contract.rules import ForceOffer
from serving.commands.demo_offers import example_offers, put_examples
from serving.commands.demo_run import is_shown_all
from serving.commands.rules import read_book
from serving.decision.offer_shelf import DOCUMENT, compiled
from serving.state.audit import COMMAND_LINE
from tests.serving.conftest import ALL, NOON, Running, Start, event
from tests.serving.release_factory import Factory

CART = {"cart_id": "c", "currency": "USD", "items": [{"item_id": "item-1", "price": 3_500}]}
ARMS = OfferArms(
    arms=(
        Arm(name="percent_5", discount=PercentOff(percent=5)),
        Arm(name="amount_100", discount=AmountOff(amount=100)),
    )
).of_this_version()


def test_the_example_rules_are_for_this_shop() -> None:
    book = read_book(Path(__file__).parents[3] / "docs" / "rules.yaml")
    actions = [action for rule in book.rules for action in rule.actions]
    forced = {one.offer_id for one in actions if isinstance(one, ForceOffer)}
    assert forced
    assert forced <= {one.offer_id for one in example_offers("USD").offers}
    (promotion,) = [rule for rule in book.rules if rule.schedule.valid_until is not None]
    assert promotion.schedule.holds(NOON, None)


async def test_examples_are_written_once_and_apply(running: Running) -> None:
    await put_examples(running.gateway)
    await put_examples(running.gateway)
    held = running.gateway.control.document("offers")
    assert held is not None
    assert held.version == 1
    for number in range(5):  # one of them is not among those held out
        answer = await running.decide(cart=CART, consent=ALL, visitor_id=f"visitor-{number}")
        if offers := answer.json()["offers"]:
            break
    assert [(one["offer_id"], one["discount"]["amount"]) for one in offers] == [("big-basket", 200)]
    rejected = {
        one["offer_id"]: one["rejection_reason"] for one in answer.json()["rejected_offers"]
    }
    assert rejected == {
        "welcome": "CouponRecipientDoesNotMatch",
        "regulars": "CouponRecipientDoesNotMatch",
        "free-delivery": "CouponRejectedByCondition",
        "early-evening": "CouponPartOfNotRunningCampaign",
    }


async def learned(start: Start, folder: Path, *chances: float) -> Running:
    """A gateway with the examples, whose network expects these chances: with no offer, with 5 %,
    and with an amount."""
    factory = Factory(folder / "release", uplift=(ARMS, chances))
    factory.write()
    running = await start(releases=factory.releases_dir, models=factory.models_dir)
    await put_examples(running.gateway)
    return running


async def test_a_network_decides_about_all_but_the_promise(start: Start, tmp_path: Path) -> None:
    running = await learned(start, tmp_path, 0.3, 0.5, 0.9)
    for number in range(5):  # one of them is not among those held out
        answer = await running.decide(cart=CART, consent=ALL, visitor_id=f"visitor-{number}")
        if offers := answer.json()["offers"]:
            break
    assert [one["offer_id"] for one in offers] == ["big-basket"]
    assert offers[0]["reasons"][0]["code"] == "for_this_checkout"
    book = example_offers("USD", learned=True)
    assert [one.offer_id for one in book.offers if one.unconditional] == ["welcome"]


async def test_nothing_is_shown_that_is_not_worth_it(start: Start, tmp_path: Path) -> None:
    running = await learned(start, tmp_path, 0.9, 0.9, 0.9)
    answer = await running.decide(cart=CART, consent=ALL)
    assert answer.json()["offers"] == []
    assert "big-basket" not in {one["offer_id"] for one in answer.json()["rejected_offers"]}


def test_they_compile() -> None:
    assert len(compiled(example_offers("EUR").model_dump_json()).book.offers) == 5


async def test_the_pages_shoppers_are_shown_offers(running: Running) -> None:
    half = example_offers("USD").model_copy(update={"holdout_share": 0.5})
    body = half.model_dump_json(exclude_none=True)
    await running.gateway.control.put_document(DOCUMENT, body, None, COMMAND_LINE, "half")
    await running.gateway.follow_offers()
    names = [f"visitor-{number}" for number in range(24)]
    assert not any(is_shown_all(running.gateway, name) for name in names)  # nobody is known
    offered = {}
    for name in names:
        await running.post("/v1/events", {"events": [event(visitor_id=name)]})
        answer = await running.decide(cart=CART, consent=ALL, visitor_id=name)
        offered[name] = bool(answer.json()["offers"])
    assert len(set(offered.values())) == 2
    assert {name: is_shown_all(running.gateway, name) for name in names} == offered

"""The demo's example offers are there at its first start, and are the shop's own after that."""

from serving.commands.demo_offers import example_offers, put_examples
from serving.decision.offer_shelf import compiled
from tests.serving.conftest import ALL, Running


async def test_examples_are_written_once_and_apply(running: Running) -> None:
    await put_examples(running.gateway)
    await put_examples(running.gateway)
    held = running.gateway.control.document("offers")
    assert held is not None
    assert held.version == 1
    cart = {"cart_id": "c", "currency": "USD", "items": [{"item_id": "item-1", "price": 3_500}]}
    for number in range(5):  # one of them is not among those held out
        answer = await running.decide(cart=cart, consent=ALL, visitor_id=f"visitor-{number}")
        if offers := answer.json()["offers"]:
            break
    assert [(one["offer_id"], one["discount"]["amount"]) for one in offers] == [("big-basket", 300)]
    rejected = {
        one["offer_id"]: one["rejection_reason"] for one in answer.json()["rejected_offers"]
    }
    assert rejected == {
        "welcome": "CouponRecipientDoesNotMatch",
        "regulars": "CouponRecipientDoesNotMatch",
        "free-delivery": "CouponRejectedByCondition",
        "early-evening": "CouponPartOfNotRunningCampaign",
    }


def test_they_compile() -> None:
    assert len(compiled(example_offers("EUR").model_dump_json()).book.offers) == 5

"""The example offers of the demo's shop: one of each kind."""

from typing import Final

from contract.offers import OfferBook
from serving.api.gateway import Gateway
from serving.decision.offer_shelf import DOCUMENT
from serving.state.audit import COMMAND_LINE

_NOTE: Final = "the demo's examples"
# Costs are not known: the margin is that of the made-up shop whose shoppers the network learned
# from. And what a day may cost.
_LEARNED: Final = {
    "margin_rate": 0.55,
    "margin_floor": 0.05,
    "daily_budget": {"amount": 100_000},
}


def example_offers(currency: str, *, learned: bool = False) -> OfferBook:
    """Offers that a grocer might make, in minor units of `currency`. `learned`: the release knows
    whom an offer moves, so all but the promise to newcomers are its choice, under a day's
    budget."""
    kinds = (
        {
            "offer_id": "welcome",
            "title": "10 % off your first order",
            "discount": {"kind": "percent", "percent": 10, "at_most": 2_000},
            "first_order": True,
            "limits": {"per_subject": 1},
        },
        {
            "offer_id": "regulars",
            "title": "Our thanks to regulars",
            "discount": {
                "kind": "loyalty_tier",
                "tiers": [
                    {"name": "silver", "min_orders": 10, "percent": 3},
                    {"name": "gold", "min_orders": 50, "percent": 5},
                ],
            },
            "limits": {"budget": 1_000_000},
        },
        {
            "offer_id": "big-basket",
            "title": "2.00 off from 20.00",
            "discount": {"kind": "amount", "amount": 200},
            "min_value": 2_000,
            "group": "basket",
        },
        {
            "offer_id": "free-delivery",
            "title": "Free delivery from five products",
            "discount": {"kind": "free_shipping"},
            "condition": "size(cart.items) >= 5",
            "group": "basket",
        },
        {
            "offer_id": "early-evening",
            "title": "5 % off on weekdays from 17 to 20",
            "discount": {"kind": "percent", "percent": 5},
            "schedule": {
                "hours": {"from_hour": 17, "until_hour": 20},
                "weekdays": ["monday", "tuesday", "wednesday", "thursday", "friday"],
            },
            "limits": {"total": 500},
        },
    )
    promised = {"welcome"} if learned else {str(one["offer_id"]) for one in kinds}
    offers = [
        one | {"currency": currency, "unconditional": one["offer_id"] in promised} for one in kinds
    ]
    return OfferBook.model_validate({"offers": offers} | (_LEARNED if learned else {}))


async def put_examples(gateway: Gateway) -> None:
    """Write them, unless there are offers already. Raises StoreError."""
    if gateway.control.document(DOCUMENT) is not None:
        return
    release = gateway.live.current
    learned = release.offer_judge is not None
    book = example_offers(release.catalogue.currency, learned=learned)
    body = book.model_dump_json(exclude_none=True)
    await gateway.control.put_document(DOCUMENT, body, None, COMMAND_LINE, _NOTE)
    await gateway.follow_offers()

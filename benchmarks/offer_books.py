"""Books of offers that benchmarks decide under, from none to the one that takes the most time."""

from typing import Any

from contract.offers import OfferBook

NONE = "no offers"
DEAREST = "the same, and a cap"
_CONDITIONS = (
    "cart.total >= 2000 && size(cart.items) >= 3",
    "'repeat_buyers' in segments || shopper.orders > 10",
    "cart.categories.exists(one, one == 'DAIRY') && context.country != 'US'",
    "'high_value_repeat_buyers' in segments && cart.total > 5000",
)


def books(currency: str) -> dict[str, OfferBook]:
    """What is compared, by the row's name."""
    drawn = {
        "offers": _offers(10, currency, unconditional=False),
        "explore_share": 0.5,
        "margin_rate": 0.4,
    }
    paced = drawn | {"daily_budget": {"amount": 10**9}}
    return {
        NONE: OfferBook(),
        "10 offers": OfferBook(offers=_offers(10, currency)),
        "10 offers, one per shopper": OfferBook(offers=_offers(10, currency, per_subject=1)),
        "200 offers": OfferBook(offers=_offers(200, currency)),
        "10 offers, by chance": OfferBook.model_validate(drawn),
        "the same, within a day's budget": OfferBook.model_validate(paced),
        DEAREST: OfferBook.model_validate(paced | {"frequency_cap": {"times": 1_000, "days": 1}}),
    }


def _offers(
    number: int, currency: str, *, unconditional: bool = True, **limits: int
) -> tuple[Any, ...]:
    """Offers with conditions of all kinds, of which few hold together."""
    return tuple(
        {
            "offer_id": f"offer-{place}",
            "title": "An offer",
            "discount": {"kind": "percent", "percent": 5 + place % 10},
            "currency": currency,
            "unconditional": unconditional,
            "condition": _CONDITIONS[place % len(_CONDITIONS)],
            "limits": {"total": 10_000, "budget": 10**9} | limits,
        }
        for place in range(number)
    )

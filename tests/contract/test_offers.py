"""Offers: what they take off to the cent, who may have them, when, and why not."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contract.events import EventContext
from contract.expression_variables import Value
from contract.expressions import Facts, parse
from contract.offer_checks import (
    Asked,
    Evaluation,
    Rejected,
    Used,
    ValidOffer,
    after_uses,
    first_set,
)
from contract.offer_index import OfferIndex
from contract.offers import (
    AmountOff,
    FreeShipping,
    Limits,
    LoyaltyTier,
    LoyaltyTiers,
    Offer,
    OfferBook,
    PercentOff,
    first_order_offer,
    go_together,
    reduction,
    settled,
)
from contract.schedule import Schedule
from contract.segment_config import Hours
from tests.contract.plain_offers import plain_evaluation

# A Monday.
NOON = datetime(2017, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TIERS = LoyaltyTiers(
    tiers=(
        LoyaltyTier(name="silver", min_orders=3, percent=5),
        LoyaltyTier(name="gold", min_orders=10, percent=8, at_most=500),
    )
)


def offer(discount: Any = None, **changed: Any) -> Offer:
    plain = {
        "offer_id": "o-1",
        "title": "An offer",
        "discount": discount or PercentOff(percent=10),
        "currency": "USD",
        "unconditional": True,
    }
    return Offer.model_validate(plain | changed)


def asked(**changed: Any) -> Asked:
    plain: dict[str, Any] = {
        "now": NOON,
        "currency": "USD",
        "catalogue_currency": "USD",
        "value": 5_000,
        "shipping": {"standard": 499, "express": 1_299},
        "may_target": True,
    }
    return Asked(**(plain | changed))


def index_of(book: OfferBook) -> OfferIndex:
    texts = {one.condition for one in book.offers if one.condition is not None}
    return OfferIndex(book, {text: parse(text, "offer") for text in texts})


def evaluated(book: OfferBook, of: Asked, **known: Value) -> Evaluation:
    facts = Facts({name.replace("_", ".", 1): value for name, value in known.items()}, "offer")
    return index_of(book).evaluate(of, lambda: facts)


def valid_of(offers: Iterable[Offer], of: Asked | None = None) -> tuple[ValidOffer, ...]:
    return evaluated(OfferBook(offers=tuple(offers)), of or asked()).valid


def reason(
    one: Offer,
    of: Asked,
    used: Used = Used(),  # noqa: B008 - frozen
    book: Mapping[str, Any] | None = None,
    **known: Value,
) -> str | None:
    written = OfferBook.model_validate({"offers": (one,)} | dict(book or {}))
    found = after_uses(evaluated(written, of, **known), {"o-1": used})
    return found.rejected[0].reason if found.rejected else None


@pytest.mark.parametrize(
    ("percent", "value", "taken"),
    [
        (10, 5_000, 500),
        (10, 4_999, 499),  # 499.9, rounded down
        (0.01, 9_999, 0),
        (0.29, 10_000, 29),  # 0.29 is a little less in binary
        (33.33, 3, 0),
        (100, 4_999, 4_999),
        (15, 0, 0),
    ],
)
def test_percentages_are_rounded_down_and_exact(percent: float, value: int, taken: int) -> None:
    assert reduction(PercentOff(percent=percent), value) == taken


def test_amounts_delivery_and_ceilings() -> None:
    assert reduction(PercentOff(percent=50, at_most=300), 5_000) == 300
    assert reduction(AmountOff(amount=700), 5_000) == 700
    assert reduction(AmountOff(amount=700), 500) == 500
    assert reduction(FreeShipping(), 5_000, 499) == 499


@given(
    hundredths=st.integers(1, 10_000),
    value=st.integers(0, 10**12),
    at_most=st.none() | st.integers(1, 10**6),
)
def test_a_percentage_is_never_more_than_it_says(
    hundredths: int, value: int, at_most: int | None
) -> None:
    taken = reduction(PercentOff(percent=hundredths / 100, at_most=at_most), value)
    assert 0 <= taken <= value
    assert taken * 10_000 <= value * hundredths
    assert taken == at_most or (taken + 1) * 10_000 > value * hundredths


def test_a_third_decimal_is_refused_and_so_is_next_to_nothing() -> None:
    with pytest.raises(ValidationError, match="two decimals"):
        PercentOff(percent=0.125)
    with pytest.raises(ValidationError, match=r"0\.01"):
        PercentOff(percent=1e-9)


def test_the_last_tier_reached_counts() -> None:
    assert settled(TIERS, None) is None
    assert settled(TIERS, 2) is None
    assert settled(TIERS, 3) == PercentOff(percent=5)
    assert settled(TIERS, 9) == PercentOff(percent=5)
    assert settled(TIERS, 10) == PercentOff(percent=8, at_most=500)


def test_every_reason_in_turn() -> None:
    plain, at = offer(), asked()
    assert reason(plain, at) is None
    assert reason(offer(active=False), at) == "CouponNotFound"
    later, before = NOON + timedelta(seconds=1), NOON - timedelta(seconds=1)
    starts = offer(schedule={"valid_from": later})
    assert reason(starts, at) == "CouponStartDateInFuture"
    assert reason(offer(schedule={"valid_from": NOON}), at) is None
    assert reason(offer(schedule={"valid_until": NOON}), at) == "CouponExpired"
    assert reason(offer(schedule={"valid_until": later, "valid_from": before}), at) is None
    assert reason(offer(TIERS), asked(orders=2)) == "CouponRecipientDoesNotMatch"
    assert reason(offer(TIERS), asked(orders=3)) is None
    assert reason(offer(min_value=5_001), at) == "CouponRejectedByCondition"
    assert reason(offer(min_value=5_000), at) is None
    assert reason(plain, asked(value=None)) == "CouponRejectedByCondition"
    limited = offer(limits=Limits(total=2, per_subject=1, budget=900))
    assert reason(limited, at, Used(2, 1, 900)) == "CouponLimitReached"
    assert reason(limited, at, Used(1, 1, 900)) == "ProfileLimitReached"
    assert reason(limited, at, Used(1, 0, 401)) == "CampaignLimitReached"
    assert reason(limited, at, Used(1, 0, 400)) is None


def test_first_orders_need_a_user_and_the_callers_word() -> None:
    first = first_order_offer("USD", offer_id="o-1")
    for said, identified in ((None, True), (False, True), (True, False)):
        at = asked(first_order=said, identified=identified, orders=0)
        assert reason(first, at) == "CouponRecipientDoesNotMatch"
    assert reason(first, asked(first_order=True, identified=True)) is None
    assert reason(first, asked(first_order=True, identified=True, orders=0)) is None
    wrong = asked(first_order=True, identified=True, orders=1)
    assert reason(first, wrong) == "CouponRecipientDoesNotMatch"


def test_what_is_personal_needs_the_purpose() -> None:
    nobody = asked(may_target=False, orders=20, first_order=True, identified=True)
    for one in (offer(TIERS), offer(unconditional=False), first_order_offer("USD", offer_id="o-1")):
        assert reason(one, nobody) == "CouponRecipientDoesNotMatch"
    assert reason(offer(), nobody) is None
    about = offer(condition="'lapsing' in segments")
    assert reason(about, nobody, segments=["lapsing"]) == "CouponRecipientDoesNotMatch"
    assert reason(about, asked(), segments=["lapsing"]) is None
    assert reason(offer(condition="cart.total > 1"), nobody, cart_total=2) is None


def test_a_condition_is_asked_last_and_of_all_offers_once() -> None:
    some = [offer(offer_id=f"o-{n}", condition="cart.total > 1", min_value=9) for n in range(3)]
    index, made = index_of(OfferBook(offers=tuple(some))), list[Facts]()

    def facts() -> Facts:
        made.append(Facts({"cart.total": 2}, "offer"))
        return made[-1]

    assert len(index.evaluate(asked(value=8), facts).rejected) == 3
    assert not made
    assert len(index.evaluate(asked(), facts).valid) == 3
    assert len(made) == 1


def test_what_is_not_known_does_not_hold() -> None:
    assert reason(offer(condition="cart.total > 1"), asked()) == "CouponRejectedByCondition"
    assert reason(offer(condition="cart.total > 1"), asked(), cart_total=2) is None


@pytest.mark.parametrize(
    ("one", "withheld"),
    [
        (offer(AmountOff(amount=100)), True),
        (offer(PercentOff(percent=10)), False),
        (offer(PercentOff(percent=10, at_most=100)), True),
        (offer(min_value=100), True),
        (offer(limits=Limits(budget=10_000)), True),
        (offer(FreeShipping()), False),
    ],
)
def test_amounts_are_withheld_in_another_currency(one: Offer, withheld: bool) -> None:
    found = reason(one, asked(currency="EUR"))
    assert found == ("CouponRejectedByCondition" if withheld else None)


def test_the_margin_floor_is_kept_or_there_is_no_offer() -> None:
    ten = offer(margin_floor=0.2)  # takes 500 of 5,000, of which 1,000 must be left
    assert reason(ten, asked(margin=1_500)) is None
    assert reason(ten, asked(margin=1_499)) == "CouponRejectedByCondition"
    assert reason(ten, asked(margin=None)) == "CouponRejectedByCondition"


def test_free_delivery_is_reckoned_at_its_dearest() -> None:
    (every,) = valid_of([offer(FreeShipping())])
    assert every.amount == 1_299
    (one,) = valid_of([offer(FreeShipping(shipping_ids=("standard",)))])
    assert one.amount == 499
    assert reason(offer(FreeShipping()), asked(shipping={})) == "CouponRejectedByCondition"


def test_hours_are_those_of_the_place() -> None:
    evening = Schedule(
        hours=Hours(from_hour=17, until_hour=20), weekdays=("monday",), timezone="Asia/Kolkata"
    )
    # Kolkata is five and a half hours ahead: noon is 17:30, and 20:00 there is 14:30.
    assert evening.holds(NOON, None)
    assert not evening.holds(NOON - timedelta(minutes=31), None)
    assert not evening.holds(NOON + timedelta(days=1), None)
    far = NOON + timedelta(days=1)
    assert evening.end_before(far, NOON, None) == datetime(2017, 11, 20, 14, 30, tzinfo=UTC)
    assert evening.end_before(NOON + timedelta(minutes=5), NOON, None) == NOON + timedelta(
        minutes=5
    )
    one = offer(schedule=evening)
    wrong = asked(now=NOON + timedelta(hours=3))
    assert reason(one, wrong) == "CouponPartOfNotRunningCampaign"


def test_an_hour_ends_where_summer_is_half_an_hour() -> None:
    night = Schedule(hours=Hours(from_hour=1, until_hour=2), timezone="Australia/Lord_Howe")
    now = datetime(2026, 4, 4, 14, 45, tzinfo=UTC)  # at 15:00 the clocks go back to half past one
    assert night.holds(datetime(2026, 4, 4, 15, 29, tzinfo=UTC), None)
    end = night.end_before(now + timedelta(hours=3), now, None)
    assert end == datetime(2026, 4, 4, 15, 30, tzinfo=UTC)


def test_without_a_zone_the_shoppers_counts_and_silence_does_not() -> None:
    noon_there = Schedule(hours=Hours(from_hour=12, until_hour=13), countries=("DE",))
    at = NOON - timedelta(hours=1)
    assert noon_there.holds(at, EventContext(country="DE", timezone="Europe/Berlin"))
    assert not noon_there.holds(at, EventContext(country="DE"))
    assert not noon_there.holds(at, EventContext(country="FR", timezone="Europe/Berlin"))
    assert not noon_there.holds(at, EventContext(country="DE", timezone="Mars/Olympus"))
    with pytest.raises(ValidationError, match="time zone"):
        Schedule(timezone="Mars/Olympus")
    with pytest.raises(ValidationError, match="after valid_from"):
        Schedule(valid_from=NOON, valid_until=NOON)


def test_what_goes_together() -> None:
    alone, other = offer(), offer(offer_id="o-2")
    summer = [offer(offer_id=f"s-{n}", group="summer") for n in range(3)]
    assert go_together((alone,))
    assert not go_together((alone, other))
    assert go_together(tuple(summer))
    assert not go_together((summer[0], alone))
    valid = valid_of([summer[0], alone, summer[1]])
    assert [one.offer.offer_id for one in first_set(valid, 5_000)] == ["s-0", "s-1"]
    assert [one.offer.offer_id for one in first_set(valid[1:], 5_000)] == ["o-1"]
    assert first_set((), 0) == ()


def test_together_they_take_off_no_more_than_there_is() -> None:
    half = [offer(PercentOff(percent=50), offer_id=f"h-{n}", group="g") for n in range(3)]
    free = [offer(FreeShipping(), offer_id=f"f-{n}", group="g") for n in range(2)]
    valid = valid_of([half[0], *free, half[1], half[2]])
    chosen = [one.offer.offer_id for one in first_set(valid, 5_000)]
    assert chosen == ["h-0", "f-0", "h-1"]


def test_a_margin_floor_is_exact() -> None:
    ten = offer(margin_floor=0.07)  # takes 1,000 of 10,000, of which 700 must be left
    assert reason(ten, asked(value=10_000, margin=1_700)) is None
    assert reason(ten, asked(value=10_000, margin=1_699)) == "CouponRejectedByCondition"


def test_together_they_leave_the_highest_of_their_margin_floors() -> None:
    def fifth(name: str, **more: Any) -> Offer:
        return offer(PercentOff(percent=20), offer_id=name, group="g", **more)

    free = offer(FreeShipping(shipping_ids=("standard",)), offer_id="free", group="g")
    floored = fifth("low", margin_floor=0.2)  # of 5,000 half is margin: 2,500, and 1,000 stay
    valid = valid_of([fifth("none"), floored, free], asked(margin=2_500))
    assert [one.most_in_all for one in valid] == [None, 1_500, None]
    assert [one.offer.offer_id for one in first_set(valid, 5_000)] == ["none", "free"]
    assert [one.offer.offer_id for one in first_set(valid[1:], 5_000)] == ["low", "free"]
    almost = valid_of([fifth("none"), floored, free], asked(margin=3_498))
    assert [one.offer.offer_id for one in first_set(almost, 5_000)] == ["none", "low"]
    just = valid_of([fifth("none"), floored, free], asked(margin=3_499))
    assert len(first_set(just, 5_000)) == 3


def test_a_days_budget_is_reckoned_in_one_currency() -> None:
    chosen, budget = offer(unconditional=False), {"daily_budget": {"amount": 9_000}}
    for currency, found in (("USD", None), ("EUR", "CouponRejectedByCondition")):
        assert reason(chosen, asked(currency=currency), book=budget) == found
        assert reason(offer(), asked(currency=currency), book=budget) is None
        assert reason(chosen, asked(currency=currency)) is None


def test_a_book_is_in_one_currency_and_names_each_offer_once() -> None:
    with pytest.raises(ValidationError, match="same offer_id"):
        OfferBook(offers=(offer(), offer()))
    with pytest.raises(ValidationError, match="one currency"):
        OfferBook(offers=(offer(), offer(offer_id="o-2", currency="EUR")))
    book = OfferBook(offers=(offer(), offer(offer_id="o-2", margin_floor=0.3)), margin_floor=0.1)
    assert [book.floor_of(one) for one in book.offers] == [0.1, 0.3]
    assert book.find("o-2") is book.offers[1]
    assert book.find("o-3") is None
    assert book == OfferBook.model_validate_json(book.model_dump_json())


def test_every_offer_is_valid_or_rejected() -> None:
    book = [offer(offer_id=f"o-{n}", min_value=n * 1_000 + 1) for n in range(8)]
    found = evaluated(OfferBook(offers=tuple(book)), asked())
    assert [one.offer.offer_id for one in found.valid] == [f"o-{n}" for n in range(5)]
    assert found.rejected == tuple(
        Rejected(f"o-{n}", "CouponRejectedByCondition") for n in range(5, 8)
    )


HOUR = Hours(from_hour=12, until_hour=13)
ANY_OFFER = st.fixed_dictionaries(
    {
        "discount": st.sampled_from(
            [PercentOff(percent=10), AmountOff(amount=400), FreeShipping(), TIERS]
        ),
        "condition": st.sampled_from(
            [
                *(None, "cart.total >= 2000", "cart.total > 3000 && size(cart.items) > 1"),
                *("'repeat_buyers' in segments || shopper.orders > 3", "context.country != 'DE'"),
                "cart.categories.exists(one, one == 'DAIRY')",
            ]
        ),
        "first_order": st.booleans(),
        "min_value": st.sampled_from([None, 4_000]),
        "unconditional": st.booleans(),
        "active": st.sampled_from([True, True, False]),
        "margin_floor": st.sampled_from([None, 0.2]),
        "schedule": st.sampled_from(
            [
                *({}, {"countries": ["DE"]}, {"regions": ["BE"]}),
                *({"valid_until": NOON}, {"valid_from": NOON + timedelta(seconds=20)}),
                *({"hours": HOUR}, {"hours": HOUR, "timezone": "Europe/Berlin"}),
                {"weekdays": ["monday"], "timezone": "Asia/Kolkata", "countries": ["DE", "US"]},
            ]
        ),
        "limits": st.sampled_from([{}, {"total": 1}, {"budget": 450}, {"per_subject": 1}]),
    }
)
ANY_CHECKOUT = st.fixed_dictionaries(
    {
        "now": st.sampled_from([0, 10, 20, 3_600, 7 * 3_600, 24 * 3_600]).map(
            lambda seconds: NOON + timedelta(seconds=seconds)
        ),
        "value": st.sampled_from([None, 0, 3_000, 5_000]),
        "margin": st.sampled_from([None, 900, 4_000]),
        "currency": st.sampled_from(["USD", "EUR"]),
        "context": st.sampled_from(
            [
                *(None, EventContext(country="DE", region="BE", timezone="Europe/Berlin")),
                EventContext(country="US", timezone="America/New_York"),
            ]
        ),
        "first_order": st.booleans(),
        "identified": st.booleans(),
        "may_target": st.booleans(),
        "orders": st.sampled_from([None, 0, 4, 12]),
    }
)
ANY_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "cart.total": st.sampled_from([1_999, 2_000, 4_000]),
        "cart.items": st.sampled_from([["a"], ["a", "b"]]),
        "cart.categories": st.sampled_from([[], ["DAIRY"]]),
        "segments": st.sampled_from([[], ["repeat_buyers"]]),
        "shopper.orders": st.sampled_from([3, 4]),
        "context.country": st.sampled_from(["", "DE", "US"]),
    },
)


@given(
    st.lists(ANY_OFFER, max_size=12),
    st.sampled_from([{}, {"margin_floor": 0.1}, {"daily_budget": {"amount": 9_000}}]),
    st.lists(st.tuples(ANY_CHECKOUT, ANY_FACTS), min_size=1, max_size=4),
)
def test_the_index_finds_what_each_offer_by_itself_says(
    some: list[dict[str, Any]],
    about: dict[str, Any],
    checkouts: list[tuple[dict[str, Any], dict[str, Value]]],
) -> None:
    offers = tuple(offer(offer_id=f"o-{n}", **one) for n, one in enumerate(some))
    book = OfferBook.model_validate({"offers": offers} | about)
    index, used = index_of(book), {f"o-{n}": Used(n % 2, n % 3, 50 * n) for n in range(len(some))}
    for told, known in checkouts:  # one after the other, as the index remembers some of it
        of, facts = asked(**told), Facts(known, "offer")
        expected = plain_evaluation(book, of, facts, used)
        assert index.evaluate(of, lambda facts=facts: facts, used) == expected  # type: ignore[misc]
        found = index.evaluate(of, lambda facts=facts: facts)  # type: ignore[misc]
        assert after_uses(found, used) == expected


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_uses_learned_later_reject_as_those_known_before(by_subject: list[int]) -> None:
    book = [offer(offer_id=f"o-{n}", limits={"per_subject": 2, "total": 9}) for n in range(4)]
    before = {one.offer_id: Used(total=8 + (place == 3)) for place, one in enumerate(book)}
    used = {
        one: Used(all_of_them.total, by_subject[place])
        for place, (one, all_of_them) in enumerate(before.items())
    }
    found = evaluated(OfferBook(offers=tuple(book)), asked())
    at_once, later = after_uses(found, used), after_uses(after_uses(found, before), used)
    assert later.valid == at_once.valid
    assert set(later.rejected) == set(at_once.rejected)
    # What was used up before stands first: it was never asked about.
    assert later.rejected[0] == Rejected("o-3", "CouponLimitReached")

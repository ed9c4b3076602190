"""Every rule at its threshold, on figures that a reader can count by hand."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from contract import features, segments
from contract.events import Event, EventContext, EventItem
from contract.segment_config import DEFAULT, ContextualSegment, Hours, SegmentConfig
from contract.segments import NUM_SEGMENTS, SEGMENTS, assign, figures, local_time, names
from tests.contract.examples import event, us

MOBILE_EUROPE = "mobile_shoppers_in_europe_during_peak_hours"


def view_of(*log: Event, day: float) -> features.SubjectView:
    state: features.SubjectState = {}
    for one in log:
        state = features.update(state, one)
    return features.view(state, us(day))


def segments_of(
    *log: Event,
    day: float,
    context: EventContext | None = None,
    rules: SegmentConfig = DEFAULT,
) -> set[str]:
    membership = assign(view_of(*log, day=day), context, local_time(us(day), context), rules)
    assert membership.shape == (len(rules.names),)
    assert membership.dtype == np.float32
    return set(names(membership, rules))


def order(number: int, value: int | None = 1_000, **changed: object) -> Event:
    return event(number, value=value, currency="USD", **changed)  # type: ignore[arg-type]


def seen(number: int, item_id: str, category: str | None = None, day: float = 0) -> Event:
    item = EventItem(item_id=item_id, item_category=category)
    return event(number, "view_item", day=day, items=[item])


def test_unknown_shopper() -> None:
    assert segments_of(day=0) == {"unknown"}
    assert segments_of(event(1, "view_item"), day=-1) == {"unknown"}  # not yet


def test_three_products_make_an_explorer_and_an_order_ends_it() -> None:
    views = [seen(n, f"tea-{n}", "FOOD/TEA", day=n / 100) for n in (1, 2, 3)]
    assert segments_of(*views[:2], day=1) == {"prospects"}
    assert segments_of(*views[:2], seen(4, "tea-1"), day=1) == {"prospects"}  # the same again
    assert segments_of(*views, day=1) == {"prospects", "browsing_explorers"}
    bought = order(9, day=0.5)
    assert segments_of(*views, bought, day=1) == {"first_time_buyers"}
    late = seen(8, "tea-8", day=0.4)  # before the order, whenever it arrives
    assert segments_of(*views, bought, late, day=1) == {"first_time_buyers"}
    # The first view counts until it is thirty days old.
    assert "browsing_explorers" in segments_of(*views, day=30.0099)
    assert segments_of(*views, day=30.0101) == {"prospects"}


def test_explorers_by_categories() -> None:
    rules = SegmentConfig.parse(
        b'{"browsing_explorers": {"min_items": 2, "min_categories": 2}}', "file"
    )
    narrow = [seen(1, "tea-1", "FOOD/TEA"), seen(2, "tea-2", "FOOD/TEA")]
    assert segments_of(*narrow, day=1, rules=rules) == {"prospects"}
    assert "browsing_explorers" in segments_of(
        *narrow, seen(3, "soap", "HOME/BATH"), day=1, rules=rules
    )
    # What says no category is of one kind of its own.
    assert "browsing_explorers" in segments_of(*narrow, seen(3, "soap"), day=1, rules=rules)


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (0, {"first_time_buyers"}),
        (44.99, {"first_time_buyers"}),
        (45, {"first_time_buyers", "lapsing"}),
        (59.99, {"first_time_buyers", "lapsing"}),
        (60, {"lapsing"}),
    ],
)
def test_one_order_as_it_grows_old(day: float, expected: set[str]) -> None:
    assert segments_of(order(1), day=day) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((9_000, 9_000), {"repeat_buyers"}),  # two are not three
        ((4_000, 5_000, 5_999), {"repeat_buyers"}),  # 14,999 / 3 < 5,000
        ((4_000, 5_000, 6_000), {"repeat_buyers", "high_value_repeat_buyers"}),
        ((None, 5_000, 5_000), {"repeat_buyers", "high_value_repeat_buyers"}),  # 10,000 / 2
        ((None, None, None), {"repeat_buyers"}),
    ],
)
def test_value_of_orders(values: tuple[int | None, ...], expected: set[str]) -> None:
    log = [order(n, value) for n, value in enumerate(values, start=1)]
    assert segments_of(*log, day=1) == expected


def test_spend_is_net_of_refunds_and_in_one_currency() -> None:
    log = [order(n, 6_000, day=n) for n in (1, 2, 3)]
    back = event(4, "refund", day=4, value=3_001, transaction_id="t-2")
    assert figures(view_of(*log, day=3)).spend_per_order == 6_000
    assert figures(view_of(*log, back, day=4)).spend_per_order == pytest.approx(14_999 / 3)
    assert segments_of(*log, back, day=4) == {"repeat_buyers"}
    whole = event(5, "refund", day=5, value=2_999, transaction_id="t-2")
    assert figures(view_of(*log, back, whole, day=5)).orders == 2
    euro = event(6, day=6, value=100, currency="EUR")
    assert figures(view_of(*log, euro, day=6)).spend_per_order == 100  # that of the latest order
    dollars = SegmentConfig(currency="USD")
    assert figures(view_of(*log, euro, day=6), dollars).spend_per_order == 6_000


def test_an_order_without_a_value_is_worth_its_lines() -> None:
    lines = [EventItem(item_id="milk", price=250, quantity=2), EventItem(item_id="tea", price=100)]
    assert figures(view_of(event(1, items=lines), day=1)).spend_per_order == 2 * 250 + 100
    half = [*lines, EventItem(item_id="soap")]  # one price is missing: the sum would be too small
    assert figures(view_of(event(1, items=half), day=1)).spend_per_order == 0


def test_an_order_that_is_told_twice_is_one() -> None:
    twice = [order(1, transaction_id="t-1"), order(2, day=0.1, transaction_id="t-1")]
    assert figures(view_of(*twice, day=1)).orders == 1


def test_promo_seekers_by_coupon() -> None:
    coupons = [order(n, coupon="SAVE10", day=n) for n in (1, 2)]
    plain = [order(n, day=n) for n in (3, 4, 5)]
    assert "promo_seekers" not in segments_of(coupons[0], day=3)
    assert "promo_seekers" in segments_of(*coupons, day=3)
    assert "promo_seekers" in segments_of(*coupons, *plain[:2], day=6)  # 2 / 4
    assert "promo_seekers" not in segments_of(*coupons, *plain, day=6)  # 2 / 5
    assert "promo_seekers" not in segments_of(*(order(n, coupon="", day=n) for n in (1, 2)), day=3)


def test_promo_seekers_by_promotions() -> None:
    looked = [
        event(1, "view_promotion", items=(), day=0),
        event(2, "select_promotion", items=(), day=1),
        event(3, "view_promotion", items=(), day=2),
    ]
    assert segments_of(*looked[:2], day=2) == {"prospects"}
    assert segments_of(*looked, day=2) == {"prospects", "promo_seekers"}
    assert segments_of(*looked, day=29.99) == {"prospects", "promo_seekers"}
    assert segments_of(*looked, day=30) == {"prospects"}  # the first is thirty days old


@pytest.mark.parametrize(
    ("hour_utc", "expected"), [(15, set()), (16, {MOBILE_EUROPE}), (18, {MOBILE_EUROPE}), (19, ())]
)
def test_mobile_shoppers_in_europe_during_peak_hours(hour_utc: int, expected: set[str]) -> None:
    there = EventContext(device="mobile", country="DE", timezone="Europe/Berlin")  # UTC + 1
    assert segments_of(day=hour_utc / 24, context=there) == {"unknown", *expected}


@pytest.mark.parametrize(
    "changed",
    [
        *({"device": "desktop"}, {"device": None}, {"country": "US"}, {"country": None}),
        *({"timezone": None}, {"timezone": "Mars/Olympus"}, {"timezone": "America/New_York"}),
    ],
)
def test_every_condition_of_a_context_must_hold(changed: dict[str, str | None]) -> None:
    said: dict[str, str | None] = {"device": "mobile", "country": "DE", "timezone": "Europe/Berlin"}
    at_six = 17 / 24
    assert MOBILE_EUROPE in segments_of(day=at_six, context=EventContext.model_validate(said))
    other = EventContext.model_validate(said | changed)
    assert MOBILE_EUROPE not in segments_of(day=at_six, context=other)
    assert MOBILE_EUROPE not in segments_of(day=at_six)


def test_contexts_of_a_shop() -> None:
    rules = SegmentConfig(
        contextual=(
            ContextualSegment(
                name="night_in_ohio",
                title="Nights in Ohio",
                regions=("OH",),
                hours=Hours(from_hour=22, until_hour=6),
            ),
            ContextualSegment(name="weekend", title="Weekend", weekdays=("saturday", "sunday")),
        )
    )
    ohio = EventContext(region="OH", timezone="America/New_York")  # UTC - 5
    monday = {3: {"weekend", "night_in_ohio"}, 10.5: {"night_in_ohio"}, 11: set()}
    for hour, expected in monday.items():  # at 3:00 UTC it is Sunday there, 22:00
        held = segments_of(day=hour / 24, context=ohio, rules=rules)
        assert held == {"unknown", *expected}
    assert segments_of(day=5.5, context=EventContext(timezone="UTC"), rules=rules) == {
        "unknown",
        "weekend",
    }


def test_local_time() -> None:
    told = local_time(us(0), EventContext(timezone="Asia/Kolkata"))
    assert told == datetime(2017, 11, 20, 5, 30, tzinfo=ZoneInfo("Asia/Kolkata"))


@pytest.mark.parametrize(
    "zone", [None, "", ".", "Mars/Olympus", "../passwd", "/etc/passwd", "America", "UTC\0", "é"]
)
def test_unusable_zone_is_no_local_time(zone: str | None) -> None:
    assert local_time(us(0), EventContext(timezone=zone)) is None


def test_names_follow_the_membership() -> None:
    nobody = np.zeros(len(SEGMENTS), np.float32)
    assert segments.names(nobody) == ()
    assert segments.names(nobody + 1) == SEGMENTS
    assert segments.padded(nobody + 1).tolist() == [1] * len(SEGMENTS) + [0] * (
        NUM_SEGMENTS - len(SEGMENTS)
    )

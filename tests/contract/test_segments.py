from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from contract import features, segments
from contract.events import Event, EventContext
from contract.segments import SEGMENTS, assign, local_time, names
from tests.contract.examples import event, us


def segments_of(*log: Event, day: float, context: EventContext | None = None) -> set[str]:
    state: features.SubjectState = {}
    for one in log:
        state = features.update(state, one)
    local = local_time(us(day), context)
    membership = assign(features.view(state, us(day)), context, local)
    assert membership.shape == (len(SEGMENTS),)
    assert membership.dtype == np.float32
    return set(names(membership))


def test_unknown_shopper() -> None:
    assert segments_of(day=0) == {"unknown"}


def test_browsing_before_the_first_purchase() -> None:
    views = [event(n, "view_item") for n in (1, 2)]
    assert segments_of(*views, day=0) == {"first_time"}
    assert segments_of(*views, event(3, "click"), day=0) == {"first_time", "browsing"}


@pytest.mark.parametrize(
    ("baskets", "expected"),
    [(1, set()), (2, {"repeat"}), (23, {"repeat"}), (24, {"repeat", "frequent"})],
)
def test_number_of_baskets(baskets: int, expected: set[str]) -> None:
    log = [event(n) for n in range(1, baskets + 1)]
    assert segments_of(*log, day=1) == expected


@pytest.mark.parametrize(("day", "expected"), [(44.9, set()), (45, {"lapsing"})])
def test_days_without_a_purchase(day: float, expected: set[str]) -> None:
    assert segments_of(event(1), day=day) == expected


@pytest.mark.parametrize(("items", "expected"), [(14, set()), (15, {"large_baskets"})])
def test_size_of_baskets(items: int, expected: set[str]) -> None:
    assert segments_of(event(1, items=["milk"] * items), day=0) == expected


@pytest.mark.parametrize(
    ("hour_utc", "expected"),
    [(15, set()), (16, {"peak_hours"}), (18, {"peak_hours"}), (19, set())],
)
def test_peak_hours_are_local(hour_utc: int, expected: set[str]) -> None:
    berlin = EventContext(timezone="Europe/Berlin")  # one hour ahead in November
    assert segments_of(event(1), day=hour_utc / 24, context=berlin) == expected


def test_weekend_is_local() -> None:
    sunday_evening_in_ohio = 6 + 23 / 24  # from Monday, 2017-11-20
    ohio = EventContext(timezone="America/New_York", device="mobile")
    assert segments_of(event(1), day=sunday_evening_in_ohio, context=ohio) == {
        "weekend",
        "mobile",
        "peak_hours",  # 18 o'clock
    }
    assert segments_of(event(1), day=7 + 6 / 24, context=ohio) == {"mobile"}


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

"""Since when: against walking through time, in any order of arrival, and by hand."""

from datetime import datetime, timedelta
from itertools import permutations
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import features, segment_history
from contract.behaviour import BEHAVIOUR, LearnedSegments
from contract.clock import to_us
from contract.events import Event, EventContext
from contract.features import ORDERS, SubjectState
from contract.segment_config import DEFAULT, ContextualSegment, Hours, SegmentConfig
from contract.segment_history import Since, context_since, learned_since, rules_since
from contract.segments import assign, names
from tests.contract.examples import arrivals, event, frame_of, many, us

# Thresholds of hours, so that the few days of random logs pass all of them.
HASTY = SegmentConfig.model_validate(
    {
        "first_time_buyers": {"within_days": 0.2},
        "browsing_explorers": {"min_items": 2, "within_days": 0.3},
        "promo_seekers": {"min_promotions": 2, "within_days": 0.25, "min_coupon_orders": 1},
        "high_value_repeat_buyers": {"min_orders": 2, "min_spend_per_order": 100},
        "lapsing": {"days": 0.15},
    }
)
SUBJECT = "00000000-0000-0000-0000-000000000001"


def state_of(log: list[Event]) -> SubjectState:
    state: SubjectState = {}
    for one in log:
        if str(one.subject_id) == SUBJECT:
            state = features.update(state, one)
    return state


def held_at(state: SubjectState, now_us: int) -> set[str]:
    return set(names(assign(features.view(state, now_us), None, None, HASTY), HASTY))


@many
@given(arrivals(), st.integers(0, 40))
def test_since_is_when_it_began_and_replay_says_the_same(
    arrival: tuple[list[Event], list[Event]], sixteenth: int
) -> None:
    log, arrived = arrival
    now_us = us(sixteenth / 16)
    state = state_of(arrived)
    since = rules_since(state, now_us, HASTY)
    replayed = features.replay(frame_of(log)).get(SUBJECT, {})
    assert rules_since(replayed, now_us, HASTY) == since
    held = held_at(state, now_us)
    assert held_at(replayed, now_us) == held
    assert set(since) == held - {"unknown"}
    for name, began in since.items():
        assert began.exact
        assert name in held_at(state, began.us)
        assert name not in held_at(state, began.us - 1)
        for moment in np.linspace(began.us, now_us, 8).astype(int).tolist():
            assert name in held_at(state, moment)


def since_days(*log: Event, day: float) -> dict[str, float]:
    found = rules_since(state_of(list(log)), us(day), DEFAULT)
    return {name: (one.us - us(0)) / (us(1) - us(0)) for name, one in found.items()}


def test_by_hand() -> None:
    looked = [event(n, "view_item", day=n, items=[f"item-{n}"]) for n in (1, 2, 3)]
    assert since_days(*looked, day=10) == {"prospects": 1, "browsing_explorers": 3}
    first = event(4, day=5)
    assert since_days(*looked, first, day=10) == {"first_time_buyers": 5}
    assert since_days(*looked, first, day=60) == {"first_time_buyers": 5, "lapsing": 50}  # 5 + 45
    again = event(5, day=61)
    assert since_days(*looked, first, again, day=62) == {"repeat_buyers": 61}
    assert since_days(*looked, first, again, day=200) == {"repeat_buyers": 61, "lapsing": 106}


def test_a_late_event_counts_as_if_it_had_come_in_time() -> None:
    log = [event(1, day=1), event(2, day=100), event(3, day=50)]
    for order in permutations(log):
        assert since_days(*order, day=120) == {"repeat_buyers": 50}
    # Without the late one the shopper had come back on day 100.
    assert since_days(*log[:2], day=120) == {"repeat_buyers": 100}


def test_a_segment_that_was_left_and_entered_again_began_anew() -> None:
    orders = [event(n, day=day) for n, day in enumerate((0, 50, 52), start=1)]
    assert since_days(*orders, day=98) == {"repeat_buyers": 50, "lapsing": 97}


def test_what_no_segment_is_told_from_makes_no_moment() -> None:
    """Hundreds of removals would else use up the moments that a walk may look at."""
    log = [event(1, day=1), *(event(n, "remove_from_cart", day=n) for n in range(2, 500))]
    state = state_of(log)
    assert len(state["traces"]) == 499
    assert segment_history._moments(state, us(600), {}).tolist() == [us(1)]


def test_a_state_that_was_cut_says_so() -> None:
    log = [event(n, day=n / 10) for n in range(1, ORDERS.capacity + 2)]
    began = rules_since(state_of(log), us(60), DEFAULT)["repeat_buyers"]
    # The first order is gone, so the second that is left stands for it.
    assert began == Since(us(0.3), exact=False)
    assert rules_since(state_of(log[:-2]), us(60), DEFAULT)["repeat_buyers"].exact


def test_nobody() -> None:
    assert rules_since({}, us(0)) == {}
    assert rules_since(state_of([event(1, day=1)]), us(0)) == {}
    assert rules_since(state_of([event(1, "refund")]), us(1)) == {}  # alone it makes nobody known


def two_segments() -> LearnedSegments:
    """Those who bought within about a week, and those who did not."""
    mean, scale = np.zeros(len(BEHAVIOUR)), np.zeros(len(BEHAVIOUR))
    scale[BEHAVIOUR.index("days_since_order")] = 1.0
    centroids = np.zeros((2, len(BEHAVIOUR)))
    centroids[:, BEHAVIOUR.index("days_since_order")] = np.log1p([2.0, 20.0])
    return LearnedSegments(("fresh", "long absent"), mean, scale, centroids)


def test_since_of_a_learned_segment() -> None:
    learned = two_segments()
    # Halfway between log1p(2) and log1p(20) lies log1p(6.94): from the seventh whole day on it is
    # nearer to 20.
    state = state_of([event(1, day=0), event(2, day=30.5)])
    assert learned.names[learned.of(features.view(state, us(37.4))) or 0] == "fresh"
    assert learned_since(state, us(37.4), learned) == Since(us(30.5), exact=True)
    assert learned_since(state, us(50), learned) == Since(us(37.5), exact=True)
    # An order that comes to light later moves it.
    late = state_of([event(1, day=0), event(2, day=30.5), event(3, day=40)])
    assert learned_since(late, us(50), learned) == Since(us(47), exact=True)
    assert learned_since({}, us(50), learned) is None
    # Longer ago than is looked back: no answer rather than a wrong one.
    assert learned_since(state_of([event(1, day=0)]), us(380), learned) == Since(us(7), exact=True)
    often = [event(n, day=n / 4) for n in range(1, 410)]
    assert learned_since(state_of(often), us(103), learned) is None


@pytest.mark.parametrize(
    ("zone", "hours", "expected"),
    [
        ("Europe/Berlin", Hours(from_hour=17, until_hour=20), datetime(2017, 11, 20, 17)),
        ("Asia/Kolkata", Hours(from_hour=20, until_hour=6), datetime(2017, 11, 20, 20)),
        ("UTC", None, datetime(2017, 11, 20)),
    ],
)
def test_since_of_a_context_is_when_its_hours_began(
    zone: str, hours: Hours | None, expected: datetime
) -> None:
    segment = ContextualSegment(name="one", title="One", hours=hours, weekdays=("monday",))
    if hours is not None:
        segment = segment.model_copy(update={"weekdays": ()})
    context = EventContext(timezone=zone)
    now = datetime(2017, 11, 20, 18, 45, 30, 7, tzinfo=ZoneInfo("Europe/Berlin"))
    if zone == "Asia/Kolkata":
        now += timedelta(hours=1)
    began = context_since(segment, to_us(now), context)
    assert began == to_us(expected.replace(tzinfo=ZoneInfo(zone)))


def test_a_place_has_no_beginning() -> None:
    segment = ContextualSegment(name="phone", title="Phone", devices=("mobile",))
    assert context_since(segment, us(0), EventContext(device="mobile", timezone="UTC")) is None

"""Hours of a day as the shop's clock shows them, on the days on which it is changed too."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from contract.clock import DAY_US, from_us, to_us
from serving.monitoring.kpi_metrics import COUNTERS
from serving.monitoring.kpis import HOUR, MINUTES_5, Sums
from serving.monitoring.shop_hours import ShopHours

BERLIN = ShopHours(ZoneInfo("Europe/Berlin"))
AUTUMN, SPRING = datetime(2026, 10, 24, 22, tzinfo=UTC), datetime(2026, 3, 28, 23, tzinfo=UTC)


def hourly(start_us: int, end_us: int, grain: int = HOUR) -> Sums:
    times = np.arange(start_us, end_us, grain, dtype=np.int64)
    return Sums(times, np.ones((len(times), len(COUNTERS))))


@pytest.mark.parametrize(("start", "hours"), [(AUTUMN, 25), (SPRING, 23)])
def test_a_day_on_which_clocks_change_has_its_own_length(start: datetime, hours: int) -> None:
    begin = to_us(start)
    assert BERLIN.midnight_us(begin) == begin
    assert BERLIN.midnight_us(begin - 1) < begin
    assert BERLIN.midnight_us(begin + 15 * HOUR) == begin
    end = BERLIN.midnight_us(begin, 1)
    assert end - begin == hours * HOUR
    assert BERLIN.midnight_us(end, -1) == begin
    assert BERLIN.days_between(begin - 1, end) == 2
    assert BERLIN.days_between(begin, end - 1) == 0


def test_an_hour_that_comes_twice_holds_both_and_one_that_is_left_out_nothing() -> None:
    for start, two, three in ((AUTUMN, 2, 1), (SPRING, 0, 1)):
        begin = to_us(start)
        end = BERLIN.midnight_us(begin, 2)
        counters, lasted = BERLIN.by_hour(hourly(begin, end), HOUR, 2)
        assert counters.shape == (48, len(COUNTERS))
        assert lasted.tolist() == counters[:, 0].tolist()
        assert lasted[:5].tolist() == [1, 1, two, three, 1]
        assert set(lasted[5:]) == {1}


def test_ten_o_clock_is_ten_o_clock_before_and_after() -> None:
    origin = to_us(datetime(2026, 10, 19, tzinfo=ZoneInfo("Europe/Berlin")))
    tens = [datetime(2026, 10, day, 10, tzinfo=ZoneInfo("Europe/Berlin")) for day in (24, 25, 26)]
    moments = np.array([to_us(one) for one in tens])
    assert np.diff(moments).tolist() == [25 * HOUR, DAY_US]
    assert BERLIN.places(moments, origin).tolist() == [5 * 24 + 10, 6 * 24 + 10, 7 * 24 + 10]


def test_where_no_hour_of_utc_is_one_of_the_shop_smaller_buckets_are_read() -> None:
    delhi = ShopHours(ZoneInfo("Asia/Kolkata"))
    begin = delhi.midnight_us(to_us(AUTUMN))
    assert from_us(begin).minute == 30
    assert delhi.grain_of(begin, begin + 56 * DAY_US) == MINUTES_5
    assert BERLIN.grain_of(begin, begin + 56 * DAY_US) == HOUR
    counters, lasted = delhi.by_hour(hourly(begin, begin + DAY_US, MINUTES_5), MINUTES_5, 1)
    assert set(counters[:, 0]) == {12}
    assert lasted == pytest.approx(1.0)


def test_where_clocks_change_at_midnight_every_day_still_begins_once() -> None:
    """In Havana it is one o'clock at once in spring, and midnight twice in autumn."""
    havana = ShopHours(ZoneInfo("America/Havana"))
    for month, day in ((3, 7), (10, 31)):
        begin = havana.midnight_us(to_us(datetime(2026, month, day, 17, tzinfo=UTC)))
        days = [havana.midnight_us(begin, one) for one in range(4)]
        _, lasted = havana.by_hour(hourly(days[0], days[3]), HOUR, 3)
        assert lasted.sum() == (days[3] - days[0]) / HOUR
        places = havana.places(np.array(days[:3]), begin)
        assert (places // 24).tolist() == [0, 1, 2]


def test_utc_is_what_it_was() -> None:
    hours, noon = ShopHours(), to_us(datetime(2026, 3, 29, 12, tzinfo=UTC))
    assert hours.midnight_us(noon) == noon // DAY_US * DAY_US
    assert hours.places(np.array([noon]), noon - DAY_US).tolist() == [36.0]
    counters, lasted = hours.by_hour(hourly(noon - 12 * HOUR, noon + 12 * HOUR), HOUR, 1)
    assert counters.shape == (24, len(COUNTERS))
    assert set(lasted) == {1.0}

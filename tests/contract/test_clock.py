import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import contract
from contract.clock import DAY_US, AsOfClock, FixedClock, SystemClock, from_us, to_us
from tests.contract.examples import many


def test_microseconds_since_1970() -> None:
    assert to_us(datetime(1970, 1, 2, 0, 0, 1, 5, tzinfo=UTC)) == 86_400 * 10**6 + 10**6 + 5
    assert to_us(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
    assert DAY_US == 24 * 60 * 60 * 10**6


def test_zones_are_the_same_moment() -> None:
    berlin = timezone(timedelta(hours=1))
    assert to_us(datetime(1970, 1, 1, 1, tzinfo=berlin)) == 0


def test_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"2017-11-20T00:00:00 has no zone"):
        to_us(datetime(2017, 11, 20))


@many
@given(st.datetimes(timezones=st.just(UTC)))
def test_round_trip_is_exact(moment: datetime) -> None:
    assert from_us(to_us(moment)) == moment


def test_fixed_clock_moves_by_hand_only() -> None:
    clock = FixedClock(datetime(2017, 11, 20, tzinfo=UTC))
    assert clock.now() == clock.now() == datetime(2017, 11, 20, tzinfo=UTC)
    clock.at += timedelta(days=1)
    assert clock.now() == datetime(2017, 11, 21, tzinfo=UTC)


def test_as_of_clock_runs_on_from_its_start() -> None:
    start = datetime(2017, 11, 20, tzinfo=UTC)
    clock = AsOfClock(start)
    first, second = clock.now(), clock.now()
    assert start <= first <= second < start + timedelta(minutes=1)


def test_system_clock_says_utc() -> None:
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)


def test_only_the_system_clock_reads_the_wall_clock() -> None:
    wall_clock = re.compile(r"\.now\(UTC\)|\.(?:today|utcnow|time_ns|localtime)\(|time\.time\(")
    readers = [
        path.name
        for package in contract.__path__
        for path in sorted(Path(package).glob("*.py"))
        for _ in wall_clock.findall(path.read_text())
    ]
    assert readers == ["clock.py"]

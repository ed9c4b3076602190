"""From sums in the worker's file to a review item: what changed, where, since when, and what went
live before it."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from benchmarks.kpi_worlds import A_DAY, Fault, Floats, World, simulate
from contract.clock import FixedClock, from_us, to_us
from contract.rollout import ROLLOUT, Rollout
from serving.experiments.rollup import Rollup
from serving.monitoring import anomaly
from serving.monitoring.alarms import KpiAlarms
from serving.monitoring.anomaly import Signal, critical, deviation, fit, scan, since_bucket
from serving.monitoring.anomaly_signals import WATCHED
from serving.monitoring.kpi_metrics import COUNTERS, PLACE
from serving.monitoring.kpis import FILE, HOUR, MINUTES_5
from serving.monitoring.shop_hours import ShopHours
from serving.state.audit import Actor
from serving.state.sql_control_store import SqlControlStore
from tests.serving.state.control_places import in_sqlite

MONDAY = datetime(2026, 9, 7, tzinfo=UTC)
BY_UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
DAYS = 17
WORLD = World(400_000.0, promotions_a_week=0.0)
NOON = (DAYS - 1) * A_DAY + 48


def filled(
    path: Path,
    faults: Sequence[Fault],
    world: World = WORLD,
    monday: datetime = MONDAY,
    zone: ZoneInfo = BY_UTC,
    fine_days: int = 3,
) -> None:
    """A worker's file with a simulated shop in it, whose days go by the clock of `zone`. From
    `monday` on, which is a midnight there."""
    made = simulate(world, DAYS, np.random.default_rng(5), faults)
    origin = to_us(monday)
    quarters = origin + np.arange(DAYS * A_DAY) * 3 * MINUTES_5
    places = [by_the_wall(from_us(int(one)), zone, monday) for one in quarters]
    kept = [place for place in places if place < DAYS * A_DAY]
    some = (where for where in made if where[0] in ("all", "device", "country"))
    slices = {where: made[where][kept] for where in some}
    rollup = Rollup(path)
    marks = ", ".join("?" * (4 + len(COUNTERS)))
    insert = f"INSERT INTO kpi_sums (grain, cut, value, start_us, {', '.join(COUNTERS)}) "
    with closing(rollup):
        for (cut, value), counters in slices.items():
            by_hour: dict[int, Floats] = {}
            for at_us, row in zip(quarters.tolist(), counters, strict=False):
                start = at_us // HOUR * HOUR
                by_hour[start] = by_hour.get(start, 0) + row
            first = len(counters) - fine_days * A_DAY
            rows = [(HOUR, cut, value, start, *row) for start, row in by_hour.items()]
            rows += [
                (MINUTES_5, cut, value, at_us, *row)
                for at_us, row in zip(quarters.tolist()[first:], counters[first:], strict=False)
            ]
            rollup.file.executemany(
                f"{insert} VALUES ({marks})", [tuple(map(float_or_same, row)) for row in rows]
            )
            span = (cut, value, origin, origin + DAYS * 24 * HOUR - MINUTES_5)
            rollup.file.execute("INSERT INTO kpi_slices VALUES (?, ?, ?, ?)", span)


def by_the_wall(moment: datetime, zone: ZoneInfo, monday: datetime) -> int:
    """How many quarters of an hour the clocks there show since that Monday."""
    shown = [one.astimezone(zone).replace(tzinfo=None) for one in (moment, monday)]
    return int((shown[0] - shown[1]) / timedelta(minutes=15))


def float_or_same(value: object) -> object:
    return float(value) if isinstance(value, np.floating) else value


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(MONDAY + timedelta(days=DAYS - 1, hours=14, minutes=2))


@pytest.fixture
def store(tmp_path: Path, clock: FixedClock) -> Iterator[SqlControlStore]:
    opened = in_sqlite(tmp_path).open(clock=clock)
    yield opened
    opened.close()


def watcher(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock, zone: ZoneInfo = BY_UTC
) -> KpiAlarms:
    registry, hours = CollectorRegistry(), ShopHours(zone)
    return KpiAlarms(tmp_path / FILE, store, tmp_path / "releases", clock, registry, hours)


def test_a_drop_is_one_item_with_where_since_when_and_what_went_live(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    filled(tmp_path / FILE, [Fault("drop", NOON, 10**6, 0.5, ("device", "mobile"))])
    (tmp_path / "releases").mkdir()
    live_at = MONDAY + timedelta(days=DAYS - 1, hours=11, minutes=55)
    rollout = Rollout().promoted(None, "r-2", live_at)
    (tmp_path / "releases" / ROLLOUT).write_bytes(rollout.as_bytes())
    (tmp_path / "releases" / "current").write_text("r-2\n")
    anna, now = Actor("anna", "admin"), clock.at
    clock.at = live_at - timedelta(hours=1)
    asyncio.run(store.put_document("rules", "{}", 0, anna, "autumn"))
    clock.at = MONDAY
    asyncio.run(store.put_document("offers", "{}", 0, anna, "long ago"))
    clock.at = now
    watching = watcher(tmp_path, store, clock)
    watching.look()
    watching.look()
    (review,) = store.reviews("open")
    found = review.finding
    assert found.metric in ("conversion", "revenue_per_decision", "abandonment", "take_rate")
    assert found.key == found.metric
    assert found.slices == {}
    assert "than expected" in found.title
    assert None not in (found.expected, found.seen, found.low, found.high)
    assert abs(found.since - (MONDAY + timedelta(days=DAYS - 1, hours=12))) <= timedelta(minutes=30)
    mobile = found.contributions[0]
    assert (mobile.dimension, mobile.value) == ("device", "mobile")
    assert mobile.share == pytest.approx(1.0, abs=0.35)
    assert {(one.kind, one.name) for one in found.before} == {
        ("release", "r-2"), ("rules", "version 1")
    }  # fmt: skip
    assert found.before[0].kind == "release"
    assert "mobile" in str(found.detail["also"])
    lines = [json.loads(line.text) for line in store.audit_log()[0]]
    assert [one["by"]["key_id"] for one in lines if one["action"] == "review.opened"] == ["worker"]


def test_it_looks_at_the_last_whole_five_minutes(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    filled(tmp_path / FILE, [Fault("drop", NOON, 10**6, 0.5)])
    clock.at += timedelta(minutes=5)  # 14:07
    watcher(tmp_path, store, clock).look()
    (review,) = store.reviews("open")
    found, noon = review.finding, MONDAY + timedelta(days=DAYS - 1, hours=12)
    assert found.seen_at == noon + timedelta(hours=2, minutes=5)
    assert found.since.minute % 15 == 5
    assert abs(found.since - noon) <= timedelta(minutes=15)
    assert found.seen is not None
    assert found.expected is not None
    assert found.seen / found.expected == pytest.approx(0.5, abs=0.05)


def test_a_slice_that_is_gone_is_named(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    filled(tmp_path / FILE, [Fault("dead slice", NOON, 10**6, 1.0, ("country", "CH"))])
    watcher(tmp_path, store, clock).look()
    gone = [one.finding for one in store.reviews("open") if one.finding.metric == "decisions"]
    assert [one.slices for one in gone] == [{"country": "CH"}]
    assert "Hardly any decisions for country CH" in gone[0].title


def test_of_many_values_the_largest_are_watched_whoever_was_seen_last(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    filled(tmp_path / FILE, [])
    before, after = (CollectorRegistry() for _ in range(2))
    places = tmp_path / FILE, store, tmp_path / "releases", clock
    alarms = KpiAlarms(*places, before)
    assert alarms.look() == []
    last = to_us(MONDAY) + DAYS * 24 * HOUR
    rare = [(f"rare-{n}", last - HOUR, last) for n in range(12)]
    with closing(Rollup(tmp_path / FILE)) as rollup:
        rollup.file.executemany("INSERT INTO kpi_slices VALUES ('country', ?, ?, ?)", rare)
    assert alarms.look() == []  # nobody is missed because others came after them
    assert KpiAlarms(*places, after).look() == []
    watched = [one.get_sample_value("tillwise_alarm_series") for one in (before, after)]
    assert watched[0] == watched[1]


# People buy by night as they never do by day; it shows wherever hours are an hour off.
NIGHTLY = replace(WORLD, conversion_by_hour=0.9)
BEFORE_SUMMER_ENDS = datetime(2026, 10, 12, tzinfo=BERLIN)
BEFORE_SUMMER_BEGINS = datetime(2026, 3, 16, tzinfo=BERLIN)


def found_in_a_day(watching: KpiAlarms, clock: FixedClock, monday: datetime) -> set[str]:
    found = set()
    for hour in range(1, 25, 4):
        clock.at = (monday + timedelta(days=DAYS - 1, hours=hour, minutes=2)).astimezone(UTC)
        found |= {one.metric for one in watching.look()}
    return found


@pytest.mark.parametrize("monday", [BEFORE_SUMMER_BEGINS, BEFORE_SUMMER_ENDS])
def test_when_clocks_change_the_day_goes_on_by_the_shops_clock(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock, monday: datetime
) -> None:
    filled(tmp_path / FILE, [], NIGHTLY, monday, BERLIN)
    watching = watcher(tmp_path, store, clock, BERLIN)
    assert found_in_a_day(watching, clock, monday) == set()


def test_by_the_clock_of_utc_the_same_days_are_an_alarm(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    """What the shop's time zone is for."""
    filled(tmp_path / FILE, [], NIGHTLY, BEFORE_SUMMER_ENDS, BERLIN)
    found = found_in_a_day(watcher(tmp_path, store, clock), clock, BEFORE_SUMMER_ENDS)
    assert {WATCHED[one].family for one in found} == {"sales"}


@pytest.mark.parametrize("monday", [BEFORE_SUMMER_BEGINS, BEFORE_SUMMER_ENDS])
def test_a_drop_after_the_clocks_changed_is_told_with_the_right_moment(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock, monday: datetime
) -> None:
    filled(tmp_path / FILE, [Fault("drop", NOON, 10**6, 0.5)], NIGHTLY, monday, BERLIN)
    noon = (monday + timedelta(days=DAYS - 1, hours=12)).astimezone(UTC)
    clock.at = noon + timedelta(hours=2, minutes=2)
    (found,) = watcher(tmp_path, store, clock, BERLIN).look()
    assert found.seen_at == noon + timedelta(hours=2)
    assert abs(found.since - noon) <= timedelta(minutes=15)
    assert found.seen is not None
    assert found.expected is not None
    assert found.seen / found.expected == pytest.approx(0.5, abs=0.05)


def test_where_clocks_are_half_an_hour_off_the_hours_are_the_shops_too(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    delhi = ZoneInfo("Asia/Kolkata")
    monday = datetime(2026, 9, 7, tzinfo=delhi)
    filled(tmp_path / FILE, [Fault("drop", NOON, 10**6, 0.5)], NIGHTLY, monday, delhi, DAYS)
    noon = (monday + timedelta(days=DAYS - 1, hours=12)).astimezone(UTC)
    clock.at = noon - timedelta(hours=2)
    watching = watcher(tmp_path, store, clock, delhi)
    assert watching.look() == []
    clock.at = noon + timedelta(hours=2, minutes=2)
    assert [one.key for one in watching.look()]


def test_slow_answers_are_told_against_what_is_usual(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    filled(tmp_path / FILE, [Fault("latency", NOON, 10**6, 1.6)])
    watcher(tmp_path, store, clock).look()
    (review,) = store.reviews("open")
    assert review.finding.key == "latency_ms"
    assert review.finding.detail["slower_than_ms"] in (10.0, 15.0)


def test_nothing_wrong_is_no_item_and_an_alarm_ends(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    filled(tmp_path / FILE, [Fault("drop", NOON, NOON + 8, 0.5)])
    watching = watcher(tmp_path, store, clock)
    clock.at -= timedelta(hours=4)
    assert watching.look() == []
    clock.at += timedelta(hours=4)
    assert [one.key for one in watching.look()]
    clock.at += timedelta(hours=9)
    watching.look()
    (review,) = store.reviews()
    assert review.ended_at is None  # a day's window still holds it
    clock.at -= timedelta(hours=20)
    assert watching.look() == []


def test_without_a_file_or_with_a_young_one_nothing_is_said(
    tmp_path: Path, store: SqlControlStore, clock: FixedClock
) -> None:
    watching = watcher(tmp_path, store, clock)
    assert watching.look() == []
    Rollup(tmp_path / FILE).close()
    assert watching.look() == []
    clock.at = MONDAY + timedelta(days=14)
    filled(tmp_path / FILE, [])
    assert watching.look() == []


def test_deviation_by_hand() -> None:
    """80 of 100: sqrt(2 * (80 ln .8 + 20)) = 2.07 below; a variance of .01 beside adds E * .01."""
    z, ratio = deviation(80.0, 100.0, 1.0, 0.0)
    assert z == pytest.approx(-np.sqrt(2 * (80 * np.log(0.8) + 20)))
    assert ratio == pytest.approx(np.log(80.5 / 100.5))
    assert deviation(80.0, 100.0, 1.0, 0.01)[0] == pytest.approx(z / np.sqrt(2))
    assert deviation(5.0, 0.0, 1.0, 0.0) == (0.0, 0.0)


def test_a_fit_knows_season_and_trend_and_is_not_moved_by_a_promotion() -> None:
    rng = np.random.default_rng(2)
    hours = np.arange(28 * 24)
    shape = 1 + 0.3 * np.cos(hours % 24 / 24 * 2 * np.pi)
    weekend = np.where(hours // 24 % 7 >= 5, 0.8, 1.0)
    trend = np.exp(0.02 * hours / 168)
    chance = 0.05 * shape * weekend * trend
    chance[10 * 24 : 11 * 24] *= 1.5
    n = np.full(len(hours), 20_000.0)
    baseline = fit(Signal(rng.binomial(20_000, chance).astype(float), n, 0.95))
    assert baseline is not None
    day = baseline.expected(np.full(A_DAY, 5_000.0), np.arange(28.0 * A_DAY, 29.0 * A_DAY))
    by_hour = 1 + 0.3 * np.cos((np.arange(A_DAY) / 4 + 0.125 - 0.5) / 24 * 2 * np.pi)
    truth = 0.05 * 5_000 * by_hour * np.exp(0.02 * 4)
    assert day == pytest.approx(truth, rel=0.06)
    assert day.sum() == pytest.approx(truth.sum(), rel=0.02)
    assert fit(Signal(np.ones(13 * 24), np.ones(13 * 24), 1.0)) is None
    assert fit(Signal(np.zeros(28 * 24), n, 1.0)) is None
    rare = fit(Signal(np.zeros(28 * 24), n, 1.0), rare=True)
    assert rare is not None
    assert rare.rate == pytest.approx(1 / n.sum())


def test_a_scan_looks_one_way_and_says_since_when() -> None:
    rng = np.random.default_rng(4)
    n = np.full(28 * 24, 20_000.0)
    baseline = fit(Signal(rng.binomial(20_000, 0.05, 28 * 24).astype(float), n, 0.95))
    assert baseline is not None
    k = rng.binomial(5_000, 0.05, 2 * A_DAY).astype(float)
    k[150:] = rng.binomial(5_000, 0.04, 42)
    expected = baseline.expected(np.full(2 * A_DAY, 5_000.0), np.arange(27.0 * A_DAY, 29.0 * A_DAY))
    down, up = (scan(baseline, k, expected, way, 0.03) for way in (-1, 1))
    high = critical(0.4, 100)
    assert down.z[:150].max() < high < down.z[155]
    assert up.z.max() < high
    assert abs(since_bucket(baseline, k, expected, -1) - 150) <= 1
    assert anomaly.critical(0.4, 1_000) > high > anomaly.critical(0.4, 10)


def test_what_one_hour_tells_of_a_day_is_doubted_more_than_what_six_do() -> None:
    """Hours are 2 % off their day's level. The first was 1.1 times the usual, then it is usual: a
    level of one hour is as doubtful as two of the four hours that `within2` is told of."""
    n = np.full(28 * 24, 20_000.0)
    fitted = fit(Signal(np.tile([980.0, 1_020.0], 14 * 24), n, 0.95))
    assert fitted is not None
    line, tau2 = replace(fitted.line, variance=0.0), (9.0,) * 4
    baseline = replace(fitted, within2=0.0004, tau2=tau2, line=line, phi=1.0)
    expected = np.full(A_DAY, 1_000.0)
    k = expected.copy()
    k[:4] *= 1.1
    early = scan(baseline, k, expected, -1, 0.0).z[4 + 7]
    z, _ = deviation(8_000.0, 8_800.0, 1.0, 3 * 0.0004 + 1 / 4_400)
    assert early == pytest.approx(-z)
    k[:24] = 1_100.0
    z, _ = deviation(8_000.0, 8_800.0, 1.0, 1.5 * 0.0004 + 1 / 26_400)
    assert scan(baseline, k, expected, -1, 0.0).z[24 + 7] == pytest.approx(-z)


def test_orders_of_which_nobody_says_the_worth_move_no_order_value() -> None:
    counters = np.zeros((2, len(COUNTERS)))
    for name, told in {"orders": (4, 40), "valued": (4, 4), "revenue": (400, 400)}.items():
        counters[:, PLACE[name]] = told
    counters[:, PLACE["revenue_squares"]] = 4 * 125.0**2
    watched = WATCHED["order_value"]
    scale = watched.scaled(counters)
    assert scale == 100.0
    assert watched.phi(counters, scale) == pytest.approx(1.25**2 - 1)
    signal = watched.signal(counters, counters, scale, 1.0)
    assert (signal.k / signal.n).tolist() == [1.0, 1.0]

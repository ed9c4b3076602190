"""Fairness over time: a place that falls behind is one review item; chance, and what was so all
along, is none."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from contract.clock import FixedClock, to_us
from serving.experiments.rollup import Rollup
from serving.monitoring.fairness_watch import (
    BEFORE_DAYS,
    WEEK_DAYS,
    Daily,
    FairnessWatch,
    _quantile_of_t,
    moved,
)
from serving.monitoring.kpi_metrics import COUNTERS
from serving.monitoring.kpis import DAY, FILE
from serving.monitoring.visits import decided
from serving.state.sql_control_store import SqlControlStore
from tests.contract.examples import PROVE
from tests.contract.examples import event as made_event
from tests.serving.state.control_places import in_sqlite

DAYS = BEFORE_DAYS + WEEK_DAYS
NOW = datetime(2026, 10, 12, 9, 30, tzinfo=UTC)
START = to_us(NOW) // DAY * DAY - DAYS * DAY
Rates = Mapping[str, tuple[float, float]]  # of a group: before, and in the last week


def shop(rates: Rates, rng: np.random.Generator, visits: float = 400.0) -> dict[str, Daily]:
    """Days of decisions; how often it happens goes up and down with the day, for all alike."""
    weather = rng.normal(1.0, 0.15, DAYS).clip(0.5, 1.5)
    found = {}
    for group, (before, after) in rates.items():
        decisions = rng.poisson(visits, DAYS).astype(np.float64)
        rate = np.repeat([before, after], [BEFORE_DAYS, WEEK_DAYS]) * weather
        happened = rng.binomial(decisions.astype(int), rate.clip(0, 1)).astype(np.float64)
        found[group] = Daily(happened, decisions)
    return found


def filled(path: Path, by: Mapping[str, Mapping[str, Daily]], measure: str = "offered") -> None:
    """A worker's file with these days in it."""
    marks = ", ".join("?" * (4 + len(COUNTERS)))
    with closing(Rollup(path)) as rollup:
        for cut, groups in by.items():
            for value, one in groups.items():
                for day in range(DAYS):
                    row = dict.fromkeys(COUNTERS, 0.0)
                    row |= {"decisions": one.decisions[day], measure: one.happened[day]}
                    told = (DAY, cut, value, START + day * DAY, *map(float, row.values()))
                    rollup.file.execute(
                        "INSERT INTO kpi_sums (grain, cut, value, start_us, "
                        f"{', '.join(COUNTERS)}) VALUES ({marks})",
                        told,
                    )
                span = (cut, value, START, START + DAYS * DAY - 1)
                rollup.file.execute("INSERT INTO kpi_slices VALUES (?, ?, ?, ?)", span)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlControlStore]:
    opened = in_sqlite(tmp_path).open(clock=FixedClock(NOW))
    yield opened
    opened.close()


def test_a_region_that_is_offered_less_than_before_is_one_review_item(
    tmp_path: Path, store: SqlControlStore
) -> None:
    rng = np.random.default_rng(1)
    regions = shop({"east": (0.3, 0.18), "west": (0.3, 0.3), "south": (0.2, 0.2)}, rng)
    devices = shop({"mobile": (0.3, 0.3), "desktop": (0.2, 0.2)}, rng)
    filled(tmp_path / FILE, {"region": regions, "device": devices})
    watch = FairnessWatch(tmp_path / FILE, store, tmp_path / "releases", FixedClock(NOW))
    (found,) = watch.look()
    assert found.key == "fairness/offered/region/east"
    assert (found.source, found.slices) == ("fairness", {"region": "east"})
    assert "offered something less" in found.title
    assert found.seen is not None
    assert found.low is not None
    assert found.expected is not None
    assert found.seen < found.low < found.expected
    assert found.since == NOW.replace(hour=0, minute=0) - timedelta(days=7)
    assert watch.look() != []  # while it lasts it is one
    (item,) = store.reviews("open")
    assert item.finding.key == found.key
    later = FairnessWatch(tmp_path / "none", store, tmp_path / "releases", FixedClock(NOW))
    assert later.look() == []


def test_fewer_full_answers_for_a_device_are_found_too(
    tmp_path: Path, store: SqlControlStore
) -> None:
    rng = np.random.default_rng(2)
    devices = shop({"mobile": (0.6, 0.35), "desktop": (0.6, 0.6), "tablet": (0.6, 0.6)}, rng)
    filled(tmp_path / FILE, {"device": devices}, "rung_full")
    watch = FairnessWatch(tmp_path / FILE, store, tmp_path / "releases", FixedClock(NOW))
    (found,) = watch.look()
    assert found.key == "fairness/rung_full/device/mobile"
    assert "answered in full less" in found.title


@pytest.mark.parametrize(
    ("rates", "visits"),
    [
        ({"east": (0.1, 0.1), "west": (0.3, 0.3)}, 400.0),  # unequal all along: the audit's to say
        ({"east": (0.3, 0.15), "west": (0.3, 0.15)}, 400.0),  # less for everybody alike
        ({"east": (0.3, 0.27), "west": (0.3, 0.3)}, 4_000.0),  # proven, and small
        ({"east": (0.3, 0.1), "west": (0.3, 0.3)}, 20.0),  # of hardly anybody
        ({"east": (0.0, 0.0), "west": (0.0, 0.0)}, 400.0),  # no offers at all
        ({"east": (0.3, 0.1)}, 400.0),  # nobody to compare with
    ],
)
def test_what_is_no_change_between_groups_is_not_told(rates: Rates, visits: float) -> None:
    groups = shop(rates, np.random.default_rng(3), visits)
    assert list(moved(groups, "region", "offered", 0.01)) == []


def test_without_a_change_it_is_quiet_and_a_large_one_is_found() -> None:
    rounds = 4_000 if PROVE else 300
    alike = {f"r{n}": (0.2, 0.2) for n in range(5)}
    behind = alike | {"r0": (0.2, 0.1)}
    rng = np.random.default_rng(4)
    false = sum(any(moved(shop(alike, rng), "region", "offered", 0.01 / 10)) for _ in range(rounds))
    found = sum(
        any(one.group == "r0" for one in moved(shop(behind, rng), "region", "offered", 0.01 / 10))
        for _ in range(rounds)
    )
    assert false <= 0.01 * rounds
    assert found >= 0.99 * rounds


@pytest.mark.parametrize(
    ("share", "expected"), [(0.975, 2.0345), (0.995, 2.7333), (0.9995, 3.6109)]
)
def test_students_quantile(share: float, expected: float) -> None:
    assert _quantile_of_t(share, 33) == pytest.approx(expected, rel=0.001)


def test_decisions_are_counted_by_region() -> None:
    told = made_event(1, "decision", items=(), context={"region": "west", "device": "mobile"})
    unknown = made_event(2, "decision", items=())
    body = {"rung": "full", "offers": {"arms": [{"shown": True}]}}
    for one, regions in ((told, ["west"]), (unknown, [])):
        ((_, where, _),) = decided(one, to_us(one.occurred_at), body)
        assert [value for cut, value in where if cut == "region"] == regions

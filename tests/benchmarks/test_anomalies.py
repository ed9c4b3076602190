"""The benchmark of alarms: bad input is said, and its worlds have in them what was planted."""

import numpy as np
import pytest

from benchmarks import anomalies
from benchmarks.kpi_worlds import A_DAY, Fault, World, simulate
from serving.monitoring.kpi_metrics import PLACE


def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert anomalies.main(["--shops", "0"]) == 2
    assert anomalies.main(["--traffic", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    ("fault", "counter", "under", "factor"),
    [
        (Fault("drop", 96.0, 192.0, 0.2), "converted", "visits", 0.8),
        (Fault("value drop", 96.0, 192.0, 0.1), "revenue", "orders", 0.9),
        (Fault("dead slice", 96.0, 192.0, 1.0), "visits", None, 0.0),
    ],
)
def test_a_planted_fault_is_there_and_only_while_it_lasts(
    fault: Fault, counter: str, under: str | None, factor: float
) -> None:
    world = World(500_000.0, daily_conversion=0, hourly_conversion=0, promotions_a_week=0)
    counters = simulate(world, 3, np.random.default_rng(1), [fault])["all", ""]
    days = counters.reshape(3, A_DAY, -1).sum(axis=1)
    found = days[:, PLACE[counter]] / (1 if under is None else days[:, PLACE[under]])
    assert found[1] / found[[0, 2]].mean() == pytest.approx(factor, abs=0.03)


def test_part_of_a_bucket_is_part_of_the_fault() -> None:
    strength = Fault("drop", 1.25, 3.0, 0.1).strength(4)
    assert strength.tolist() == [0.0, 0.75, 1.0, 0.0]


def test_fine_buckets_hold_the_same_shop() -> None:
    world = World(500_000.0, daily_conversion=0, hourly_conversion=0, promotions_a_week=0)
    fault = Fault("drop", 96.5, 192.0, 0.2)
    whole, parts = (
        simulate(world, 3, np.random.default_rng(1), [fault], fine)["all", ""] for fine in (1, 3)
    )
    assert len(parts) == 3 * len(whole)
    for name in ("visits", "orders", "revenue"):
        days = (one[:, PLACE[name]].reshape(3, -1).sum(axis=1) for one in (whole, parts))
        usual, fine = days
        assert fine == pytest.approx(usual, rel=0.15)  # a day's traffic is drawn anew
    days = parts.reshape(3, 3 * A_DAY, -1).sum(axis=1)
    share = days[:, PLACE["converted"]] / days[:, PLACE["visits"]]
    assert share[1] / share[[0, 2]].mean() == pytest.approx(0.8, abs=0.03)
    assert fault.strength(3 * 3 * A_DAY, 3)[288:291].tolist() == [0.0, 0.5, 1.0]
    assert parts[:, PLACE["orders"]].sum() > 0.99 * parts[:, PLACE["converted"]].sum()


def test_what_was_found_is_told_to_five_minutes() -> None:
    at = anomalies.LEARNED * A_DAY + 10.5  # in the middle of a part
    fault = Fault("drop", at, at + 16, 0.1)
    fast = np.zeros((1, (anomalies.DAYS - anomalies.LEARNED) * A_DAY * anomalies.FINE), bool)
    seen = anomalies.Seen([("conversion", ("all", ""))], fast, np.zeros((1, 28), bool))
    orders = np.full(anomalies.DAYS * A_DAY * anomalies.FINE, 2.0)
    assert anomalies._told(fault, seen, orders).minutes is None
    fast[0, 31 + 5] = True
    told = anomalies._told(fault, seen, orders)
    assert told.minutes == 27.5
    assert told.orders == 48
    assert told.in_time

"""The table of paced days tells apart what a pace missed from what could not be spent."""

from dataclasses import replace

import numpy as np
import pytest

from contract.figures import Figures
from contract.pacing import Plan, Traffic
from tests.training.uplift.test_uplift import planted
from training.data.offer_log import Ints
from training.evaluation import pacing, pacing_table
from training.evaluation.pacing import DAY_S, Demand, draw_day
from training.evaluation.pacing_table import NAMES, USUAL, Shop, _budget, add_rows, run_days


@pytest.fixture(autouse=True)
def a_day_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that counts for nothing is enough to know what is usual, a week takes its time."""
    monkeypatch.setattr(pacing_table, "DAYS_LOOKED_AT", 1)


@pytest.fixture(scope="module")
def demand() -> Demand:
    log, truth = planted(3_000)
    evenly = replace(log, decided_us=np.arange(len(log)) * (DAY_S * 1_000_000 // len(log)))
    return Demand.of(evenly, truth, truth)


def table(demand: Demand, amount: int) -> dict[str, dict[str, list[float]]]:
    everybody: Ints = np.ones(len(demand.gain), np.int64)
    shop, rng = Shop(demand, everybody), np.random.default_rng(1)
    days = [run_days(rng, shop, amount, 1, shocks=False) for _ in range(2)]
    figures = Figures("pacing")
    add_rows(figures, "days", days)
    return {
        row["name"]: {name: one["values"] for name, one in row["metrics"].items()}
        for row in figures.rows
    }


def test_what_any_pace_could_spend_is_spent(demand: Demand) -> None:
    amount = _budget(np.random.default_rng(0), demand)
    found = table(demand, amount)
    assert set(found) == {"days/oracle", *(f"days/{name}" for name in NAMES)}
    ours = found["days/tillwise"]
    assert ours["days oracle spends it"] == ours["days any pace could"] == [1.0, 1.0]
    assert ours["days oracle could, bound alike"] == [1.0, 1.0]
    assert ours["of these near"] == ours["of these within 2 %"]
    assert sum(ours["of these near"]) >= 1
    assert ours["days over budget"] == ours["floor broken"] == [0.0, 0.0]


def test_what_no_pace_could_spend_is_told(demand: Demand) -> None:
    """The oracle's wish is spent by nobody of whom some are held out and some were shown enough."""
    day = draw_day(np.random.default_rng(2), demand, USUAL, shocks=False)
    gain, allowed = demand.true_gain[day.rows], demand.allowed[day.rows]
    wish = np.where(allowed, gain, -np.inf).argmax(1)
    amount = round(0.97 * demand.true_cost[day.rows, wish].sum())
    ours = table(demand, amount)["days/tillwise"]
    assert ours["days any pace could"] == ours["days oracle could, bound alike"] == [0.0, 0.0]
    assert ours["of these near"] == [0.0, 0.0]


def test_a_network_that_offers_nobody_anything_is_told_from_a_pace(demand: Demand) -> None:
    blind = replace(demand, gain=np.full_like(demand.gain, -1.0))
    amount = _budget(np.random.default_rng(0), demand)
    ours = table(blind, amount)["days/tillwise"]
    assert ours["days oracle could, bound alike"] == [1.0, 1.0]
    assert ours["days any pace could"] == [0.0, 0.0]


def test_the_price_is_that_of_the_contracts_plan(
    demand: Demand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is simulated is what gateways run: a plan that has nothing spent has nothing spent."""
    prohibitive = Plan(1e9, 0, Traffic(0, 0.0, 1.0))
    monkeypatch.setattr(pacing, "plan", lambda *_, **__: prohibitive)
    amount = _budget(np.random.default_rng(0), demand)
    assert table(demand, amount)["days/tillwise"]["spent of budget"] == [0.0, 0.0]

"""Off-policy evaluation against a truth that the estimators do not see. `TILLWISE_PROVE` draws a
thousand logs; `benchmark off-policy` does so from simulated shoppers."""

import os

import numpy as np
import pytest

from contract.figures import Figures
from training.data.offer_log import Floats, OfferLog
from training.evaluation.off_policy import (
    Judgement,
    Terms,
    always,
    as_logged,
    chances,
    earned,
    outcome_model,
)
from training.evaluation.off_policy_table import coverage, policies, redrawn

SEEDS = 1_000 if os.environ.get("TILLWISE_PROVE") else 60
ARMS = ("none", "five", "thirty")


def _world(seed: int = 0, people: int = 1_000) -> tuple[OfferLog, Floats]:
    """People of one to five checkouts, whom an offer moves more the more they look at prices."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(people), rng.integers(1, 6, people))
    size = len(subject)
    careful = rng.standard_normal(people)[subject]
    features = np.stack([careful, rng.standard_normal(size)], axis=1).astype(np.float32)
    value = np.round(np.exp(rng.normal(7.5, 0.4, size))).astype(np.float64)
    shift = np.outer(np.maximum(careful, 0.0), [0.0, 1.5, 2.2])
    truth = 1 / (1 + np.exp(-(-0.4 - 0.3 * careful[:, None] + shift)))
    propensity = np.where(careful[:, None] > 0, [0.5, 0.25, 0.25], [0.7, 0.2, 0.1])
    arm = (propensity.cumsum(1) < rng.random((size, 1))).sum(1)
    outcome = (rng.random(size) < truth[np.arange(size), arm]).astype(np.float64)
    log = OfferLog(
        arms=ARMS,
        features=features,
        feature_names=("careful", "noise"),
        subject=subject,
        decided_us=np.arange(size),
        arm=arm,
        propensity=propensity,
        outcome=outcome,
        spend=outcome * value,
        value=value,
        margin=np.round(0.5 * value),
        reduction=np.stack([0 * value, np.floor(value / 20), np.floor(0.3 * value)], axis=1),
    )
    return log, truth


@pytest.fixture(scope="module")
def world() -> tuple[OfferLog, Floats]:
    return _world()


def test_intervals_cover_the_truth(world: tuple[OfferLog, Floats]) -> None:
    log, truth = world
    # Of so many seeds, what 93 to 97 % of a thousand would allow by chance as well.
    slack = 0.02 if SEEDS >= 1_000 else 0.09
    for name, rows in coverage(log, truth, policies(log), SEEDS, 400).items():
        for estimator in ("IPS", "SNIPS", "DR"):
            off, covered = rows[estimator]["off"], float(np.mean(rows[estimator]["covered"]))
            assert abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(SEEDS), (name, estimator)
            assert 0.95 - slack <= covered <= min(0.95 + slack, 1.0), (name, estimator, covered)


def test_a_model_narrows_the_estimate(world: tuple[OfferLog, Floats]) -> None:
    log, truth = world
    rows = coverage(log, truth, {"greedy": policies(log)["greedy"]}, 10, 400)["greedy"]
    assert np.mean(rows["DR"]["width"]) < np.mean(rows["IPS"]["width"])


def test_wrong_propensities_are_wrong(world: tuple[OfferLog, Floats]) -> None:
    """The check can fail: with equal chances instead of those on record IPS is off."""
    log, truth = world
    target = always(log, "thirty")
    fair = OfferLog(**{**vars(log), "propensity": np.full_like(log.propensity, 1 / 3)})
    judged = Judgement.of(fair, target, truth)
    assert any(text.startswith("mean weight") for text in judged.overlap.warnings)
    assert judged.truth is not None
    assert abs(judged.estimates["IPS"].value / judged.truth - 1) > 0.2


def test_the_best_policy_is_seen_to_be_better(world: tuple[OfferLog, Floats]) -> None:
    log, truth = world
    judged = Judgement.of(log, policies(log)["greedy"], truth)
    assert judged.truth is not None
    assert judged.logging_truth is not None
    lead = judged.leads["DR"]
    assert lead.low <= judged.truth - judged.logging_truth <= lead.high
    assert lead.low > 0
    assert "it earns more" in judged.verdict


def test_giving_everybody_the_dearest_is_seen_to_be_worse(world: tuple[OfferLog, Floats]) -> None:
    log, _ = world
    assert "it earns less" in Judgement.of(log, always(log, "thirty")).verdict


def test_the_models_word_is_of_others(world: tuple[OfferLog, Floats]) -> None:
    """Turning one person's outcomes round does not move what is told of that person."""
    log, _ = world
    before = outcome_model(log)
    own = log.subject == 7
    turned = OfferLog(**{**vars(log), "outcome": np.where(own, 1 - log.outcome, log.outcome)})
    after = outcome_model(turned)
    assert np.array_equal(before[own], after[own])
    assert not np.array_equal(before[~own], after[~own])


def test_terms_bound_the_policy(world: tuple[OfferLog, Floats]) -> None:
    log, truth = world
    free = chances(log, truth, Terms(holdout_share=0.1, explore_share=0.3))
    assert np.allclose(free.sum(1), 1.0)
    assert (free[:, 0] >= 0.1 + 0.3 / 3 - 1e-12).all()
    only = chances(log, truth, Terms(arms=frozenset({"five"})))
    assert only[:, 2].max() == 0.0
    dear = chances(log, truth, Terms(price=1e6))
    assert dear[:, 0].min() == 1.0
    floor = chances(log, truth, Terms(margin_floor=0.42))
    assert floor[:, 2].max() == 0.0  # 50 % less 30 % is below 42 %
    assert floor[:, 1].max() == 1.0


def test_earned_is_margin_less_what_was_given() -> None:
    log, _ = _world(people=3)
    first = log.take(np.array([0]))
    expected = first.outcome[0] * (first.margin[0] - first.reduction[0, first.arm[0]])
    assert earned(first).tolist() == [expected]


def test_redrawn_logs_have_the_true_rates(world: tuple[OfferLog, Floats]) -> None:
    log, truth = world
    drawn, rows = redrawn(log, truth, np.random.default_rng(3), 3_000)
    at = np.arange(len(drawn))
    expected = truth[rows][at, drawn.arm].mean()
    error = np.sqrt(expected * (1 - expected) / len(drawn))
    assert abs(drawn.outcome.mean() - expected) < 4 * error
    assert len(np.unique(drawn.subject)) == 3_000


def test_the_table_has_one_row_an_estimate(world: tuple[OfferLog, Floats]) -> None:
    log, truth = world
    figures = Figures("evaluate-policy")
    Judgement.of(log, always(log, "five"), truth).add_to(figures, "always five")
    names = [row["name"] for row in figures.rows]
    assert names[0] == "logging"
    assert {"always five/IPS", "always five/SNIPS", "always five/DR"} <= set(names)
    doubly = next(row for row in figures.rows if row["name"] == "always five/DR")
    assert abs(doubly["metrics"]["off"]["mean"]) < 0.15
    assert as_logged(log, always(log, "five"), None).direct is None

"""The evidence for a network's offers: what they earn on people that it has not learned from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.errors import UserError
from tests.training.uplift.test_uplift import QUICK, planted
from training.data.offer_log import OfferLog, margins
from training.gates.uplift import pays
from training.uplift.evidence import EVIDENCE, Evidence, read_evidence, write_evidence
from training.uplift.fit import fit_uplift


def dear(size: int = 1_500, taken_off: float = 0.04) -> OfferLog:
    """A short log of weak offers: they take off a share of the cart's value, and move nobody."""
    log, _ = planted(size, seed=7)
    rng = np.random.default_rng(7)
    outcome = (rng.random(size) < 0.4).astype(float)
    taken = np.where(log.reduction > 0, taken_off * log.value[:, None], 0.0)
    shared = np.arange(size) // 12  # people who each decided a dozen times
    return replace(log, outcome=outcome, spend=outcome * log.value, reduction=taken, subject=shared)


def evidence_of(log: OfferLog) -> Evidence:
    return Evidence.of(log, fit_uplift(log, QUICK, 0).out_of_fold)


def test_offers_that_pay_may_go_out() -> None:
    log, truth = planted(4_000)
    found = evidence_of(log)
    assert found.refused is None
    assert 0 < found.low < found.gain < found.high
    assert (found.decisions, found.people) == (4_000, 4_000)
    # Of the best there is: the first offer for those whom it wins, where it costs less than that.
    best = margins(log, truth)
    most = float((best.max(1) - best[:, 0]).mean())
    assert 0.7 * most < found.gain < 1.2 * most
    assert pays(found).passed
    assert pays(found).judged


def test_a_short_log_of_weak_offers_is_refused() -> None:
    found = evidence_of(dear())
    assert found.refused is not None
    assert "1,500 decisions of 125 people" in found.refused
    verdict = pays(found)
    assert not verdict.passed
    assert verdict.reason == found.refused


def test_what_is_lost_is_said() -> None:
    """An offer to everybody that moves nobody costs what it takes off: the policy is known, so the
    estimate is that."""
    log = dear(6_000, taken_off=0.25)
    told = np.tile([0.4, 0.9, 0.1], (len(log), 1))
    found = Evidence.of(log, told)
    assert found.offered == 1
    assert found.low < -0.4 * 0.25 * log.value.mean() < found.high
    assert found.high < 0
    assert "its offers lose money: -" in (found.refused or "")
    assert "`explore_share`" in (found.refused or "")


def test_twelve_decisions_of_one_person_are_not_twelve_people() -> None:
    """Every decision told twelve times over says no more than once."""
    log, _ = planted(800)
    twelve = log.take(np.repeat(np.arange(len(log)), 12))
    told = np.tile([0.4, 0.7, 0.1], (len(log), 1))
    once, often = Evidence.of(log, told), Evidence.of(twelve, np.repeat(told, 12, axis=0))
    assert often.people == once.people
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.1)


def test_offering_nothing_is_no_reason_to_go_out() -> None:
    log, _ = planted(600)
    found = Evidence.of(log, np.tile([0.4, 0.4, 0.4], (len(log), 1)))
    assert (found.gain, found.offered) == (0.0, 0.0)
    assert "it would offer nothing to anybody" in (found.refused or "")


def test_a_few_lucky_offers_show_nothing() -> None:
    """Ten people who bought with an offer make an interval that a normal distribution has not."""
    log, _ = planted(3_000)
    lucky = np.flatnonzero((log.arm == 1) & (log.outcome > 0))[:10]
    told = np.tile([0.4, 0.4, 0.4], (len(log), 1))
    told[lucky, 1] = 0.9
    found = Evidence.of(log, told)
    assert found.low > 0
    assert found.tried == 10
    assert "only 10 people were by chance offered what" in (found.refused or "")


def test_a_release_without_a_network_is_not_judged() -> None:
    verdict = pays(None)
    assert verdict.passed
    assert not verdict.judged


def test_it_lies_beside_the_weights(tmp_path: Path) -> None:
    found = Evidence(gain=1.5, low=-0.5, high=3.5, offered=0.25, decisions=10, people=4, tried=2)
    write_evidence(tmp_path, found)
    assert read_evidence(tmp_path) == found
    (tmp_path / EVIDENCE).write_text("{}")
    with pytest.raises(UserError, match="Field required"):
        read_evidence(tmp_path)

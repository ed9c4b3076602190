"""Learners and the network on planted effects, Hillstrom's reader, and the table by command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from contract.errors import UserError
from training.__main__ import main
from training.data.hillstrom import read_hillstrom
from training.data.offer_log import Floats, OfferLog, margins
from training.evaluation.uplift_table import Split, by_propensity
from training.uplift.fit import UpliftRecipe, fit_uplift, predicted
from training.uplift.learners import LEARNERS, XLearner

FEWER = ("--decisions", "1200")
QUICK = UpliftRecipe(members=2, batch_size=512)


def planted(size: int = 12_000, seed: int = 0) -> tuple[OfferLog, Floats]:
    """Two offers: the first wins those above 0 in the first feature, the second drives those away.
    Chances of the arms differ with the second feature, which also makes people buy."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(size, 4)).astype(np.float32)
    level = 0.3 + 0.2 * (features[:, 1] > 0)
    won = features[:, 0] > 0
    truth = np.stack([level, level + 0.3 * won, level - 0.2 * won], axis=1)
    busy = (features[:, 1] > 0)[:, None]
    propensity = np.where(busy, [[0.2, 0.5, 0.3]], [[0.6, 0.2, 0.2]])
    arm = (rng.random((size, 1)) > np.cumsum(propensity, axis=1)).sum(1)
    outcome = (rng.random(size) < truth[np.arange(size), arm]).astype(float)
    value = rng.uniform(1_000, 3_000, size).round()
    log = OfferLog(
        arms=("none", "first", "second"),
        features=features,
        feature_names=("a", "b", "c", "d"),
        subject=np.arange(size),
        decided_us=np.zeros(size, np.int64),
        arm=arm,
        propensity=propensity,
        outcome=outcome,
        spend=outcome * value,
        value=value,
        margin=0.5 * value,
        reduction=np.stack([0 * value, 0.1 * value, 0.1 * value], axis=1),
    )
    return log, truth


@pytest.fixture(scope="module")
def split() -> Split:
    log, truth = planted()
    return Split.of(log, truth, seed=1)


def test_splits_are_by_person() -> None:
    log, truth = planted(600)
    shared = OfferLog(**{**vars(log), "subject": np.arange(600) // 3})
    one = Split.of(shared, truth, seed=3)
    sides = [set(part.subject.tolist()) for part in (one.train, one.validation, one.test)]
    assert sum(len(side) for side in sides) == 200
    assert len(set.union(*sides)) == 200
    again = Split.of(shared, truth, seed=3)
    assert (again.test.subject == one.test.subject).all()


def test_fewer_people_to_learn_from_leave_the_test_as_it_is() -> None:
    log, truth = planted(600)
    shared = OfferLog(**{**vars(log), "subject": np.arange(600) // 3})
    whole = Split.of(shared, truth, seed=3)
    few = whole.learning_from(100)
    assert (few.test.subject == whole.test.subject).all()
    assert len(few.learned) == 99  # whole people, of three decisions each
    assert len(few.train) + len(few.validation) == 99
    assert set(few.train.subject.tolist()) < set(whole.train.subject.tolist())
    more = whole.learning_from(200)
    assert set(few.learned.subject.tolist()) < set(more.learned.subject.tolist())
    assert len(whole.learning_from(600).learned) == len(whole.learned)


def test_the_network_finds_planted_effects(split: Split) -> None:
    assert split.truth is not None
    chances, spend = predicted(fit_uplift(split.learned, QUICK, seed=0).model, split.test)
    effect, true = chances[:, 1:] - chances[:, :1], split.truth[:, 1:] - split.truth[:, :1]
    assert np.abs(effect - true).mean() < 0.07  # of no effect at all: 0.125
    assert np.abs(chances - split.truth).mean() < 0.07
    # Who buys pays what the cart is worth.
    assert spend / chances == pytest.approx(np.tile(split.test.value[:, None], 3), rel=0.2)


def test_a_teacher_steadies_what_is_learned_from_few() -> None:
    """Of a few hundred decisions with forty figures that say nothing, a network follows chance."""
    log, truth = planted(900, seed=4)
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(len(log), 40)).astype(np.float32)
    few = replace(log, features=np.concatenate([log.features, noise], axis=1))
    effect = truth[:, 1:] - truth[:, :1]
    missed = {}
    for taught in (0.0, UpliftRecipe().taught):
        recipe = UpliftRecipe(members=3, batch_size=128, taught=taught)
        told = fit_uplift(few, recipe, seed=0).out_of_fold
        missed[taught > 0] = float(np.abs(told[:, 1:] - told[:, :1] - effect).mean())
    assert missed[True] < missed[False]


def test_a_learner_without_a_row_of_an_arm_tells_no_more_than_a_mean(split: Split) -> None:
    """Small shops: nobody of the held-out people was offered the second, or nobody at all."""
    unseen = split.validation.take(split.validation.arm != 2)
    level, effect = XLearner(split.train, unseen, 0).tell(split.test)
    assert np.isfinite(level).all()
    assert np.ptp(effect[:, 0]) > 0.1
    other = split.train.take(split.train.arm != 2)
    _, effect = XLearner(other, unseen, 0).tell(split.test)
    assert np.isfinite(effect).all()


def test_the_same_seed_fits_the_same_network(split: Split) -> None:
    small = split.train.take(np.arange(600))
    recipe = UpliftRecipe(members=2, most_epochs=2)
    one, two = (fit_uplift(small, recipe, seed=5) for _ in range(2))
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name])
    assert (one.out_of_fold == two.out_of_fold).all()


def test_out_of_fold_is_told_by_who_did_not_learn_from_the_person(split: Split) -> None:
    """With the outcomes of one person turned around, what is said of that person stays."""
    small = split.train.take(np.arange(400))
    shared = OfferLog(**{**vars(small), "subject": np.arange(400) // 8})
    recipe = UpliftRecipe(members=2, most_epochs=1)  # one epoch: it is kept whatever stops it
    person = shared.subject == 7
    turned = np.where(person, 1.0 - shared.outcome, shared.outcome)
    other = OfferLog(**{**vars(shared), "outcome": turned, "spend": turned * shared.value})
    before, after = (fit_uplift(one, recipe, seed=3).out_of_fold for one in (shared, other))
    assert (before[person] == after[person]).all()
    assert not (before == after).all()
    few = shared.take(np.arange(8))
    with pytest.raises(UserError, match="decisions of 1 people; at least 2"):
        fit_uplift(few, recipe, seed=3)


def test_what_is_said_of_all_is_found_for_the_validation_people(split: Split) -> None:
    told = split.of_validation(split.learned.value)
    assert (told == split.validation.value).all()


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_finds_planted_effects(name: str, split: Split) -> None:
    assert split.truth is not None
    level, effect = LEARNERS[name](split.train, split.validation, split.test, 0)
    assert np.abs(effect - (split.truth[:, 1:] - split.truth[:, :1])).mean() < 0.08
    assert np.abs(level - split.truth[:, 0]).mean() < 0.06


def test_propensity_targets_those_who_would_buy_anyway(split: Split) -> None:
    """With effects known it gives one arm to the likeliest, however little that changes."""
    assert split.truth is not None
    checked = np.tile([0.5, 0.5, 0.5], (len(split.validation), 1))
    chosen = by_propensity(split, checked, split.truth)
    given = chosen > 0
    assert len(set(chosen[given].tolist())) == 1
    assert split.truth[given, 1].min() >= 0.5
    oracle = margins(split.test, split.truth)
    best = oracle.max(1).mean()
    assert oracle[np.arange(len(chosen)), chosen].mean() < best


def hillstrom(path: Path, size: int = 3_000, **changed: list[object]) -> Path:
    rng = np.random.default_rng(0)
    columns: dict[str, object] = {
        "recency": rng.integers(1, 13, size),
        "history": rng.exponential(200, size),
        "mens": rng.integers(0, 2, size),
        "womens": rng.integers(0, 2, size),
        "newbie": rng.integers(0, 2, size),
        "zip_code": rng.choice(["Urban", "Rural"], size),
        "channel": rng.choice(["Web", "Phone"], size),
        "segment": rng.choice(["No E-Mail", "Mens E-Mail", "Womens E-Mail"], size),
        "visit": rng.integers(0, 2, size),
        "spend": np.zeros(size),
    }
    pq.write_table(pa.table(columns | changed), path)
    return path


def test_hillstrom_is_read_as_three_arms_at_random(tmp_path: Path) -> None:
    log = read_hillstrom(hillstrom(tmp_path / "mails.parquet"))
    assert log.arms == ("none", "mens", "womens")
    assert log.propensity == pytest.approx(1 / 3)
    assert "zip_code=Rural" in log.feature_names
    assert not any("segment" in name or "visit" in name for name in log.feature_names)
    with pytest.raises(UserError, match="'Spam' is none of"):
        read_hillstrom(hillstrom(tmp_path / "other.parquet", segment=["Spam"] * 3_000))


def test_the_table_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, figures = hillstrom(tmp_path / "mails.parquet"), tmp_path / "figures.json"
    asked = ["benchmark", "uplift", "--data", str(data), "--seeds", "2"]
    assert main([*asked, "--json", str(figures), "--output", str(tmp_path)]) == 0
    told = json.loads(figures.read_text())
    rows = {row["name"]: row["metrics"] for row in told["rows"]}
    assert {"tillwise", *LEARNERS, "propensity", "nobody", "everyone/mens"} <= set(rows)
    assert len(rows["tillwise"]["AUUC"]["values"]) == 2
    for row in rows.values():
        if "policy value" in row:
            low, high = row["policy value low"]["mean"], row["policy value high"]["mean"]
            assert low < row["policy value"]["mean"] < high
    assert (tmp_path / "uplift_calibration.png").stat().st_size > 10_000
    assert "mean over the splits" in capsys.readouterr().out
    assert main(["benchmark", "uplift", "--data", str(data), "--seeds", "1", *FEWER]) == 0
    assert "learned from and chosen on: 1,200\n" in capsys.readouterr().out


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "uplift"]) == 2
    assert main(["benchmark", "uplift", "--data", str(tmp_path)]) == 2
    small = hillstrom(tmp_path / "small.parquet", 300)
    assert main(["benchmark", "uplift", "--data", str(small)]) == 2
    assert main(["benchmark", "uplift", "--data", str(small), "--decisions", "999"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert "at least 1000" in lines[2]
    assert "--decisions 999: at least 1000" in lines[3]

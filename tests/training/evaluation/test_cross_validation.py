"""Folds leave shoppers out of everything, stay inside the training time, and come in one table."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.clock import to_us
from contract.errors import UserError
from tests.training.conftest import SMALL, small_recipe
from training.__main__ import main
from training.data.source import Source
from training.evaluation.cross_validation import cross_validate, fold_of
from training.evaluation.gap import CASES, cases_between
from training.fit import Fit
from training.recommender import Recommender

FEW = ("tower_epochs=1", "tower_examples=150", "ranker_epochs=1", "ranker_examples=80")


def test_every_shopper_is_left_out_once() -> None:
    subjects = [f"shopper-{number}" for number in range(1_000)]
    fold = fold_of(subjects, 5)
    assert set(fold.tolist()) == set(range(5))
    assert np.bincount(fold).min() > 150
    assert np.array_equal(fold_of(subjects[::3], 5), fold[::3])


def test_nothing_is_learned_from_the_shoppers_of_the_fold_or_after_validation_begins(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[Source] = []
    run = Fit.run

    def watched(self: Fit) -> Recommender:
        learned.append(self.source)
        return run(self)

    monkeypatch.setattr(Fit, "run", watched)
    found = list(cross_validate(source, small_recipe(*FEW), 3, device=torch.device("cpu")))
    fold = fold_of(source.baskets.subjects, 3)
    assert sum(each.shoppers for each in found) == len(source.baskets.subjects)
    for number, (each, used) in enumerate(zip(found, learned, strict=True)):
        assert not (fold[used.baskets.subject] == number).any()
        assert used.window.train_until == source.window.validate_from
        assert used.window.test_until == source.window.train_until
        assert each.cases > 0
        assert 0 <= each.metrics["NDCG@5"] <= each.metrics["HR@5"] <= 1


@pytest.mark.parametrize("folds", [1, -2, 61])
def test_folds_that_cannot_be_are_refused(source: Source, folds: int) -> None:
    with pytest.raises(UserError, match=rf"--folds {folds}: from 2 to 60"):
        next(cross_validate(source, small_recipe(), folds, device=torch.device("cpu")))


def test_fit_prints_a_row_per_fold_and_then_fits(
    shop_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for text in (*SMALL, *FEW) for part in ("--set", text)]
    command = ["fit", "--data", str(shop_folder), "--recipe", "demo", "--output"]
    assert main([*command, str(tmp_path / "run"), "--folds", "2", *settings, "--json"]) == 0
    rows = {row["name"]: row["metrics"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert [name for name in rows if name.startswith("fold")] == ["fold 1", "fold 2", "folds"]
    each = [rows[f"fold {number}"]["NDCG@5"]["mean"] for number in (1, 2)]
    assert rows["folds"]["NDCG@5"]["values"] == each
    assert (tmp_path / "run/run.json").exists()
    assert {"gap/train", "gap/validation"} <= set(rows)


def test_the_gap_is_asked_about_the_days_it_names(
    source: Source, fitted: tuple[Fit, Recommender]
) -> None:
    fit, _ = fitted
    assert set(fit.report.gap) == {"train", "validation"}
    cases = cases_between(
        source, fit.vocabulary, fit.ranker_us, fit.validate_us, CASES, fit.recipe.seed
    )
    times = [case.now_us for case in cases]
    assert fit.ranker_us <= min(times)
    assert max(times) < fit.validate_us
    few = cases_between(source, fit.vocabulary, fit.ranker_us, fit.validate_us, 10, 0)
    assert len(few) == 10
    assert cases_between(source, fit.vocabulary, 0, 1, CASES, 0) == []
    assert to_us(source.window.train_until) == fit.cut_us

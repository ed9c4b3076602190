"""Cross-validation of the whole pipeline inside the training time: k folds by shopper (how good for
people nothing was learned from) and by time (how good had we trained some weeks earlier). Folds fit
a lighter recipe, so their spread is what they tell, not their level."""

from dataclasses import replace
from datetime import timedelta

import torch

from contract.clock import to_us
from contract.errors import UserError
from training.data.source import Source
from training.evaluation.cross_validation import cross_validate
from training.evaluation.gap import CASES, cases_between, quality
from training.evaluation.protocols import Window
from training.fit import Fit
from training.recipes import Recipe
from training.retraining.steps import Result

LIGHTER = 4  # so many times fewer examples


def lighter(recipe: Recipe) -> Recipe:
    """`recipe` with a quarter of the examples, for the folds."""
    return replace(
        recipe,
        tower_examples=max(200, recipe.tower_examples // LIGHTER),
        tower_epochs=min(recipe.tower_epochs, 2),
        ranker_windows=1,
        ranker_examples=max(200, recipe.ranker_examples // LIGHTER),
        validation_examples=max(100, recipe.validation_examples // LIGHTER),
    )


def measured(source: Source, recipe: Recipe, folds: int, days: int, device: torch.device) -> Result:
    """`folds` by shopper, and as many earlier stretches of `days` as the history has room for, two
    at most."""
    light = lighter(recipe)
    shoppers = [
        {"name": f"shoppers {number}", "cases": one.cases, **one.metrics}
        for number, one in enumerate(
            cross_validate(source, light, folds, device=device, limit=CASES), start=1
        )
    ]
    times = []
    for number in (1, 2):
        window = _earlier(source.window, days * number, days)
        found = _in_time(source, light, window, device)
        if found is not None:
            times.append({"name": f"until {window.train_until:%Y-%m-%d}", **found})
    return {"by_shopper": shoppers, "by_time": times}


def _earlier(window: Window, back: int, days: int) -> Window:
    until = window.train_until - timedelta(days=back)
    length = window.train_until - window.validate_from
    return Window(until - length, until, until + timedelta(days=days))


def _in_time(
    source: Source, recipe: Recipe, window: Window, device: torch.device
) -> dict[str, float] | None:
    """The quality on a window of the training time, fitted before it; None on too short a
    history."""
    cut_us = to_us(window.train_until)
    earlier = replace(source, window=window)
    try:
        fit = Fit(earlier, recipe, device=device)
        recommender = fit.run()
        cases = cases_between(
            earlier, recommender.vocabulary, cut_us, to_us(window.test_until), CASES, recipe.seed
        )
    except UserError:
        return None
    if not cases:
        return None
    return {"cases": len(cases), **quality(recommender, earlier, cases, cut_us, "fold in time")}

"""k-fold cross-validation by shopper, inside the training period: how good is a recipe for shoppers
from whom nothing was learned, and how much does that differ from one part of them to the next?

Each fold leaves a share of the shoppers out of everything that is counted, fitted and chosen on.
The model is fitted as if training ended where validation begins, and asked about the left-out
shoppers' baskets of the validation days (basket-completion). The test days are not touched.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from contract.clock import to_us
from contract.errors import UserError
from contract.figures import Figures
from training.data.source import Source
from training.evaluation.gap import quality
from training.evaluation.protocols import completion_cases
from training.fit import Fit
from training.recipes import Recipe


@dataclass(frozen=True)
class Fold:
    """What came of one fold."""

    shoppers: int  # left out
    cases: int
    metrics: dict[str, float]
    seconds: float


def fold_of(subjects: Sequence[str], folds: int) -> npt.NDArray[np.int64]:
    """The fold 0..folds-1 of each shopper by the hash of its id, [len(subjects)]."""
    digests = (hashlib.sha256(f"fold:{subject}".encode()).digest() for subject in subjects)
    return np.array([int.from_bytes(digest[:8], "big") % folds for digest in digests], np.int64)


def cross_validate(
    source: Source,
    recipe: Recipe,
    folds: int,
    *,
    device: torch.device,
    limit: int | None = None,
) -> Iterator[Fold]:
    """Fit and evaluate `recipe` once for each fold, on at most `limit` of its baskets. UserError on
    fewer than two folds, or where a fold has no basket to be asked about."""
    shoppers = len(source.baskets.subjects)
    if not 2 <= folds <= shoppers:
        raise UserError(f"--folds {folds}: from 2 to {shoppers}, the number of shoppers")
    window = source.window.before()
    cut_us = to_us(window.train_until)
    # One catalogue for all folds, so that their figures mean the same.
    vocabulary = source.baskets.vocabulary(cut_us, recipe.min_item_baskets)
    fold = fold_of(source.baskets.subjects, folds)
    every_case = completion_cases(source.baskets, window, vocabulary)
    place = {subject: number for number, subject in enumerate(source.baskets.subjects)}
    own = np.array([fold[place[case.subject]] for case in every_case])
    for number in range(folds):
        cases = [case for case, its in zip(every_case, own, strict=True) if its == number]
        if limit is not None and len(cases) > limit:
            order = np.random.default_rng(recipe.seed).permutation(len(cases))[:limit]
            cases = [cases[place] for place in np.sort(order)]
        kept = np.flatnonzero(fold[source.baskets.subject] != number)
        if not cases or not len(kept):
            raise UserError(
                f"--folds {folds}: no basket of the validation days is left for fold "
                f"{number + 1}; use fewer folds"
            )
        own_names = np.array(source.baskets.subjects)[fold != number].tolist()
        drawn = None if source.drawn is None else source.drawn.of(own_names)
        baskets = source.baskets.take(kept)
        learned = replace(source, baskets=baskets, drawn=drawn, window=window)
        fit = Fit(learned, recipe, device=device, vocabulary=vocabulary)
        recommender = fit.run()
        yield Fold(
            int((fold == number).sum()),
            len(cases),
            quality(recommender, source, cases, cut_us, f"fold {number + 1}"),
            fit.report.seconds,
        )


def add_rows(figures: Figures, found: Sequence[Fold]) -> None:
    """A row for each fold, and one with their mean and spread."""
    for number, fold in enumerate(found, start=1):
        figures.add(
            f"fold {number}",
            {name: [value] for name, value in fold.metrics.items()},
            seconds=fold.seconds,
        )
    figures.add(
        "folds",
        {name: [fold.metrics[name] for fold in found] for name in found[0].metrics},
        seconds=sum(fold.seconds for fold in found),
    )
    left_out = ", ".join(f"{fold.shoppers} ({fold.cases})" for fold in found)
    figures.notes.append(
        "folds: basket-completion on the validation days, for shoppers left out of everything that "
        f"was learned; shoppers (baskets) per fold: {left_out}"
    )

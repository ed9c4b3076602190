"""The train-validation-test gap: how much better a model is on what it has learned from than on
what it was chosen on, and on what it never saw. The same questions and metrics for all three."""

from collections.abc import Sequence

import numpy as np

from contract.clock import from_us
from contract.encoding import Vocabulary
from training.data.source import Source
from training.evaluation import metrics
from training.evaluation.protocols import CUTOFF, Case, Window, completion_cases, situation
from training.recommender import Recommender

CASES = 1_000  # enough for a standard error below .01
K = CUTOFF["basket-completion"]


def cases_between(
    source: Source, vocabulary: Vocabulary, start_us: int, end_us: int, limit: int, seed: int
) -> list[Case]:
    """Up to `limit` basket-completion cases of the baskets in [start_us, end_us), at random; none
    where no basket can be asked about."""
    window = Window(from_us(start_us - 1), from_us(start_us), from_us(end_us))
    baskets = source.baskets
    if not len(baskets.between(start_us, end_us)):
        return []
    cases = completion_cases(baskets, window, vocabulary)
    order = np.random.default_rng(seed).permutation(len(cases))[:limit]
    return [cases[place] for place in np.sort(order)]


def quality(
    recommender: Recommender, source: Source, cases: Sequence[Case], frozen_us: int, label: str
) -> dict[str, float]:
    """HR, Recall and NDCG at 5 of the whole recommender, histories up to `frozen_us`."""
    asked = [situation(case, source.baskets, source.timelines, frozen_us) for case in cases]
    ranked = recommender.rank(asked, K, label=label)["ranker"]
    values = metrics.per_case(ranked, [case.targets for case in cases])
    return {name: float(each.mean()) for name, each in values.items()}


def measured(
    recommender: Recommender,
    source: Source,
    *,
    train_us: int,
    validate_us: int,
    cut_us: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """The quality on `train`, the days [train_us, validate_us) that the ranker learned from, and on
    `validation`, the days [validate_us, cut_us) that it was chosen on. `recommender` is the one
    that was chosen, before its refit; its tables and the histories end at `train_us`."""
    found = {}
    for name, start_us, end_us in (
        ("train", train_us, validate_us),
        ("validation", validate_us, cut_us),
    ):
        cases = cases_between(source, recommender.vocabulary, start_us, end_us, CASES, seed)
        if cases:
            found[name] = quality(recommender, source, cases, train_us, f"gap, {name}")
    return found

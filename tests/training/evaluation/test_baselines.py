"""Baselines against sums done by hand over the same baskets."""

import numpy as np
import pytest

from contract.clock import DAY_US, to_us
from contract.encoding import FIRST_ITEM
from training.data.item_tables import count
from training.data.source import Source
from training.evaluation import baselines
from training.evaluation.baselines import Frozen
from training.evaluation.metrics import per_case
from training.evaluation.protocols import completion_cases


@pytest.fixture(scope="module")
def frozen(source: Source) -> Frozen:
    cut_us = to_us(source.window.train_until)
    vocabulary = source.baskets.vocabulary(cut_us, 5)
    tables = count(source.baskets, cut_us, vocabulary, source.catalogue)
    cases = completion_cases(source.baskets, source.window, vocabulary)
    return Frozen.at(cases, source.baskets, tables, vocabulary, cut_us)


def _history(source: Source, frozen: Frozen, subject: str) -> list[tuple[int, set[str]]]:
    """(time, items) of every basket of `subject` before the cut, straight from the offsets."""
    baskets, found = source.baskets, []
    for number in range(len(baskets)):
        same = baskets.subjects[int(baskets.subject[number])] == subject
        if same and baskets.occurred_us[number] < frozen.cut_us:
            entries = baskets.item[baskets.offsets[number] : baskets.offsets[number + 1]]
            names = {baskets.item_ids[entry] for entry in entries}
            found.append((int(baskets.occurred_us[number]), names))
    return found


def test_personal_scores_equal_sums_by_hand(source: Source, frozen: Frozen) -> None:
    case = frozen.cases[3]
    history = _history(source, frozen, case.subject)
    frequency = baselines.personal_frequency(frozen)(slice(3, 4))[0]
    recency = baselines.recency_frequency(frozen)(slice(3, 4))[0]
    for index in range(FIRST_ITEM, len(frozen.vocabulary)):
        item = frozen.vocabulary.item_id(index)
        times = [at for at, items in history if item in items]
        assert frequency[index] == len(times)
        expected = sum(0.5 ** ((frozen.cut_us - at) / DAY_US / 60) for at in times)
        assert recency[index] == pytest.approx(expected, rel=1e-5)


def test_item_knn_is_the_summed_cosine(source: Source, frozen: Frozen) -> None:
    held = frozen.history.toarray()
    case = frozen.cases[0]
    scores = baselines.item_knn(frozen)(slice(0, 1))[0]
    norms = np.sqrt((held**2).sum(axis=0))
    for index in range(FIRST_ITEM, len(frozen.vocabulary)):
        cosines = [
            held[:, c] @ held[:, index] / (norms[c] * norms[index])
            for c in frozen.vocabulary.indices(case.cart)
            if c != index
        ]
        assert scores[index] == pytest.approx(sum(cosines), abs=1e-5)


def test_nothing_in_the_cart_is_ranked_and_ties_go_by_popularity(frozen: Frozen) -> None:
    nothing = np.zeros(len(frozen.vocabulary), np.float32)
    ranked = baselines.rank(frozen, lambda part: np.tile(nothing, (len(frozen.cases[part]), 1)), 5)
    counts = np.asarray(frozen.history.sum(axis=0)).ravel()
    for case, row in zip(frozen.cases, ranked, strict=True):
        cart = set(frozen.vocabulary.indices(case.cart).tolist())
        assert not cart & set(row.tolist())
        outside = [c for i, c in enumerate(counts) if i >= FIRST_ITEM and i not in cart]
        assert sorted(counts[row], reverse=True) == sorted(outside, reverse=True)[:5]


def test_group_weights_of_tifuknn() -> None:
    """Three baskets in two groups of at most two: the older group holds one basket."""
    frozen = Frozen.__new__(Frozen)
    object.__setattr__(frozen, "subject", np.zeros(3, np.int64))
    object.__setattr__(frozen, "times", np.array([10, 20, 30]))
    object.__setattr__(frozen, "num_subjects", 1)
    weights = baselines._group_weights(frozen, groups=2, within=0.9, across=0.7)
    # Newest group: baskets at 30 and 20, within-group decay 1 and 0.9; older group: basket at 10.
    assert weights.tolist() == pytest.approx([0.7 / 4, 0.9 / 4, 1 / 4])


def test_each_baseline_beats_popularity_on_a_shop_with_favourites(frozen: Frozen) -> None:
    targets = [case.targets for case in frozen.cases]

    def ndcg(scores: baselines.Scores) -> float:
        return float(per_case(baselines.rank(frozen, scores, 5), targets)["NDCG@5"].mean())

    popular = ndcg(baselines.popularity(frozen))
    for scores in (
        baselines.item_knn(frozen),
        baselines.recency_frequency(frozen),
        baselines.blend(frozen, 1.0),
        baselines.tifuknn(frozen, neighbours=10),
    ):
        assert ndcg(scores) > popular

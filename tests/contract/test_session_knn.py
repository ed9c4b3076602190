"""VMIS-kNN against an implementation that follows the paper word by word, slowly."""

from collections import defaultdict
from fractions import Fraction
from math import log
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.session_knn import SessionKnn
from tests.contract.examples import many
from tests.contract.shop import BREAD, EGGS, MILK, SOAP, indices, sessions

NUM_ITEMS = 7
GOLDEN = Path(__file__).parents[1] / "golden" / "session_knn.npz"
Row = tuple[int, int, int]  # session, item, time
ROWS = st.lists(
    st.tuples(st.integers(10, 18), st.integers(0, NUM_ITEMS - 1), st.integers(0, 5)), max_size=40
)


def dense(seed: int) -> list[Row]:
    """Some thirty sessions that share many items, so that m and k both cut, mostly among ties."""
    chance = Random(seed)
    return [
        (session, chance.randrange(NUM_ITEMS), chance.randrange(20))
        for session in range(30)
        for _ in range(chance.randrange(1, 5))
    ]


def fitted(rows: list[Row], **settings: int) -> SessionKnn:
    session, item, time = (np.array([row[at] for row in rows], np.int64) for at in range(3))
    return SessionKnn.fit(session, item, time, num_items=NUM_ITEMS, **settings)


def slow_weights(
    rows: list[Row], query: list[int], drop: list[int], m: int, k: int, query_items: int
) -> dict[int, tuple[Fraction, float]]:
    """Item -> the exact sum of its neighbours' weights, and its idf."""
    last: dict[int, int] = {}
    held: dict[int, set[int]] = defaultdict(set)
    for session, item, time in rows:
        last[session] = max(last.get(session, time), time)
        held[session].add(item)
    # The latest session first; among equally late ones that with the higher id.
    newest_first = sorted(held, key=lambda session: (last[session], session), reverse=True)
    latest: list[int] = []
    for item in reversed(query):
        if item not in latest and 0 <= item < NUM_ITEMS and len(latest) < query_items:
            latest.append(item)
    similarity: dict[int, Fraction] = defaultdict(Fraction)
    nearest: dict[int, int] = {}
    for place, item in enumerate(latest, start=1):
        for session in [s for s in newest_first if item in held[s]][:m]:
            similarity[session] += Fraction(len(latest) - place + 1, len(latest))
            nearest.setdefault(session, place)
    recent = [session for session in newest_first if session in similarity][:m]
    closest = sorted(recent, key=lambda session: -similarity[session])[:k]
    weight: dict[int, Fraction] = defaultdict(Fraction)
    for session in closest:
        for item in held[session]:
            weight[item] += similarity[session] * max(
                Fraction(0), 1 - Fraction(nearest[session], 10)
            )
    holders = {item: sum(item in other for other in held.values()) for item in weight}
    return {
        item: (total, log(len(held) / holders[item]))
        for item, total in weight.items()
        if item not in drop
    }


@many
@given(
    ROWS | st.builds(dense, st.integers(0, 10**6)),
    st.lists(st.integers(-1, NUM_ITEMS), max_size=8),
    st.lists(st.integers(0, NUM_ITEMS - 1), max_size=6),
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(1, 7),
)
def test_scores_against_the_slow_way(
    rows: list[Row], query: list[int], drop: list[int], m: int, k: int, query_items: int
) -> None:
    knn = fitted(rows, m=m, k=k, query_items=query_items)
    items, scores = knn.score(indices(*query), drop=indices(*drop))
    expected = slow_weights(rows, query, drop, m, k, query_items)
    found = dict(zip(items.tolist(), scores.tolist(), strict=True))
    slow = {item: float(weight) * idf for item, (weight, idf) in expected.items()}
    assert found == pytest.approx(slow, rel=1e-5, abs=1e-6)
    # Equal weights of equally frequent items are equal scores, in the order of their numbers.
    groups: dict[tuple[Fraction, float], set[float]] = defaultdict(set)
    for item, key in expected.items():
        groups[key].add(found[item])
    assert all(len(scores_of_one) == 1 for scores_of_one in groups.values())
    assert items.tolist() == sorted(found, key=lambda item: (-found[item], item))


def test_by_hand() -> None:
    items, scores = sessions().score(indices(MILK), drop=indices(MILK))
    # Both sessions with milk match at place 1: (1 - 0.1) * log(3 sessions / 1 with the item).
    assert items.tolist() == [BREAD, EGGS]
    assert scores.tolist() == pytest.approx([0.9 * log(3), 0.9 * log(3)])


def test_two_items_weigh_by_place() -> None:
    items, scores = sessions().score(indices(SOAP, MILK))
    # Milk is the latest: weight 2/2 at place 1. Soap is the one before: weight 1/2 at place 2.
    expected = {
        BREAD: 0.9 * log(3),
        EGGS: 0.9 * log(3),
        MILK: 2 * 0.9 * log(3 / 2),
        SOAP: 0.5 * 0.8 * log(3),
    }
    assert dict(zip(items.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected)


@pytest.mark.parametrize("query", [(), (-1,), (NUM_ITEMS,), (5,)])
def test_nothing_follows_what_is_not_known(query: tuple[int, ...]) -> None:
    items, scores = fitted([(1, 2, 0), (1, 3, 1)]).score(indices(*query))
    assert items.dtype == np.int64
    assert scores.dtype == np.float32
    assert (items.tolist(), scores.tolist()) == ([], [])


@many
@given(ROWS, st.randoms(use_true_random=False))
def test_arrays_carry_everything(rows: list[Row], chance: Random) -> None:
    knn = fitted(rows, m=3, k=2, query_items=3)
    shuffled = chance.sample(rows, len(rows))
    for other in (SessionKnn.from_arrays(knn.arrays()), fitted(shuffled, m=3, k=2, query_items=3)):
        for item in range(NUM_ITEMS):
            items, scores = knn.score(indices(item, 0))
            other_items, other_scores = other.score(indices(item, 0))
            assert items.tolist() == other_items.tolist()
            assert scores.tolist() == other_scores.tolist()


def test_numbers_are_narrow_where_they_fit() -> None:
    arrays = fitted(dense(0)).arrays()
    wide = {"settings", "idf"}
    assert {name for name, array in arrays.items() if array.dtype != np.int32} == wide
    beyond = {**arrays, "postings": arrays["postings"].astype(np.int64) + 2**31}
    assert SessionKnn.from_arrays(beyond).postings.dtype == np.int64


def test_a_file_of_the_first_release_answers_as_before() -> None:
    """Its numbers are 64 bits wide."""
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        assert arrays["postings"].dtype == np.int64
        old = SessionKnn.from_arrays(dict(arrays))
    assert old.arrays().keys() == sessions().arrays().keys()
    for name, array in sessions().arrays().items():
        assert old.arrays()[name].tolist() == array.tolist()
    items, scores = old.score(indices(SOAP, MILK), drop=indices(MILK))
    assert items.tolist() == [BREAD, EGGS, SOAP]
    assert scores.tolist() == pytest.approx([0.9 * log(3), 0.9 * log(3), 0.4 * log(3)])


def test_bad_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"items must lie in 0\.\.6"):
        fitted([(1, 7, 0)])
    with pytest.raises(ValueError, match="same length"):
        SessionKnn.fit(indices(1), indices(1, 2), indices(1), num_items=3)


def test_what_is_no_item_drops_nothing() -> None:
    kept, scores = sessions().score(indices(MILK))
    items, same = sessions().score(indices(MILK), drop=np.array([-1, -1], np.int64))
    assert items.tolist() == kept.tolist()
    assert same.tolist() == scores.tolist()

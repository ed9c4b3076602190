"""Attributions: worked by hand where that can be done, and their axioms on any ranker."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.attribution import GROUPS, SHARED, Background, attributions
from contract.items import Floats
from contract.pair_features import PAIR_FEATURES

COLUMN = {name: place for place, name in enumerate(PAIR_FEATURES)}
GROUP = {name: place for place, name in enumerate(GROUPS)}


def rows(*told: dict[str, float]) -> Floats:
    found = np.zeros((len(told), len(PAIR_FEATURES)), np.float32)
    for row, values in zip(found, told, strict=True):
        for name, value in values.items():
            row[COLUMN[name]] = value
    return found


def one(**values: float) -> Background:
    return Background(rows(values), np.ones(1, np.float32))


def test_every_feature_is_in_one_group_or_shared() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert sorted([*named, *SHARED]) == sorted(PAIR_FEATURES)


def test_a_sum_owes_each_group_its_own_part() -> None:
    shown = rows({"baskets": 3.0, "popularity": 5.0, "session_knn": 1.0})
    found = attributions(
        shown,
        one(baskets=1.0, popularity=1.0),
        lambda asked: 2 * asked[:, COLUMN["baskets"]] - asked[:, COLUMN["popularity"]],
    )
    assert found[0, GROUP["bought_before"]] == pytest.approx(2 * (3 - 1))
    assert found[0, GROUP["popular_now"]] == pytest.approx(-(5 - 1))
    assert found[0, GROUP["similar_shoppers"]] == 0.0


def test_a_product_of_two_groups_is_shared_between_them() -> None:
    found = attributions(
        rows({"baskets": 2.0, "cart_similarity": 3.0}),
        one(),
        lambda asked: asked[:, COLUMN["baskets"]] * asked[:, COLUMN["cart_similarity"]],
    )
    # Alone each adds 0, together 2 * 3 = 6: half for each.
    assert found[0, GROUP["bought_before"]] == pytest.approx(6 / 2)
    assert found[0, GROUP["goes_with_cart"]] == pytest.approx(6 / 2)


def test_the_background_is_averaged_by_its_weights() -> None:
    usual = Background(rows({"baskets": 0.0}, {"baskets": 4.0}), np.array([0.75, 0.25], np.float32))
    found = attributions(rows({"baskets": 3.0}), usual, lambda asked: asked[:, COLUMN["baskets"]])
    assert found[0, GROUP["bought_before"]] == pytest.approx(3 - (0.75 * 0 + 0.25 * 4))


@given(seed=st.integers(0, 10_000), size=st.integers(1, 5), points=st.integers(1, 4))
def test_they_add_up_to_what_sets_the_item_apart(seed: int, size: int, points: int) -> None:
    random = np.random.default_rng(seed)
    shown = random.normal(size=(size, len(PAIR_FEATURES))).astype(np.float32)
    share = random.dirichlet(np.ones(points)).astype(np.float32)
    usual = Background(random.normal(size=(points, len(PAIR_FEATURES))).astype(np.float32), share)
    first = random.normal(size=(len(PAIR_FEATURES), 8)).astype(np.float32) / 8

    def score(asked: Floats) -> Floats:
        found: Floats = np.tanh(asked @ first).sum(axis=1)
        return found

    shared = [COLUMN[name] for name in SHARED]
    for item, total in zip(shown, attributions(shown, usual, score).sum(axis=1), strict=True):
        elsewhere = usual.rows.copy()
        elsewhere[:, shared] = item[shared]  # they are the same for all candidates of a checkout
        without = score(elsewhere) @ share
        assert total == pytest.approx(float(score(item[None])[0] - without), abs=1e-4)


def test_a_background_comes_back_from_its_file() -> None:
    usual = one(baskets=1.5)
    with np.load(io.BytesIO(usual.as_bytes())) as arrays:
        again = Background.from_arrays(dict(arrays))
    assert (again.rows == usual.rows).all()
    assert (again.weight == usual.weight).all()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"rows": np.zeros((1, 3), np.float32)}, "rows have shape"),
        ({"rows": np.full((1, len(PAIR_FEATURES)), np.nan, np.float32)}, "not finite"),
        ({"weight": np.array([0.5], np.float32)}, "shares of one"),
        ({"weight": np.array([1.5, -0.5], np.float32)}, "do not fit"),
    ],
)
def test_a_background_that_does_not_fit_is_refused(changed: dict[str, Floats], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Background.from_arrays({"rows": one().rows, "weight": one().weight} | changed)

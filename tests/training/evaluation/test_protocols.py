"""The frozen protocols: which baskets, which cart, and that nothing of the test leaks."""

import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest

from contract.clock import DAY_US, to_us
from contract.encoding import FIRST_ITEM
from contract.errors import UserError
from contract.held_out import hash_order
from training.data.source import Source
from training.evaluation.protocols import (
    Window,
    bought_before,
    completion_cases,
    next_basket_cases,
    situation,
)


def test_a_cart_is_the_first_half_by_hash(source: Source) -> None:
    vocabulary = source.baskets.vocabulary(to_us(source.window.train_until), 5)
    for case in completion_cases(source.baskets, source.window, vocabulary)[:20]:
        basket = source.baskets.basket_id[case.number]
        items = [*case.cart, *(vocabulary.item_id(int(index)) for index in case.targets)]
        order = sorted(items, key=lambda i: hashlib.sha256(f"{basket}:{i}".encode()).hexdigest())
        assert items == order
        assert len(case.cart) == len(items) // 2
        assert to_us(source.window.train_until) <= case.now_us < to_us(source.window.test_until)


def test_hash_order_is_the_published_one() -> None:
    assert hash_order("31198570044", ["842930", "897044", "920955"]) == sorted(
        ["842930", "897044", "920955"],
        key=lambda i: hashlib.sha256(f"31198570044:{i}".encode()).hexdigest(),
    )


def test_next_basket_asks_each_shopper_once_with_an_empty_cart(source: Source) -> None:
    vocabulary = source.baskets.vocabulary(to_us(source.window.train_until), 5)
    cases = next_basket_cases(source.baskets, source.window, vocabulary)
    assert len({case.subject for case in cases}) == len(cases) > 10
    assert all(case.cart == () and len(case.targets) >= 2 for case in cases)


def test_history_is_frozen_at_the_cut(source: Source) -> None:
    cut_us = to_us(source.window.train_until)
    vocabulary = source.baskets.vocabulary(cut_us, 5)
    case = completion_cases(source.baskets, source.window, vocabulary)[-1]
    assert case.now_us > cut_us + DAY_US
    view = situation(case, source.baskets, source.timelines, cut_us).view
    assert len(view.interactions) > 0
    assert view.interactions["occurred_us"].max() < cut_us
    assert view.purchased["last_us"].max() < cut_us
    unknown = situation(case, source.baskets, source.timelines, cut_us, unknown=True)
    assert not unknown.view.known
    assert unknown.cart == case.cart


def test_bought_before_knows_the_history_and_not_the_test(source: Source) -> None:
    cut_us = to_us(source.window.train_until)
    vocabulary = source.baskets.vocabulary(cut_us, 5)
    cases = completion_cases(source.baskets, source.window, vocabulary)[:10]
    for case, seen in zip(
        cases, bought_before(cases, source.baskets, cut_us, vocabulary), strict=True
    ):
        view = source.timelines.view(case.subject, cut_us, cut_us)
        known = vocabulary.of_keys(view.purchased["item_key"])
        assert set(seen[seen >= FIRST_ITEM]) == set(known[known >= FIRST_ITEM])


def test_the_vocabulary_is_counted_before_the_cut_only(source: Source) -> None:
    cut_us = to_us(source.window.train_until)
    few = source.baskets.vocabulary(cut_us, 10_000 // 100)
    _, item = source.baskets.entries(source.baskets.between(-(2**62), cut_us))
    counts = np.bincount(item, minlength=len(source.baskets.item_ids))
    assert set(few.item_ids) == {
        source.baskets.item_ids[number] for number in np.flatnonzero(counts >= 100)
    }


@pytest.mark.parametrize("days", [(10, 9, 30), (9, 10, 10)])
def test_a_window_that_runs_backwards_is_refused(days: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="validate-from < train-until < test-until"):
        Window(*(datetime(2024, 4, day, tzinfo=UTC) for day in days))

"""Slices of a protocol's cases, against what a loop over all training baskets counts."""

from collections import Counter

import numpy as np
import pytest

from contract.clock import to_us
from training.data.item_tables import count
from training.data.source import Source
from training.evaluation.protocols import bought_before, completion_cases
from training.evaluation.slices import Slices


def test_slices_against_counting_basket_by_basket(source: Source) -> None:
    baskets, cut_us = source.baskets, to_us(source.window.train_until)
    vocabulary = baskets.vocabulary(cut_us, 5)
    tables = count(baskets, cut_us, vocabulary, source.catalogue)
    cases = completion_cases(baskets, source.window, vocabulary)
    seen = bought_before(cases, baskets, cut_us, vocabulary)
    sold: Counter[str] = Counter()
    came: Counter[str] = Counter()
    owned: dict[str, set[str]] = {}
    for number in np.flatnonzero(baskets.occurred_us < cut_us):
        items = baskets.item[baskets.offsets[number] : baskets.offsets[number + 1]]
        held = {baskets.item_ids[item] for item in items}
        subject = baskets.subjects[baskets.subject[number]]
        sold.update(held)
        came.update([subject])
        owned.setdefault(subject, set()).update(held)
    # Every case is answered with its own first target alone.
    ranked = np.array([[case.targets[0], -1] for case in cases])
    found: dict[str, list[float]] = {"repeat": [], "explore": [], "cold item": []}
    for case in cases:
        names = [vocabulary.item_id(int(target)) for target in case.targets]
        mine = owned.get(case.subject, set())
        for slice_name, kept in (
            ("repeat", [name in mine for name in names]),
            ("explore", [name not in mine for name in names]),
            ("cold item", [sold[name] < 10 for name in names]),
        ):
            if any(kept):
                found[slice_name].append(kept[0] / sum(kept))
    cold = [case for case in cases if came[case.subject] < 3]
    slices = Slices(cases, baskets, tables, cut_us, seen)
    values = slices.metrics(ranked)
    for name, expected in found.items():
        assert values.get(f"{name} Recall@2", np.empty(0)).tolist() == pytest.approx(expected)
    assert len(values.get("cold shopper HR@2", ())) == len(cold)
    assert f"{len(cold)} of {len(cases)} cases" in slices.note()
    assert found["repeat"]
    assert found["explore"]


def test_who_hardly_came_and_what_hardly_sold(source: Source) -> None:
    """Counted up to the third day, most of the shop is cold."""
    baskets, cut_us = source.baskets, to_us(source.window.train_until)
    vocabulary = baskets.vocabulary(cut_us, 5)
    cases = completion_cases(baskets, source.window, vocabulary)[:30]
    early_us = int(baskets.occurred_us[0]) + 3 * 24 * 3600 * 10**6
    tables = count(baskets, early_us, vocabulary, source.catalogue)
    slices = Slices(cases, baskets, tables, early_us, [np.empty(0, np.int64)] * len(cases))
    values = slices.metrics(np.array([[*case.targets[:1], -1] for case in cases]))
    assert "repeat Recall@2" not in values
    assert set(values["cold shopper HR@2"].tolist()) == {1.0}
    assert len(values["cold item Recall@2"]) > 0

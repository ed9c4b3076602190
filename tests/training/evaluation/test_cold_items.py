"""Held-out items are nowhere in what is learned from, and the table says who finds them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.clock import to_us
from contract.encoding import FIRST_ITEM
from contract.events import key_of
from tests.training.conftest import SMALL
from training.__main__ import main
from training.data.cold_items import held_out, without
from training.data.source import Source
from training.evaluation import content_baselines
from training.evaluation.cold_items import ColdCases


def test_nobody_chooses_what_is_held_out() -> None:
    ids = [f"sku-{number}" for number in range(20_000)]
    chosen = held_out(ids)
    assert 0.09 < len(chosen) / len(ids) < 0.115
    assert held_out(ids[::2]) == {item_id for item_id in ids[::2] if item_id in chosen}


def test_held_out_items_are_in_no_basket_and_no_history_before_the_cut(source: Source) -> None:
    cut_us = to_us(source.window.train_until)
    cold = held_out(source.baskets.item_ids)
    stripped = without(source, cold, cut_us)
    before, after = stripped.baskets.between(0, cut_us), stripped.baskets.between(cut_us, 2**62)
    gone = np.array([item_id in cold for item_id in source.baskets.item_ids])
    assert gone[source.baskets.entries(before)[1]].any()
    assert not gone[stripped.baskets.entries(before)[1]].any()
    assert np.array_equal(stripped.baskets.entries(after)[1], source.baskets.entries(after)[1])
    keys = np.array([key_of(item_id) for item_id in cold], np.uint64)
    for subject in source.baskets.subjects:
        whole = source.timelines.view(subject, cut_us, cut_us)
        rest = stripped.timelines.view(subject, cut_us, cut_us)
        for rows in (rest.purchased, rest.interactions):
            assert not np.isin(rows["item_key"], keys).any()
        assert len(rest.purchased) == (~np.isin(whole.purchased["item_key"], keys)).sum()


def test_baselines_rank_by_kind(source: Source) -> None:
    cases = ColdCases.of(source)
    frozen, content = cases.frozen, cases.content
    assert not np.asarray(frozen.history.sum(axis=0)).ravel()[cases.cold].any()
    assert all(cases.cold[case.targets].all() for case in frozen.cases)
    everything = np.arange(FIRST_ITEM, len(cases.cold))
    score = content_baselines.category_popularity(frozen, content)(everything)[0]
    counts = np.asarray(frozen.history.sum(axis=0)).ravel()[FIRST_ITEM:]
    narrow = content.categories[FIRST_ITEM:, 2]
    for item in np.flatnonzero(cases.cold[FIRST_ITEM:]):
        alike = counts[(narrow == narrow[item]) & (counts > 0)]
        assert score[item] == pytest.approx(alike.mean(), rel=1e-6)
    near = content_baselines.by_category(frozen, content, 1.0)
    ranked = content_baselines.ranked(near, frozen, cases.cold, 3)
    assert cases.cold[ranked[ranked >= 0]].all()
    carts = [set(frozen.vocabulary.indices(case.cart)) for case in frozen.cases]
    assert not any(set(row) & cart for row, cart in zip(ranked.tolist(), carts, strict=True))
    scores = near(everything)
    scores[:, ~cases.cold[FIRST_ITEM:]] = -np.inf
    rows, columns = frozen.carts[:, everything].nonzero()
    scores[rows, columns] = -np.inf
    best = everything[scores.argmax(axis=1)]
    assert np.array_equal(best, ranked[:, 0])


def test_choosing_looks_at_no_test_day(source: Source) -> None:
    earlier = ColdCases.of(source, earlier=True)
    latest = max(case.now_us for case in earlier.frozen.cases)
    assert latest < to_us(source.window.train_until)
    assert earlier.frozen.times.max() < to_us(source.window.validate_from)
    assert np.array_equal(earlier.cold, ColdCases.of(source).cold)


def test_the_table(shop_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [*SMALL, "tower_epochs=2", "tower_examples=300", "ranker_examples=60"]
    settings = [part for text in few for part in ("--set", text)]
    command = ["benchmark", "cold-items", "--data", str(shop_folder), "--seeds", "2"]
    assert main([*command, *settings, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row["metrics"] for row in figures["rows"]}
    assert list(rows) == [
        "category-popularity",
        "content-knn/category",
        "content-knn/text",
        "tillwise",
        "tillwise/sequence",
    ]
    for row in rows.values():
        assert set(row) >= {"Recall@10", "NDCG@10", "catalogue Recall@10", "catalogue NDCG@10"}
    assert len(rows["tillwise"]["NDCG@10"]["values"]) == 2
    said = [note for note in figures["notes"] if note.startswith("NDCG among")]
    assert len(said) == 1
    assert ("does not beat" in said[0]) == any(
        rows[name]["NDCG@10"]["mean"] >= rows["tillwise"]["NDCG@10"]["mean"]
        for name in rows
        if "tillwise" not in name
    )


def test_without_a_held_out_item_in_the_test_it_says_so(source: Source) -> None:
    cold = held_out(source.baskets.item_ids)
    no_cold = without(source, cold, 2**62)
    with pytest.raises(Exception, match="no test basket holds any of the"):
        ColdCases.of(replace(no_cold, window=source.window))

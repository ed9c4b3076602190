"""What better lists cost: the ranker's order beside varied, capped and margin-weighted ones, by the
very function that the gateway uses, on the days that models are chosen on."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from contract.clock import to_us
from contract.encoding import FIRST_ITEM, Vocabulary
from contract.events import key_of
from contract.figures import Figures
from contract.items import LEVELS, Floats, Indices
from contract.lists import ListSettings, choose, relevance
from training.commands import peak_mib
from training.data.item_tables import count
from training.data.source import Source
from training.evaluation import metrics
from training.evaluation.gap import K, cases_between
from training.evaluation.protocols import situation
from training.recommender import Recommender
from training.run_folder import Run

Candidates = Sequence[tuple[Indices, Floats]]
_SEED = 0
NDCG = f"NDCG@{K}"
# What each switch does alone, and two of them with a cap; the losses are those at each place.
_STRENGTHS = {
    **{
        f"diversity {weight} loss {loss}": ListSettings(diversity=weight, most_loss=loss)
        for loss in (0.1, 0.3)
        for weight in (0.1, 0.3, 0.5)
    },
    **{f"cap {cap}": ListSettings(category_cap=cap) for cap in (1, 2, 3)},
    **{
        f"margin {weight} loss {loss}": ListSettings(margin=weight, most_loss=loss)
        for loss in (0.1, 0.3)
        for weight in (0.03, 0.1, 0.3)
    },
    "diversity .3 cap 2 margin .1 loss .1": ListSettings(0.3, 2, 0.1, 0.1),
}


@dataclass(frozen=True, eq=False)
class Shop:
    """What is known of the items, N = len(vocabulary)."""

    vectors: Floats  # [N, d] of length 1
    categories: Indices  # [N] of the level that caps count
    margins: Floats  # [N] in units of the shop's mean


def list_table(fitted: Run, source: Source, most: int) -> Figures:
    """A row per setting over up to `most` validation cases; tables and histories end before."""
    window, vocabulary = fitted.window, fitted.vocabulary
    start_us, end_us = to_us(window.validate_from), to_us(window.train_until)
    tables = count(source.baskets, start_us, vocabulary, source.catalogue, source.timelines)
    cases = cases_between(source, vocabulary, start_us, end_us, most, _SEED)
    asked = [situation(case, source.baskets, source.timelines, start_us) for case in cases]
    recommender = Recommender(vocabulary, tables, fitted.towers, fitted.ranker)
    vectors, scored = recommender.scored(asked, label="lists")
    found = list(scored)
    statistics = tables.statistics
    shop = Shop(
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9),
        statistics.levels[:, list(LEVELS).index("wide")],
        drawn_margins(vocabulary, np.expm1(statistics.price_level)),
    )
    figures = Figures("evaluate")
    targets = [case.targets for case in cases]
    usual: metrics.Floats | None = None
    for name, settings in {"tillwise": ListSettings(), **_STRENGTHS}.items():
        began = time.process_time()
        ranked = _padded(_lists(found, shop, settings))
        each_ms = (time.process_time() - began) * 1_000 / len(found)
        quality = metrics.per_case(ranked, targets)
        usual = quality[NDCG] if usual is None else usual
        lost = usual - quality[NDCG]
        row = {
            **{metric: [float(quality[metric].mean())] for metric in (NDCG, f"HR@{K}")},
            f"{NDCG} lost": [float(lost.mean())],
            "its error": [float(lost.std() / np.sqrt(len(lost)))],
            **measured(ranked, targets, shop),
            "cpu_ms": [each_ms],
        }
        figures.add(name, row, peak_mib=peak_mib())
    figures.notes += [
        f"{len(cases)} validation baskets from {window.validate_from:%Y-%m-%d} to "
        f"{window.train_until:%Y-%m-%d}, tables and histories up to the first of these days; the "
        "networks were fitted again on all of them, so compare rows, not with a test",
        "costs are synthetic: 50 to 90 % of the price by the item's id; margins are in units of "
        "the shop's mean, `hit margin` of what was shown and bought, per list",
        "loss is the most that one place may give up of the ranker's relevance; `lost` is paired, "
        "with its standard error; cpu_ms with gathering what the function reads",
    ]
    return figures


def drawn_margins(vocabulary: Vocabulary, price: Floats) -> Floats:
    """Made-up margins of 10 to 50 % of `price` [N], in units of their mean over priced items; an
    item without a price has the mean."""
    share = np.array([0.1 + 0.4 * (key_of(one) % 1_000) / 999 for one in vocabulary.item_ids])
    left = np.concatenate((np.zeros(FIRST_ITEM), share)) * price
    mean = left[left > 0].mean() if (left > 0).any() else 1.0
    margins: Floats = np.where(left > 0, left / mean, 1.0).astype(np.float32)
    return margins


def measured(ranked: Indices, targets: Sequence[Indices], shop: Shop) -> dict[str, list[float]]:
    """Means over the lists `ranked` [T, K], -1 where nothing is shown: how many categories a list
    holds, the cosine of its pairs, the margin of its items and, per list, of those bought."""
    shown = ranked >= 0
    hit = metrics.hits(ranked, targets)
    kinds = [len(set(shop.categories[row[row >= 0]].tolist())) for row in ranked]
    margins = np.where(shown, shop.margins[ranked], 0.0)
    return {
        "categories": [float(np.mean(kinds))],
        "similarity": [float(np.mean([_alike(shop.vectors[row[row >= 0]]) for row in ranked]))],
        "margin": [float(margins.sum() / max(shown.sum(), 1))],
        "hit margin": [float((margins * hit).sum() / len(ranked))],
    }


def _alike(vectors: Floats) -> float:
    """The mean cosine of all pairs of `vectors` [n, d], each of length 1; 0 without a pair."""
    n = len(vectors)
    if n < 2:
        return 0.0
    total = float((vectors @ vectors.T).sum() - (vectors * vectors).sum())
    return total / (n * (n - 1))


def _lists(found: Candidates, shop: Shop, settings: ListSettings) -> Iterator[Indices]:
    for index, scores in found:
        vectors = shop.vectors[index if settings.diversity else index[:0]]
        places = choose(
            *(relevance(scores), vectors, shop.categories[index], shop.margins[index]),
            *(K, settings),
        )
        yield index[places]


def _padded(rows: Iterator[Indices]) -> Indices:
    return np.array([np.pad(row, (0, K - len(row)), constant_values=-1) for row in rows])

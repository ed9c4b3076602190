"""The protocol `cold-items`: a tenth of the catalogue is held out of everything that is learned
from; when one of those items stands in the part of a test basket that is to be found, who finds it?

The cases are those of basket-completion, with the held-out items as the only targets. Histories,
counts and training know nothing of them; a cart may hold them, as a real cart would.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from contract.clock import to_us
from contract.errors import UserError
from contract.figures import Figures
from training.commands import peak_mib
from training.data.cold_items import held_out, without
from training.data.item_tables import count
from training.data.item_text import text_vectors
from training.data.source import Source
from training.data.tower_examples import encode_all
from training.evaluation import content_baselines, metrics
from training.evaluation.baselines import Frozen
from training.evaluation.content_baselines import Columns, Content
from training.evaluation.protocols import MIN_BASKETS, completion_cases, situation
from training.fit import Fit
from training.models.retrieval import RetrievalModel
from training.recipes import Recipe

CUTOFF = 10
_CHUNK = 512
_CART_WEIGHTS = (0.5, 1.0, 2.0)
_SHARPNESS = (4.0, 8.0, 16.0)
# The name of the row of our own that was best on the validation days of Complete Journey.
RECOMMENDED = "query-tower"

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ColdCases:
    """The questions of one window, and what may be known. N = len(vocabulary)."""

    source: Source  # without the held-out items before the cut
    frozen: Frozen  # cases, carts, counts and histories
    cold: Flags  # [N] held out
    content: Content

    @property
    def whole(self) -> Flags:
        """Every item of the vocabulary, [N]."""
        return np.ones(len(self.cold), bool)

    @classmethod
    def of(cls, source: Source, earlier: bool = False) -> "ColdCases":
        """The test cases of `source`, or, `earlier`, those of its validation days, with everything
        frozen before them. UserError where no test basket holds a held-out item."""
        # The catalogue of the protocol in both, so that the same items are held out.
        vocabulary = source.baskets.vocabulary(to_us(source.window.train_until), MIN_BASKETS)
        if earlier:
            source = replace(source, window=source.window.before())
        chosen = held_out(vocabulary.item_ids)
        cold = np.zeros(len(vocabulary), bool)
        cold[vocabulary.indices(sorted(chosen))] = True
        cases = [
            replace(case, targets=case.targets[cold[case.targets]])
            for case in completion_cases(source.baskets, source.window, vocabulary)
        ]
        cases = [case for case in cases if len(case.targets)]
        if not cases:
            raise UserError(
                f"cold-items: no test basket holds any of the {len(chosen)} held-out items; "
                "move the window with --train-until and --test-until"
            )
        cut_us = to_us(source.window.train_until)
        stripped = without(source, chosen, cut_us)
        tables = count(stripped.baskets, cut_us, vocabulary, source.catalogue)
        return cls(
            stripped,
            Frozen.at(cases, stripped.baskets, tables, vocabulary, cut_us),
            cold,
            Content(text_vectors(source.catalogue, vocabulary), tables.statistics.categories),
        )

    def quality(self, columns: Columns) -> dict[str, float]:
        """Recall and NDCG at 10 among the held-out items, and among all items."""
        targets = [case.targets for case in self.frozen.cases]
        found: dict[str, float] = {}
        for prefix, candidates in (("", self.cold), ("catalogue ", self.whole)):
            ranked = content_baselines.ranked(columns, self.frozen, candidates, CUTOFF)
            for name, values in metrics.per_case(ranked, targets).items():
                found[prefix + name] = float(values.mean())
        return found

    def best(self, settings: dict[str, Callable[[], Columns]]) -> str:
        """The name of the setting with the highest NDCG among the held-out items."""
        targets = [case.targets for case in self.frozen.cases]

        def gain(name: str) -> float:
            ranked = content_baselines.ranked(settings[name](), self.frozen, self.cold, CUTOFF)
            return float(metrics.per_case(ranked, targets)[f"NDCG@{CUTOFF}"].mean())

        return max(settings, key=gain)


def tower_scores(cases: ColdCases, towers: RetrievalModel) -> dict[str, Columns]:
    """The scores of the query tower and of the sequence encoder."""
    query, sequence, vectors = _vectors(cases, towers)
    return {
        "query-tower": lambda index: query @ vectors[index].T,
        "sequence": lambda index: sequence @ vectors[index].T,
    }


def _vectors(cases: ColdCases, towers: RetrievalModel) -> tuple[Floats, Floats, Floats]:
    source, frozen = cases.source, cases.frozen
    asked = [
        situation(case, source.baskets, source.timelines, frozen.cut_us) for case in frozen.cases
    ]
    queries, sequences = [], []
    with torch.no_grad():
        vectors_ND = towers.eval().item_vectors()
        for start in range(0, len(asked), _CHUNK):
            tensors = encode_all(asked[start : start + _CHUNK], frozen.vocabulary)
            queries.append(towers.query(tensors, vectors_ND))
            sequences.append(towers.sequence(tensors, vectors_ND)[:, -1])
    return torch.cat(queries).numpy(), torch.cat(sequences).numpy(), vectors_ND.numpy()


def knn_settings(cases: ColdCases) -> dict[str, Callable[[], Columns]]:
    """Every setting of content-kNN, by name."""
    known = (cases.frozen, cases.content)
    found: dict[str, Callable[[], Columns]] = {}
    for weight in _CART_WEIGHTS:
        found[f"category, cart {weight}"] = partial(content_baselines.by_category, *known, weight)
        for power in _SHARPNESS:
            name = f"text^{power:.0f}, cart {weight}"
            found[name] = partial(content_baselines.by_text, *known, weight, power)
    return found


def cold_items_table(source: Source, recipe: Recipe, seeds: int) -> Figures:
    """The table of the protocol: baselines tuned on the validation days, and the towers of `recipe`
    fitted with several seeds. UserError on fewer than one seed."""
    if seeds < 1:
        raise UserError(f"--seeds {seeds}: at least one is needed")
    cases, figures = ColdCases.of(source), Figures("benchmark cold-items")
    chosen = _add_baselines(figures, cases, ColdCases.of(source, earlier=True))
    values: dict[str, list[dict[str, float]]] = {}
    began = time.perf_counter()
    for seed in range(recipe.seed, recipe.seed + seeds):
        fit = Fit(
            cases.source,
            replace(recipe, seed=seed),
            device=torch.device("cpu"),
            vocabulary=cases.frozen.vocabulary,
        )
        for name, columns in tower_scores(cases, fit.run_towers()).items():
            values.setdefault(name, []).append(cases.quality(columns))
    seconds = time.perf_counter() - began
    for name, runs in values.items():
        row = "tillwise" if name == RECOMMENDED else f"tillwise/{name}"
        spent = seconds if name == RECOMMENDED else 0.0
        figures.add(row, _by_metric(runs), seconds=spent, peak_mib=peak_mib())
    figures.notes += _notes(cases, figures, chosen, recipe, seeds)
    return figures


def _add_baselines(figures: Figures, cases: ColdCases, earlier: ColdCases) -> dict[str, str]:
    """The baselines' rows; what was chosen for them on the validation days, by row."""
    popularity = content_baselines.category_popularity(cases.frozen, cases.content)
    began = time.perf_counter()
    measured = cases.quality(popularity)
    figures.add("category-popularity", _by_metric([measured]), seconds=time.perf_counter() - began)
    candidates, settings, chosen = knn_settings(earlier), knn_settings(cases), {}
    for kind in ("category", "text"):
        began = time.perf_counter()
        best = earlier.best({n: make for n, make in candidates.items() if n.startswith(kind)})
        chosen[f"content-knn/{kind}"] = best
        measured = cases.quality(settings[best]())
        seconds = time.perf_counter() - began
        figures.add(f"content-knn/{kind}", _by_metric([measured]), seconds=seconds)
    return chosen


def _by_metric(runs: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [run[name] for run in runs] for name in runs[0]}


def _notes(
    cases: ColdCases, figures: Figures, chosen: dict[str, str], recipe: Recipe, seeds: int
) -> list[str]:
    means = {row["name"]: row["metrics"][f"NDCG@{CUTOFF}"]["mean"] for row in figures.rows}
    better = [n for n, m in means.items() if "tillwise" not in n and m >= means["tillwise"]]
    targets = sum(len(case.targets) for case in cases.frozen.cases)
    items = len(cases.frozen.vocabulary.item_ids)
    settings = "; ".join(f"{row}: {setting}" for row, setting in chosen.items())
    return [
        f"cold-items: {int(cases.cold.sum())} of {items} items held out, {targets} purchases of "
        f"them to be found in {len(cases.frozen.cases)} test baskets",
        "plain metrics rank the held-out items, `catalogue` metrics all items; global popularity "
        "says nothing of an item that nobody bought, so the category's stands in",
        f"chosen on the validation days: {settings}",
        "NDCG among the held-out items: tillwise "
        + (f"does not beat {', '.join(better)}" if better else "beats every baseline"),
        f"recipe {recipe.name}, towers alone, {seeds} seeds; seconds are summed over them",
    ]

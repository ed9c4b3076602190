"""One protocol, one table: baselines and fitted recommenders on the very same cases."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from contract.clock import to_us
from contract.encoding import Situation, Vocabulary
from contract.errors import UserError
from contract.figures import Figures
from training.commands import peak_mib
from training.data.item_tables import ItemTables, count
from training.data.ranking_examples import RankingExamples
from training.data.source import Source
from training.evaluation import baselines, lightgbm_baseline, metrics
from training.evaluation.baselines import BLEND_WEIGHTS, Frozen
from training.evaluation.protocols import (
    CUTOFF,
    MIN_BASKETS,
    Case,
    Protocol,
    bought_before,
    cases_of,
    situation,
)
from training.evaluation.slices import Slices
from training.fit import Fit, RankerWindow
from training.recommender import Recommender

Numbers = npt.NDArray[np.int64]
Setting = TypeVar("Setting")
# (groups, within, across, neighbours, alpha); the first is its authors' choice for groceries.
_TIFUKNN = (
    (7, 0.9, 0.7, 300, 0.7),
    (7, 0.9, 0.9, 300, 0.7),
    (3, 0.9, 0.7, 300, 0.9),
    (11, 0.9, 0.6, 900, 0.7),
)


class Comparison:
    """The cases of one protocol and the rows measured on them."""

    def __init__(self, protocol: Protocol, source: Source, vocabulary: Vocabulary) -> None:
        self.protocol, self.source, self.vocabulary = protocol, source, vocabulary
        self.k = CUTOFF[protocol]
        catalogue = source.baskets.vocabulary(to_us(source.window.train_until), MIN_BASKETS)
        if catalogue.hash != vocabulary.hash:
            raise UserError(
                f"{protocol} ranks the {len(catalogue.item_ids)} items of {MIN_BASKETS} or more "
                f"training baskets, this run has {len(vocabulary.item_ids)}: fit it on this data "
                f"with min_item_baskets={MIN_BASKETS}"
            )
        self.cut_us = to_us(source.window.train_until)
        self.tables = count(
            source.baskets, self.cut_us, vocabulary, source.catalogue, source.timelines
        )
        self.cases = cases_of(protocol, source.baskets, source.window, vocabulary)
        seen = bought_before(self.cases, source.baskets, self.cut_us, vocabulary)
        self._slices = Slices(self.cases, source.baskets, self.tables, self.cut_us, seen)
        self._values: dict[str, dict[str, list[float]]] = {}
        self._seconds: dict[str, float] = {}

    def add(self, name: str, ranked: Numbers, seconds: float) -> None:
        """One run of the row `name`; further runs of the same name make its spread."""
        targets = [case.targets for case in self.cases]
        every = metrics.per_case(ranked, targets) | self._slices.metrics(ranked)
        row = self._values.setdefault(name, {})
        for metric, values in every.items():
            row.setdefault(metric, []).append(float(values.mean()))
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def add_counting(self) -> None:
        """The baselines without a seed."""
        frozen = self._frozen(self.source, self.cases, self.tables)
        rows: dict[str, Callable[[Frozen], baselines.Scores]] = {
            "popularity": baselines.popularity,
            "personal-frequency": baselines.personal_frequency,
            "recency-frequency": baselines.recency_frequency,
        }
        if self.protocol == "basket-completion":
            weight = self._chosen(BLEND_WEIGHTS, baselines.blend)
            rows["item-knn"] = baselines.item_knn
            rows["blend"] = lambda known: baselines.blend(known, weight)
        else:
            setting = self._chosen(_TIFUKNN, _tifuknn)
            rows["tifuknn"] = lambda known: _tifuknn(known, setting)
        for name, scores in rows.items():
            began = time.perf_counter()
            ranked = baselines.rank(frozen, scores(frozen), self.k)
            self.add(name, ranked, time.perf_counter() - began)

    def add_lightgbm(self, fit: Fit) -> None:
        """LightGBM on the questions of `fit`, whose seed it takes."""
        began = time.perf_counter()
        windows, held_out = fit.ranking_questions()

        def counted(window: RankerWindow, label: str) -> RankingExamples:
            return lightgbm_baseline.counted(
                window.asked, self.vocabulary, window.tables, label=label
            )

        ranker = lightgbm_baseline.LightGbmRanker(
            RankingExamples.joined([counted(window, "lightgbm train") for window in windows]),
            counted(held_out, "lightgbm choose"),
            fit.recipe.seed,
        )
        ranked = ranker.rank(self._situations(), self.vocabulary, self.tables, self.k)
        self.add("lightgbm", ranked, time.perf_counter() - began)

    def add_recommender(self, recommender: Recommender, seconds: float) -> None:
        """The recommender, its two vectors alone, and its answer to an unknown shopper."""
        found = recommender.rank(self._situations(), self.k, label="tillwise")
        self.add("tillwise", found["ranker"], seconds)
        self.add("tillwise/query-tower", found["query_tower"], 0.0)
        self.add("tillwise/sequence", found["sequence"], 0.0)
        if self.protocol == "basket-completion":
            unknown = recommender.rank(
                self._situations(unknown=True), self.k, label="tillwise, cart only"
            )
            self.add("tillwise/cart-only", unknown["ranker"], 0.0)

    def add_gap(self, gap: dict[str, dict[str, float]], model: str = "tillwise") -> None:
        """How the chosen model did on what it learned from and was chosen on, beside the test."""
        if not gap or self.protocol != "basket-completion":
            return
        for name, found in gap.items():
            for metric, value in found.items():
                self._values.setdefault(f"gap/{name}", {}).setdefault(metric, []).append(value)
            self._seconds[f"gap/{name}"] = 0.0
        tested = {metric: self._values[model][metric][-1] for metric in next(iter(gap.values()))}
        for metric, value in tested.items():
            self._values.setdefault("gap/test", {}).setdefault(metric, []).append(value)
        self._seconds["gap/test"] = 0.0

    def figures(self, command: str) -> Figures:
        """The table."""
        window = self.source.window
        figures = Figures(command)
        for name, row in self._values.items():
            figures.add(name, row, seconds=self._seconds[name], peak_mib=peak_mib())
        figures.notes.append(
            f"{self.protocol}: {len(self.cases)} test baskets from {window.train_until:%Y-%m-%d} "
            f"to {window.test_until:%Y-%m-%d}, {len(self.vocabulary.item_ids)} items, chosen on "
            f"{window.validate_from:%Y-%m-%d} onwards, full ranking"
        )
        figures.notes.append(self._slices.note())
        figures.notes.append("peak MiB is of the whole process so far, not of the row alone")
        if "gap/test" in self._values:
            figures.notes.append(
                "gap: up to 1,000 basket-completion questions each of the days that were learned "
                "from and chosen on, by the model before its refit; test as in the row tillwise"
            )
        if self.source.synthetic:
            figures.notes.append("the events are synthetic")
        return figures

    def _situations(self, *, unknown: bool = False) -> list[Situation]:
        baskets, timelines = self.source.baskets, self.source.timelines
        return [
            situation(case, baskets, timelines, self.cut_us, unknown=unknown) for case in self.cases
        ]

    def _frozen(self, source: Source, cases: list[Case], tables: ItemTables) -> Frozen:
        cut_us = to_us(source.window.train_until)
        return Frozen.at(cases, source.baskets, tables, self.vocabulary, cut_us)

    def _chosen(
        self, settings: tuple[Setting, ...], build: Callable[[Frozen, Setting], baselines.Scores]
    ) -> Setting:
        """The setting with the best NDCG on the validation days, everything counted before them."""
        earlier = replace(self.source, window=self.source.window.before())
        cut_us = to_us(earlier.window.train_until)
        tables = count(earlier.baskets, cut_us, self.vocabulary, earlier.catalogue)
        cases = cases_of(self.protocol, earlier.baskets, earlier.window, self.vocabulary)
        frozen = self._frozen(earlier, cases, tables)
        targets = [case.targets for case in cases]

        def quality(setting: Setting) -> float:
            ranked = baselines.rank(frozen, build(frozen, setting), self.k)
            return float(metrics.per_case(ranked, targets)[f"NDCG@{self.k}"].mean())

        return max(settings, key=quality)


def _tifuknn(frozen: Frozen, setting: tuple[int, float, float, int, float]) -> baselines.Scores:
    groups, within, across, neighbours, alpha = setting
    return baselines.tifuknn(
        frozen, groups=groups, within=within, across=across, neighbours=neighbours, alpha=alpha
    )

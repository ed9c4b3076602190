"""The table of `leave-one-out` and `session`: counting baselines, a model with sampled negatives,
and the recommended one with several seeds, all on the same questions."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.stats import binomtest

from contract.encoding import FIRST_ITEM
from contract.figures import Figures
from training.commands import peak_mib
from training.next_item.fit import NextItemFit, choose_knn, knn_places, sample
from training.next_item.measures import Floats, hit_rate, metrics_of
from training.next_item.recipe import SequenceRecipe
from training.next_item.recommender import KnnSetting, Neighbours, NextItemRecommender
from training.next_item.run_folder import NextItemRun
from training.next_item.sequences import Ints
from training.next_item.split import Split, asked_again
from training.next_item.task import places_in, seen_out

SAMPLED = 1_024  # negatives of the row that shows what the softmax over all items brings
COLD_ITEM, COLD_SHOPPER = 10, 3  # fewer occurrences in training, a shorter history
_TOGETHER = 256
Scores = Callable[[Ints], npt.NDArray[np.float32]]


class NextItemTable:
    """The questions of one split and the rows measured on them."""

    def __init__(self, split: Split) -> None:
        self.split, self.test = split, split.test
        self.learned = split.everything
        self._values: dict[str, dict[str, list[float]]] = {}
        self._seconds: dict[str, float] = {}
        self._slices = _slices(split)
        self._notes: list[str] = []
        self.knn: KnnSetting | None = None  # once it is chosen
        self._knn_places: Floats | None = None

    def add(self, name: str, places: Floats, seconds: float) -> None:
        """One run of the row `name`; further runs of the same name make its spread."""
        cutoff = self.split.cutoffs[-1]
        found = metrics_of(self.split.protocol, places, self.split.cutoffs)
        for part, chosen in self._slices.items():
            if chosen.any():
                found[f"{part} HR@{cutoff}"] = hit_rate(places[chosen], cutoff)
        row = self._values.setdefault(name, {})
        for metric, value in found.items():
            row.setdefault(metric, []).append(value)
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def add_counting(self, validation_examples: int) -> None:
        """Popularity, cosine item-kNN on the latest item, and VMIS-kNN tuned on validation."""
        began = time.perf_counter()
        size = len(self.split.vocabulary)
        counts = np.bincount(self.learned.item, minlength=size).astype(np.float32)
        self.add(
            "popularity", self._ranked(lambda rows: np.tile(counts, (len(rows), 1))), _since(began)
        )
        began = time.perf_counter()
        self.add("item-knn", self._ranked(_item_knn(self)), _since(began))
        began = time.perf_counter()
        setting = choose_knn(self.split, sample(self.split.held_out, validation_examples))
        self.knn = setting
        near = Neighbours.fit(self.learned, size, setting)
        self._knn_places = knn_places(near, self.test, self.split)
        self.add("session-knn", self._knn_places, _since(began))
        kept = setting.keeps_current and not self.split.exclude_seen
        self._notes.append(
            f"session-knn, chosen on validation: m={setting.m}, k={setting.k}, "
            f"{setting.query_items} items, the current item {'may' if kept else 'may not'} be "
            "answered"
        )

    def add_fit(self, fit: NextItemFit) -> None:
        """The recommended model of one seed, its members and its parts."""
        recommender = fit.run()
        report, chosen = fit.report, fit.chosen
        if chosen is not None:
            places = chosen.places_at(self.test, (0.0, chosen.mixture))
            seconds = report.first_member_seconds
            self.add("tillwise/before-refit-one-member", places[0.0], seconds)
            self.add("tillwise/before-refit", places[chosen.mixture], seconds)
        self.add_recommender(
            recommender, fit.recipe.seed, report.seconds, report.first_member_seconds
        )

    def add_recommender(
        self,
        recommender: NextItemRecommender,
        seed: int,
        seconds: float = 0.0,
        first_member_seconds: float = 0.0,
    ) -> None:
        """The rows of a fitted recommender; `seconds` are those of its fit."""
        alone = replace(recommender, members=recommender.members[:1])
        together = recommender.places_at(self.test, (0.0, recommender.mixture))
        single = alone.places_at(self.test, (0.0,))[0.0]
        self.add("tillwise/one-member", single, first_member_seconds)
        if len(recommender.members) > 1:
            self.add("tillwise/members", together[0.0], seconds)
        self.add("tillwise", together[recommender.mixture], seconds)
        self._notes.append(
            f"seed {seed}: share of session-knn in the mixture, chosen on validation: "
            f"{recommender.mixture:g}"
        )
        if self._knn_places is not None:
            both = {"one member": single, "tillwise": together[recommender.mixture]}
            for name, places in both.items():
                verdict = paired(name, places, self._knn_places, self.split.cutoffs[-1])
                self._notes.append(f"seed {seed}: {verdict}")

    def add_sampled(self, fit: NextItemFit) -> None:
        """One member with sampled negatives, nothing mixed in."""
        recommender = fit.run()
        alone = replace(recommender, neighbours=None)
        self.add(
            "tillwise/sampled-softmax", alone.places_at(self.test, (0.0,))[0.0], fit.report.seconds
        )

    def figures(self, command: str) -> Figures:
        """The table."""
        split = self.split
        figures = Figures(command)
        for name, row in self._values.items():
            figures.add(name, row, seconds=self._seconds[name], peak_mib=peak_mib())
        figures.notes.append(
            f"{split.protocol}: {len(self.test)} questions, {len(split.vocabulary.item_ids)} "
            f"items, {len(self.learned.item)} interactions learned from, full ranking; items "
            f"already seen {'are excluded' if split.exclude_seen else 'may be answered'}"
        )
        figures.notes += split.notes + self._notes
        figures.notes.append(
            f"cold item: fewer than {COLD_ITEM} times in training; cold shopper: a history of "
            f"fewer than {COLD_SHOPPER} items; the seconds of one-member are those of the training "
            "that validation stopped"
        )
        figures.notes.append("peak MiB is of the whole process so far, not of the row alone")
        return figures

    def _ranked(self, scores: Scores) -> Floats:
        """The places of all targets under `scores` of the questions' numbers, [B, N]."""
        found = np.empty(len(self.test))
        for start in range(0, len(self.test), _TOGETHER):
            rows = np.arange(start, min(start + _TOGETHER, len(self.test)))
            scores_BN = torch.from_numpy(scores(rows))
            scores_BN[:, :FIRST_ITEM] = float("-inf")
            if self.split.exclude_seen:
                seen_out(scores_BN, self.test.history, rows)
            found[rows] = places_in(scores_BN, self.test.target[rows])
        return found


def paired(name: str, own: Floats, knn: Floats, k: int) -> str:
    """McNemar's exact test of the hits of the row `name` and of session-knn on the same questions,
    in words."""
    hit, other = own <= k, knn <= k
    wins, losses = int((hit & ~other).sum()), int((other & ~hit).sum())
    chance = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    better = "session-knn" if losses > wins else name
    verdict = f"{better} wins" if chance < 0.05 else "neither wins"
    return (
        f"{name} against session-knn, hits in the first {k}: {wins} only by {name}, "
        f"{losses} only by session-knn, p={chance:.2g}: {verdict}"
    )


def _item_knn(table: NextItemTable) -> Scores:
    learned, size = table.learned, len(table.split.vocabulary)
    row = np.repeat(np.arange(len(learned)), learned.lengths)
    held = sparse.coo_array(
        (np.ones(len(row), np.float32), (row, learned.item)), shape=(len(learned), size)
    ).tocsr()
    held.data[:] = 1.0
    frequency = np.maximum(np.asarray(held.sum(axis=0)).ravel(), 1.0)
    scaled = held @ sparse.diags_array((1.0 / np.sqrt(frequency)).astype(np.float32))
    together = (scaled.T @ scaled).tocsr()
    together.setdiag(0.0)
    latest = table.test.history.last()
    return lambda rows: together[latest[rows]].toarray().astype(np.float32)


def _slices(split: Split) -> dict[str, npt.NDArray[np.bool_]]:
    """Which questions are about cold items, of cold shoppers, and about items seen before."""
    learned, test = split.everything, split.test
    counts = np.bincount(learned.item, minlength=len(split.vocabulary))
    slices = {
        "cold item": counts[test.target] < COLD_ITEM,
        "cold shopper": test.history.lengths < COLD_SHOPPER,
    }
    if not split.exclude_seen:
        again = asked_again(test)
        slices |= {"repeat": again, "explore": ~again}
    return slices


def _since(began: float) -> float:
    return time.perf_counter() - began


def next_item_table(
    command: str, split: Split, recipe: SequenceRecipe, seeds: int, device: torch.device
) -> Figures:
    """Baselines once, the models with `seeds` seeds."""
    table = NextItemTable(split)
    table.add_counting(recipe.validation_examples)
    for seed in range(recipe.seed, recipe.seed + seeds):
        chosen = replace(recipe, seed=seed)
        if not recipe.negatives:
            sampled = replace(chosen, members=1, negatives=SAMPLED)
            table.add_sampled(NextItemFit(split, sampled, device=device, knn=table.knn))
        table.add_fit(NextItemFit(split, chosen, device=device, knn=table.knn))
    figures = table.figures(command)
    figures.notes.append(f"recipe {recipe.name}, {seeds} seeds; seconds are summed over them")
    return figures


def run_table(command: str, split: Split, run: NextItemRun) -> Figures:
    """Baselines and a fitted run, whose items and protocol are those of `split`."""
    table = NextItemTable(split)
    table.add_counting(run.recipe.validation_examples)
    table.add_recommender(run.recommender, run.recipe.seed, run.seconds, run.first_member_seconds)
    return table.figures(command)

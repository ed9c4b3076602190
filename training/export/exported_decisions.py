"""Decisions made with exported files instead of the trained modules, on the run's validation days:
what a change of a file does to the answers is measured here, and never on the test days."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from contract.candidates import MAX_CANDIDATES
from contract.clock import to_us
from contract.encoding import CART, Encoded, Situation, Vocabulary, encode, stack
from contract.errors import UserError
from contract.items import Floats
from contract.manifest import QUERY_TOWER, RANKER, SEQUENCE_ENCODER, tensors
from contract.quotas import QUOTAS
from training.data.item_tables import ItemTables, count
from training.data.ranking_examples import NeuralSide, rank_inputs
from training.data.source import Source
from training.evaluation import metrics
from training.evaluation.gap import K, cases_between
from training.evaluation.protocols import Case, situation
from training.export.int8 import Inputs, session
from training.recommender import Numbers, nearest
from training.run_folder import Run

CASES = 2_000  # questions of each kind of shopper
CALIBRATION = 256  # checkouts from the days before
NEAREST = 100
_CHUNK = 64
_OUTPUTS = {QUERY_TOWER: "query_tower", SEQUENCE_ENCODER: "sequence"}


@dataclass(frozen=True)
class Answers:
    """What one set of files answers. T questions, of known shoppers first, then of the same ones
    as if unknown."""

    ranked: Numbers  # [T, 5] vocabulary indices, best first, -1 for none
    nearest: Mapping[str, Numbers]  # tower -> [T, NEAREST] nearest items, in float vectors
    ndcg: Mapping[str, float]  # "known" and "unknown" -> NDCG@5


@dataclass(frozen=True)
class Questions:
    """`basket-completion` on the validation days, everything counted before them. The weights of a
    finished run have learned from these days; it is two answers that are compared here, not one
    that is judged."""

    situations: Sequence[Situation]  # [T], known shoppers first
    targets: Sequence[Numbers]  # [T]
    encoded: Encoded  # [T, ...]
    tables: ItemTables
    vocabulary: Vocabulary
    item_vectors: Floats  # [N, D], in floats: the index is not quantised
    earlier: Sequence[Situation]  # checkouts before the validation days, to calibrate on

    @classmethod
    def of(cls, run: Run, source: Source, vectors_ND: torch.Tensor, seed: int = 0) -> "Questions":
        """UserError where `source` is not what `run` was fitted on, or asks nothing."""
        window, vocabulary = run.window, run.vocabulary
        validate_us, cut_us = to_us(window.validate_from), to_us(window.train_until)
        fitted_on = source.baskets.vocabulary(cut_us, run.recipe.min_item_baskets)
        if fitted_on.hash != vocabulary.hash:
            raise UserError(f"the data holds other items than {run.folder} was fitted on")
        cases = cases_between(source, vocabulary, validate_us, cut_us, CASES, seed)
        earlier_us = validate_us - (cut_us - validate_us)
        before = cases_between(source, vocabulary, earlier_us, validate_us, CALIBRATION, seed)
        if not cases or not before:
            raise UserError(
                f"no basket to judge int8 by between {window.validate_from:%Y-%m-%d} and "
                f"{window.train_until:%Y-%m-%d}, or none in as many days before"
            )

        def asked(cases: Sequence[Case], frozen_us: int) -> list[Situation]:
            baskets, timelines = source.baskets, source.timelines
            return [
                situation(case, baskets, timelines, frozen_us, unknown=unknown)
                for unknown in (False, True)
                for case in cases
            ]

        situations = asked(cases, validate_us)
        return cls(
            situations,
            [case.targets for case in cases] * 2,
            stack([encode(one, vocabulary) for one in situations]),
            count(source.baskets, validate_us, vocabulary, source.catalogue, source.timelines),
            vocabulary,
            vectors_ND.numpy(),
            asked(before, validate_us),
        )

    def answers(self, files: Mapping[str, bytes]) -> Answers:
        """The decisions of the models in `files`."""
        vectors = {
            tower: _run(files[model], self.encoded, model) for model, tower in _OUTPUTS.items()
        }
        near = {tower: self._nearest(found) for tower, found in vectors.items()}
        side = self._side(vectors, near)
        ranker, ranked = session(files[RANKER]), []
        for features, listed in _together(self._pairs(self.situations, side)):
            (scores,) = ranker.run(None, {"pair_features": features})
            for row, items in zip(scores, listed, strict=True):
                best = items[np.argsort(-row[: len(items)], kind="stable")[:K]]
                ranked.append(np.pad(best, (0, K - len(best)), constant_values=-1))
        table = np.stack(ranked)
        quality = metrics.per_case(table, self.targets)[f"NDCG@{K}"]
        half = len(quality) // 2
        ndcg = {"known": float(quality[:half].mean()), "unknown": float(quality[half:].mean())}
        return Answers(table, {tower: rows[:, :NEAREST] for tower, rows in near.items()}, ndcg)

    def calibration(self, files: Mapping[str, bytes]) -> dict[str, Inputs]:
        """Inputs of every model for the checkouts before the validation days."""
        encoded = stack([encode(one, self.vocabulary) for one in self.earlier])
        vectors = {tower: _run(files[model], encoded, model) for model, tower in _OUTPUTS.items()}
        side = self._side(vectors, {t: self._nearest(found) for t, found in vectors.items()})
        parts = [features for features, _ in _together(self._pairs(self.earlier, side))]
        return {
            **{model: _inputs(encoded, model) for model in _OUTPUTS},
            RANKER: {"pair_features": np.concatenate(parts)},
        }

    def _nearest(self, queries: Floats) -> Numbers:
        items = torch.from_numpy(self.item_vectors)
        wanted = max(NEAREST, *(QUOTAS[tower] + CART for tower in _OUTPUTS.values()))
        parts = torch.split(torch.from_numpy(queries), _CHUNK)
        found: Numbers = torch.cat([nearest(part, items, wanted) for part in parts]).numpy()
        return found

    def _side(self, vectors: Mapping[str, Floats], near: Mapping[str, Numbers]) -> NeuralSide:
        query, sequence = _OUTPUTS.values()
        return NeuralSide(
            self.item_vectors,
            vectors[query],
            vectors[sequence],
            near[query][:, : QUOTAS[query] + CART],
            near[sequence][:, : QUOTAS[sequence] + CART],
        )

    def _pairs(
        self, situations: Sequence[Situation], side: NeuralSide
    ) -> Iterator[tuple[Floats, Numbers]]:
        rows = rank_inputs(situations, self.vocabulary, self.tables, side, label="decisions")
        for _, merged, features in rows:
            yield features, merged.index


def _together(rows: Iterator[tuple[Floats, Numbers]]) -> Iterator[tuple[Floats, list[Numbers]]]:
    """Pair features as the ranker takes them, [at most _CHUNK, MAX_CANDIDATES, F], and the
    candidates of each row."""
    features: list[Floats] = []
    listed: list[Numbers] = []
    for computed, items in rows:
        padded = np.zeros((MAX_CANDIDATES, computed.shape[1]), np.float32)
        padded[: len(computed)] = computed
        features.append(padded)
        listed.append(items)
        if len(listed) == _CHUNK:
            yield np.stack(features), listed
            features, listed = [], []
    if listed:
        yield np.stack(features), listed


def _inputs(encoded: Encoded, model: str) -> Inputs:
    return {tensor.name: encoded[tensor.name] for tensor in tensors(model, 1)[0]}


def _run(content: bytes, encoded: Encoded, model: str) -> Floats:
    held, inputs = session(content), _inputs(encoded, model)
    count = len(next(iter(inputs.values())))
    parts = [
        held.run(None, {name: array[start : start + _CHUNK] for name, array in inputs.items()})[0]
        for start in range(0, count, _CHUNK)
    ]
    return np.concatenate(parts)

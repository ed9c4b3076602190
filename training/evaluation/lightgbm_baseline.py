"""The baseline that a user would pick instead: LightGBM lambdarank over counting features, on the
candidates of the counting sources, with its number of trees chosen on validation."""

from collections.abc import Sequence

import lightgbm
import numpy as np
import numpy.typing as npt

from contract.encoding import Situation, Vocabulary
from contract.pair_features import (
    COUNTING_FEATURES,
    PAIR_FEATURES,
)
from training.data.item_tables import ItemTables
from training.data.ranking_examples import NeuralSide, RankingExamples, build
from training.data.tower_examples import Question

_COLUMNS = [PAIR_FEATURES.index(name) for name in COUNTING_FEATURES]
_SETTINGS = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [5],
    "num_leaves": 31,
    "learning_rate": 0.06,
    "min_child_samples": 50,
    "lambdarank_truncation_level": 10,
    "feature_fraction": 0.8,
    "num_threads": 2,
    "verbose": -1,
}
_ROUNDS, _PATIENCE = 400, 30
Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def without_models(cases: int, vocabulary: Vocabulary) -> NeuralSide:
    """A neural side that says nothing."""
    nothing = np.zeros((cases, 1), np.float32)
    nobody = np.zeros((cases, 0), np.int64)
    return NeuralSide(np.zeros((len(vocabulary), 1), np.float32), nothing, nothing, nobody, nobody)


def counted(
    asked: Sequence[Question], vocabulary: Vocabulary, tables: ItemTables, *, label: str
) -> RankingExamples:
    """Candidates and counting features of `asked`."""
    return build(
        [question.situation for question in asked],
        [question.targets for question in asked],
        vocabulary,
        tables,
        without_models(len(asked), vocabulary),
        label=label,
    )


class LightGbmRanker:
    """Fitted on `examples`, stopped on `held_out`."""

    def __init__(self, examples: RankingExamples, held_out: RankingExamples, seed: int) -> None:
        train, early = _dataset(examples), _dataset(held_out)
        self.model = lightgbm.train(
            {**_SETTINGS, "seed": seed},
            train,
            _ROUNDS,
            valid_sets=[early],
            callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
        )

    def rank(
        self,
        situations: Sequence[Situation],
        vocabulary: Vocabulary,
        tables: ItemTables,
        k: int,
    ) -> Numbers:
        """The k best candidates of each situation, [cases, k], -1 where there are fewer."""
        asked = [Question(situation, np.empty(0, np.int64)) for situation in situations]
        examples = counted(asked, vocabulary, tables, label="lightgbm")
        scores = np.full(examples.index.shape, -np.inf)
        scores[examples.mask] = self.model.predict(_counting(examples))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.where(
            np.isfinite(np.take_along_axis(scores, best, axis=1)),
            np.take_along_axis(examples.index, best, axis=1),
            -1,
        )


def _counting(examples: RankingExamples) -> Floats:
    """The counting features of every candidate, [rows, len(COUNTING_FEATURES)]."""
    return examples.features[examples.mask][:, _COLUMNS].astype(np.float32)


def _dataset(examples: RankingExamples) -> lightgbm.Dataset:
    mask = examples.mask
    return lightgbm.Dataset(
        _counting(examples),
        examples.relevant[mask].astype(np.int32),
        group=mask.sum(axis=1),
    )

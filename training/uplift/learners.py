"""T-, X- and DR-learners on LightGBM, with the propensities that were logged.

T: a model per arm. X (Kuenzel et al., 2019): the effects imputed from it, learned once on the
treated and once on the others, mixed by the propensity. DR (Kennedy, 2023): doubly robust pseudo-
outcomes from models that did not see the row. Written here because the packages that have them
(econml, causalml) estimate the propensity, which is known here, and bring ten packages along.
"""

from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from training.data.offer_log import Floats, OfferLog

_SETTINGS = {
    "learning_rate": 0.05,
    "num_leaves": 15,
    "max_bin": 63,
    "min_data_in_leaf": 100,
    "lambda_l2": 5.0,
    "feature_fraction": 0.8,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
}
_MOST_TREES, _PATIENCE, _FOLDS = 400, 30, 2

Matrix = npt.NDArray[np.floating[Any]]
Learner = Callable[[OfferLog, OfferLog, OfferLog, int], tuple[Floats, Floats]]


class _Trees:
    """Gradient boosting, stopped where the held-out rows say; the mean where there are none, or
    nothing to learn from."""

    def __init__(
        self,
        features: Matrix,
        target: Floats,
        weight: Floats,
        held_out: tuple[Matrix, Floats, Floats],
        seed: int,
        *,
        chance: bool,
    ) -> None:
        self._booster: lgb.Booster | None = None
        self._mean = float(np.average(target, weights=weight)) if len(target) else 0.0
        if not len(target) or not len(held_out[1]):
            return
        objective = {"objective": "binary" if chance else "regression", "seed": seed}
        train = lgb.Dataset(features, target, weight=weight, free_raw_data=False)
        check = lgb.Dataset(held_out[0], held_out[1], weight=held_out[2], reference=train)
        self._booster = lgb.train(
            _SETTINGS | objective,
            train,
            _MOST_TREES,
            valid_sets=[check],
            callbacks=[lgb.early_stopping(_PATIENCE, verbose=False)],
        )

    def predict(self, features: Matrix) -> Floats:
        if self._booster is None:
            return np.full(len(features), self._mean)
        return np.asarray(self._booster.predict(features, num_threads=1), np.float64)


def _levels(train: OfferLog, validation: OfferLog, seed: int) -> list[_Trees]:
    """A model of the outcome for every arm."""
    models = []
    for arm in range(len(train.arms)):
        learn, check = train.take(train.arm == arm), validation.take(validation.arm == arm)
        weights = [1.0 / part.propensity[:, arm] for part in (learn, check)]
        held_out = (check.features, check.outcome, weights[1])
        models.append(
            _Trees(learn.features, learn.outcome, weights[0], held_out, seed, chance=True)
        )
    return models


def t_learner(
    train: OfferLog, validation: OfferLog, test: OfferLog, seed: int
) -> tuple[Floats, Floats]:
    """The level of no offer [N] and the effect of every other arm [N, A - 1] on `test`."""
    chances = np.stack([m.predict(test.features) for m in _levels(train, validation, seed)], axis=1)
    return chances[:, 0], chances[:, 1:] - chances[:, :1]


class XLearner:
    """An X-learner that can be asked about any log with the same features and arms."""

    def __init__(self, train: OfferLog, validation: OfferLog, seed: int) -> None:
        self._levels = _levels(train, validation, seed)
        self._sides = [
            tuple(
                self._side(train, validation, seed, *pair)
                for pair in ((arm, 0, 1.0), (0, arm, -1.0))
            )
            for arm in range(1, len(train.arms))
        ]

    def _side(
        self, train: OfferLog, validation: OfferLog, seed: int, own: int, other: int, sign: float
    ) -> _Trees:
        """Of those with the arm `own`: the effects that the level of the arm `other` imputes."""
        learn, check = train.take(train.arm == own), validation.take(validation.arm == own)
        told = [
            sign * (part.outcome - self._levels[other].predict(part.features))
            for part in (learn, check)
        ]
        held_out = (check.features, told[1], np.ones(len(check)))
        return _Trees(learn.features, told[0], np.ones(len(learn)), held_out, seed, chance=False)

    def tell(self, log: OfferLog) -> tuple[Floats, Floats]:
        """The level of no offer [N] and the effect of every other arm [N, A - 1]."""
        effects = []
        for arm, (treated, others) in enumerate(self._sides, start=1):
            either = log.propensity[:, arm] + log.propensity[:, 0]
            share = np.divide(
                *(log.propensity[:, arm], either), out=np.full(len(log), 0.5), where=either > 0
            )
            told = treated.predict(log.features), others.predict(log.features)
            effects.append((1.0 - share) * told[0] + share * told[1])
        return self._levels[0].predict(log.features), np.stack(effects, axis=1)


def x_learner(
    train: OfferLog, validation: OfferLog, test: OfferLog, seed: int
) -> tuple[Floats, Floats]:
    """As `t_learner`."""
    return XLearner(train, validation, seed).tell(test)


def dr_learner(
    train: OfferLog, validation: OfferLog, test: OfferLog, seed: int
) -> tuple[Floats, Floats]:
    """As `t_learner`."""
    fold = np.random.default_rng(seed).permutation(len(train)) % _FOLDS
    pseudo = np.zeros((len(train), len(train.arms) - 1))
    for number in range(_FOLDS):
        apart, here = train.take(fold != number), fold == number
        pseudo[here] = _pseudo(train.take(here), _levels(apart, validation, seed))
    levels = _levels(train, validation, seed)
    held_out = _pseudo(validation, levels)
    effects = []
    for arm in range(pseudo.shape[1]):
        check = (validation.features, held_out[:, arm], np.ones(len(validation)))
        ones = np.ones(len(train))
        model = _Trees(train.features, pseudo[:, arm], ones, check, seed, chance=False)
        effects.append(model.predict(test.features))
    return levels[0].predict(test.features), np.stack(effects, axis=1)


def _pseudo(log: OfferLog, levels: list[_Trees]) -> Floats:
    """[N, A - 1] doubly robust effects of `log`, whose outcomes `levels` have not learned."""
    told = np.stack([level.predict(log.features) for level in levels], axis=1)
    row = np.arange(len(log))
    beyond = (log.outcome - told[row, log.arm]) / log.propensity[row, log.arm]
    told[row, log.arm] += beyond
    effects: Floats = told[:, 1:] - told[:, :1]
    return effects


LEARNERS: dict[str, Learner] = {
    "t-learner": t_learner,
    "x-learner": x_learner,
    "dr-learner": dr_learner,
}

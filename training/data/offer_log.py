"""Decisions that were made at random, whatever they were about: what uplift is learned from."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OfferLog:
    """Randomised decisions. Shapes: N decisions, F features, A arms (0 is no offer)."""

    arms: tuple[str, ...]  # [A]
    features: npt.NDArray[np.float32]  # [N, F]
    feature_names: tuple[str, ...]
    subject: Ints  # [N] the same number for the same person
    decided_us: Ints  # [N]
    arm: Ints  # [N]
    propensity: Floats  # [N, A]
    outcome: Floats  # [N] 0 or 1
    spend: Floats  # [N] 0 where the outcome is 0
    value: Floats  # [N] what a purchase would be worth before reductions; 1 where not known
    margin: Floats  # [N] of a purchase, before reductions, minor units
    reduction: Floats  # [N, A] what each arm takes off a purchase

    def __len__(self) -> int:
        return len(self.arm)

    def take(self, rows: npt.NDArray[Any]) -> "OfferLog":
        """The decisions `rows` alone."""
        return OfferLog(
            **{
                field.name: value[rows] if isinstance(value, np.ndarray) else value
                for field in fields(self)
                for value in [getattr(self, field.name)]
            }
        )


def margins(log: OfferLog, chances: Floats) -> Floats:
    """[N, A] what every arm is expected to earn where the outcome has `chances` [N, A]."""
    earned: Floats = chances * (log.margin[:, None] - log.reduction)
    return earned

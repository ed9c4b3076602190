"""What of a decision is held against the training window, named alike where the profile of the one
and of the other is made."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from contract.drift_profile import Profile, Values
from contract.pair_features import PAIR_FEATURES, PAIR_FEATURES_VERSION

SCORE: Final = "score"  # of each shown item
LEAD: Final = "lead"  # of the best one before the second
CART_VECTOR: Final = "cart"  # the middle of the vectors of the items in the cart


@dataclass
class Served:
    """Decisions as they were logged, columns growing row by row."""

    vectors: Mapping[str, Values] = field(default_factory=dict)  # of items by their ids, [D] each
    features: list[list[float]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    leads: list[float] = field(default_factory=list)
    carts: list[Values] = field(default_factory=list)
    decisions: int = 0

    def add(self, decision: Mapping[str, Any]) -> None:
        """A logged decision. Only what the ranker ordered by what it knew of a shopper is taken,
        and nothing that a rule put there."""
        shown = decision.get("shown")
        if decision.get("rung") != "full" or not isinstance(shown, list):
            return
        if decision.get("pair_features_version") != PAIR_FEATURES_VERSION:
            return
        own = [one for one in shown if "rule" not in one and "pair_features" in one]
        rows = [one["pair_features"] for one in own]
        rows = [row for row in rows if len(row) == len(PAIR_FEATURES)]
        if not rows:
            return
        self.decisions += 1
        self.features += rows
        found = [float(one["score"]) for one in own]
        self.scores += found
        if len(found) > 1:
            self.leads.append(found[0] - found[1])
        held = [self.vectors[one] for one in decision.get("cart") or () if one in self.vectors]
        if held:
            self.carts.append(np.mean(held, axis=0))

    def profile(self, baseline: Profile) -> Profile:
        """Counted in the bins of `baseline`."""
        rows = np.array(self.features, np.float64).reshape(-1, len(PAIR_FEATURES))
        columns: dict[str, Values] = {
            name: rows[:, place] for place, name in enumerate(PAIR_FEATURES)
        }
        columns |= {SCORE: np.array(self.scores), LEAD: np.array(self.leads)}
        vectors = {CART_VECTOR: np.stack(self.carts)} if self.carts else {}
        return baseline.counted(columns, self.decisions, vectors)


def added(profiles: Iterable[Profile], baseline: Profile) -> Profile:
    """All of them as one; empty bins where there is none."""
    total = baseline.counted({}, 0)
    for one in profiles:
        total = total.plus(one)
    return total

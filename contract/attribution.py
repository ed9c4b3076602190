"""What a ranker's score owes to each kind of evidence: exact Shapley values of groups of pair
features, for a ranker that scores every candidate by itself.

A group that is absent has the values of a background, the pair features of usual candidates, and
the score is averaged over it (interventional Shapley values: Lundberg and Lee, 2017, with the
groups as players). With so few groups every coalition is asked, so nothing is estimated. What is
the same for all candidates of a checkout (how well the shopper is known, the cart's size) explains
no order and always keeps its values.

S shown items, G groups, F pair features, K rows of background, L = 2 ** G coalitions.
"""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.cart_fit import CART_FIT
from contract.compiled import FLOATS_2D, MASK_2D, compiled
from contract.items import LEVELS, Floats
from contract.own_baskets import COMPANIONS, HABITS
from contract.pair_features import PAIR_FEATURES

# Group -> its features, in the words of the reasons that a shopper is given.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "bought_before": (
        *("baskets", "basket_share", "weight_60d", "weight_14d", "weight_rank"),
        *("days_since_bought", "due_ratio", "own_gap_days", "in_last_basket"),
    ),
    "goes_with_cart": (
        *("cart_similarity", "cart_similarity_mean"),
        *("category_in_cart", "wide_category_in_cart"),
        *COMPANIONS,
        *CART_FIT,
        *(f"{level}_lift{which}" for level in LEVELS for which in ("", "_max")),
    ),
    "similar_shoppers": ("session_knn", "query_tower", "sequence"),
    "your_taste": (
        *("category_weight", "wide_category_weight", "price_against_own", "staples_similarity"),
        *(f"{level}_{name}" for level in LEVELS for name in HABITS),
    ),
    "popular_now": (
        *("popularity", "recent_popularity", "weekly_popularity", "trend", "repeat_rate"),
        *("item_gap_days", "buyers", "baskets_per_buyer", "price"),
    ),
}
SHARED: Final = ("subject_known", "subject_baskets", "days_since_visit", "cart_size")
NUM_COALITIONS: Final = 1 << len(GROUPS)

Score = Callable[[Floats], Floats]  # pair features [rows, F] -> scores [rows]


@dataclass(frozen=True)
class Background:
    """Usual candidates: `rows` [K, F] of pair features, `weight` [K] adding up to one."""

    rows: Floats
    weight: Floats

    def as_bytes(self) -> bytes:
        """The file of it that a release carries."""
        file = io.BytesIO()
        np.savez(file, rows=self.rows, weight=self.weight)
        return file.getvalue()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> "Background":
        """Raises KeyError for a missing array, ValueError for one that does not fit."""
        rows, weight = (np.asarray(arrays[name], np.float32) for name in ("rows", "weight"))
        if rows.ndim != 2 or not len(rows) or rows.shape[1] != len(PAIR_FEATURES):
            raise ValueError(f"rows have shape {rows.shape}, not [K, {len(PAIR_FEATURES)}]")
        if weight.shape != rows.shape[:1] or not np.isfinite(rows).all():
            raise ValueError("rows and weight do not fit, or are not finite")
        if (weight < 0).any() or not math.isclose(weight.sum(), 1.0, abs_tol=1e-3):
            raise ValueError("the weights are no shares of one")
        return cls(rows, weight)


def attributions(shown: Floats, background: Background, score: Score) -> Floats:
    """What each group adds to the score of each item, [S, G] in the order of `GROUPS`: together
    the score less that of the background, for pair features `shown` [S, F]."""
    size, usual = len(shown), background.rows
    scores = score(_asked(shown, usual, _PRESENT)).reshape(size, NUM_COALITIONS, len(usual))
    found: Floats = ((scores @ background.weight) @ WEIGHT.T).astype(np.float32)
    return found


@compiled(FLOATS_2D, FLOATS_2D, MASK_2D)
def _asked(shown: Floats, usual: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    """[S * L * K, F]: the item's own values where the coalition has them, else the background's."""
    coalitions, features = present.shape
    asked = np.empty((len(shown) * coalitions * len(usual), features), np.float32)
    row = 0
    for item in range(len(shown)):
        for coalition in range(coalitions):
            for background in range(len(usual)):
                for one in range(features):
                    own = shown[item, one]
                    asked[row, one] = own if present[coalition, one] else usual[background, one]
                row += 1
    return asked


def part_of() -> npt.NDArray[np.int64]:
    """The group of each feature, [F]: its place in `GROUPS`, or the one after them for `SHARED`."""
    group = {name: place for place, names in enumerate(GROUPS.values()) for name in names}
    group |= dict.fromkeys(SHARED, len(GROUPS))
    return np.array([group[name] for name in PAIR_FEATURES], np.int64)


def members() -> npt.NDArray[np.bool_]:
    """Whether each coalition has each part, [L, G + 1]: bit g of a coalition's number is group g,
    and what is shared is in all of them."""
    groups = np.arange(NUM_COALITIONS)[:, None] >> np.arange(len(GROUPS)) & 1
    return np.hstack((groups, np.ones((NUM_COALITIONS, 1), np.int64))).astype(bool)


def _weights() -> Floats:
    """[G, L]: Shapley's weight of every coalition in the value of every group, negative for those
    without it."""
    players = range(len(GROUPS))
    weight = np.zeros((len(GROUPS), NUM_COALITIONS), np.float32)
    for group in players:
        others = [one for one in players if one != group]
        for size in range(len(GROUPS)):
            share = 1.0 / (len(GROUPS) * math.comb(len(GROUPS) - 1, size))
            for coalition in combinations(others, size):
                number = sum(1 << one for one in coalition)
                weight[group, number] -= share
                weight[group, number | 1 << group] += share
    return weight


_PRESENT: Final = np.ascontiguousarray(members()[:, part_of()])  # [L, F]
WEIGHT: Final = _weights()

"""Behaviour as a vector of fixed length, and the segments that are learned from it: the same
function for everybody that clustering looks at and for the one shopper that serving assigns."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.compiled import FLOAT, FLOATS, INT, array, compiled, records
from contract.evidence_rows import BROWSED, PROMOTION
from contract.features import SubjectView
from contract.orders import ORDERED, mean_of
from contract.segment_config import SegmentConfig
from contract.segments import Membership, names

Vectors = npt.NDArray[np.float64]

BEHAVIOUR_VERSION: Final = 1  # raise it when a figure means something else
ORDER_DAYS, LOOK_DAYS, LONGEST_DAYS = 90, 30, 365
# Counts and amounts are told by their logarithm (log1p): twice as much is one step, however much.
LOGARITHMIC: Final = (
    "orders",
    "gap_days",
    "days_since_order",
    "items_per_order",
    "spend_per_order",
    "items_viewed",
    "categories_viewed",
    "promotions",
)
SHARES: Final = ("coupon_share", "repeat_share")
BEHAVIOUR: Final = (*LOGARITHMIC, *SHARES)
_NUM_LOGARITHMIC = len(LOGARITHMIC)
_GAP_DAYS, _ITEMS, _SPEND, _REPEATS = (
    BEHAVIOUR.index(name) for name in ("gap_days", "items_per_order", "spend_per_order", SHARES[1])
)
_ROWS: Final = (records(ORDERED), records(BROWSED.dtype), records(PROMOTION.dtype))


def figures_of_behaviour(view: SubjectView) -> Vectors:
    """`BEHAVIOUR` in its own units, [len(BEHAVIOUR)].

    orders: of the last 90 days. gap_days: mean time between orders. days_since_order: whole days,
    at most 365, which also stands for no order at all. items_per_order. spend_per_order: minor
    units. items_viewed, categories_viewed, promotions: of the last 30 days. coupon_share: of all
    orders. repeat_share: of all order lines, those of an item that had been bought before.
    """
    told: Vectors = _figures(*_told_from(view))
    return told


def _told_from(view: SubjectView) -> tuple[Any, ...]:
    rows = view.orders, view.browsed, view.promotions, view.rhythm
    return *rows, len(view.purchased), len(view.lines), view.now_us


@compiled(*_ROWS, INT)
def _counted(orders: Any, browsed: Any, promotions: Any, now_us: int) -> Vectors:
    """What of `BEHAVIOUR` is counted in rows (oldest first), the rest 0. An event counts until it
    is as old as the days say."""
    told, day_us = np.zeros(10), 86_400_000_000  # contract.clock.DAY_US
    told[2] = LONGEST_DAYS
    coupons, since_us = 0, now_us - ORDER_DAYS * day_us
    for row in range(len(orders)):
        told[0] += orders[row].occurred_us > since_us
        coupons += orders[row].coupon != 0
    if len(orders):
        # Whole days: so the vector changes at known moments only, and "since when" has an answer.
        days = (now_us - orders[len(orders) - 1].occurred_us) // day_us
        told[2] = min(days, LONGEST_DAYS)
        told[8] = coupons / len(orders)
    since_us = now_us - LOOK_DAYS * day_us
    for row in range(len(promotions)):
        told[7] += promotions[row].occurred_us > since_us
    for row in range(len(browsed)):
        if browsed[row].occurred_us <= since_us:
            continue
        new_item = new_category = True
        for before in range(row):
            if browsed[before].occurred_us <= since_us:
                continue
            new_item &= browsed[before].item_key != browsed[row].item_key
            new_category &= browsed[before].category_key != browsed[row].category_key
        told[5] += new_item
        told[6] += new_category
    return told


@compiled(*_ROWS, FLOATS, INT, INT, INT)
def _figures(
    orders: Any, browsed: Any, promotions: Any, rhythm: Any, items: int, lines: int, now_us: int
) -> Vectors:
    told: Vectors = _counted(orders, browsed, promotions, now_us)
    told[_GAP_DAYS], told[_ITEMS] = rhythm[2], rhythm[3]
    told[_SPEND] = mean_of(orders, np.uint64(0))
    if lines:
        told[_REPEATS] = 1.0 - items / lines
    return told


@compiled(*_ROWS, FLOATS, INT, INT, INT)
def behaviour_of(
    orders: Any, browsed: Any, promotions: Any, rhythm: Any, items: int, lines: int, now_us: int
) -> Vectors:
    """`behaviour`, for compiled loops: of how many `items` there are `lines` of baskets."""
    told: Vectors = _figures(orders, browsed, promotions, rhythm, items, lines, now_us)
    for place in range(_NUM_LOGARITHMIC):
        told[place] = np.log1p(told[place])
    return told


def behaviour(view: SubjectView) -> Vectors:
    """What is clustered: `figures_of_behaviour`, the logarithmic ones as log1p."""
    told: Vectors = behaviour_of(*_told_from(view))
    return told


def never_ordered(vectors: Vectors) -> Any:
    """Of each of `behaviour` vectors [..., len(BEHAVIOUR)], whether there was no order."""
    return vectors[..., _ITEMS] == 0


def in_units(vectors: Vectors) -> Vectors:
    """The figures of `behaviour` vectors [..., len(BEHAVIOUR)] back in their own units."""
    figures = vectors.copy()
    figures[..., :_NUM_LOGARITHMIC] = np.expm1(figures[..., :_NUM_LOGARITHMIC])
    return figures


@compiled(*[array(FLOAT, n) for n in (2, 1, 1, 2)])
def _nearest(
    vectors: Vectors, mean: Vectors, scale: Vectors, centroids: Vectors
) -> npt.NDArray[np.int64]:
    """The place of the centroid that is nearest to each row, once that is told in standard
    deviations from the mean."""
    found = np.zeros(len(vectors), np.int64)
    for row in range(len(vectors)):
        least = np.inf
        for place in range(len(centroids)):
            apart = 0.0
            for column in range(len(mean)):
                own = 0.0
                if scale[column] != 0:
                    own = (vectors[row, column] - mean[column]) / scale[column]
                apart += (own - centroids[place, column]) ** 2
            if apart < least:
                found[row], least = place, apart
    return found


@dataclass(frozen=True, eq=False)
class LearnedSegments:
    """Segments by their centroids. Shapes: k segments, B = len(BEHAVIOUR)."""

    names: tuple[str, ...]  # [k]
    mean: Vectors  # [B]
    scale: Vectors  # [B] standard deviation; 0 where everybody was alike: counts for nothing
    centroids: Vectors  # [k, B] standardised
    # Whether they are also of those who have never ordered: a share of whom they were learned from.
    of_browsers: bool = True

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The names as rules and offers write them."""
        return tuple(f"learned/{re.sub(r'[^a-z0-9]+', '_', name.lower())}" for name in self.names)

    def standardised(self, vectors: Vectors) -> Vectors:
        """`behaviour` vectors [..., B] as distances from the mean in standard deviations."""
        alike = self.scale == 0
        return np.where(alike, 0.0, (vectors - self.mean) / np.where(alike, 1.0, self.scale))

    def nearest(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        """The segment of each of `vectors` [n, B]; the first where two are equally near."""
        nearest: npt.NDArray[np.int64] = _nearest(vectors, self.mean, self.scale, self.centroids)
        return nearest

    def of(self, view: SubjectView) -> int | None:
        """The segment of a shopper; None for one nothing is known about, or who is none of those
        that they were learned from."""
        if not view.known:
            return None
        vector = behaviour(view)
        if not self.of_browsers and never_ordered(vector):
            return None
        return int(self.nearest(vector[None])[0])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is written to `segments.npz`."""
        return {
            "behaviour_version": np.array(BEHAVIOUR_VERSION),
            "behaviour": np.array(BEHAVIOUR),
            "names": np.array(self.names),
            "mean": self.mean,
            "scale": self.scale,
            "centroids": self.centroids,
            "of_browsers": np.array(self.of_browsers),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "LearnedSegments":
        """What `arrays` wrote. KeyError naming what is missing, ValueError saying what is wrong."""
        version, told = int(arrays["behaviour_version"]), tuple(arrays["behaviour"].tolist())
        if version != BEHAVIOUR_VERSION or told != BEHAVIOUR:
            raise ValueError(
                f"learned from behaviour {version}, this version has {BEHAVIOUR_VERSION}; "
                "run `tillwise-train segments` and export again"
            )
        titles = tuple(str(name) for name in arrays["names"].tolist())
        mean, scale, centroids = (
            np.asarray(arrays[name], np.float64) for name in ("mean", "scale", "centroids")
        )
        width = (len(BEHAVIOUR),)
        if (mean.shape, scale.shape, centroids.shape) != (width, width, (len(titles), *width)):
            raise ValueError("mean, scale and centroids do not fit one another")
        if not titles or len(set(titles)) < len(titles) or not all(titles):
            raise ValueError("needs one name for each segment")
        if not all(np.isfinite(each).all() for each in (mean, scale, centroids)):
            raise ValueError("holds a value that is not a finite number")
        if (scale < 0).any():
            raise ValueError("a standard deviation is below zero")
        # Earlier files do not say it.
        return cls(titles, mean, scale, centroids, bool(arrays.get("of_browsers", True)))


def in_effect(
    view: SubjectView,
    membership: Membership,
    rules: SegmentConfig,
    learned: LearnedSegments | None,
) -> tuple[str, ...]:
    """The names of all segments in effect for a decision: those of `membership` (a situation's
    `segments`), then the learned one. What rules and offers decide by and what a decision logs."""
    held = names(membership, rules)
    segment = None if learned is None else learned.of(view)
    return held if learned is None or segment is None else (*held, learned.keys[segment])

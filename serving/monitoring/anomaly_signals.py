"""Which key figures are watched, in which direction, and what chance does to each: a figure becomes
counts out of exposures, from the counters that add up."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from serving.monitoring.anomaly import Floats, Signal
from serving.monitoring.kpi_metrics import CLASSES, EDGES_MS, PLACE

# Counters of T buckets in the order of COUNTERS, [T, C].
Counters = Floats
_USUAL_SHARE: Final = 0.1  # of decisions that are slower than the edge which latency is judged by


@dataclass(frozen=True)
class Watched:
    """One figure: `metric` is its name among METRICS; figures of one `family` move together, and
    what is wrong with them at one time is one matter. `direction` where it would be bad, and
    `least` the log ratio of `k / n` below which nobody minds. `ripens`: its cases are counted at
    the beginning of a visit, so those of the last half hour are not all there. `parts`: k and n of
    counters, given those of the whole shop and the scale that `scaled` told."""

    metric: str
    family: str
    direction: int
    least: float
    parts: Callable[[Counters, Counters, float], tuple[Floats, Floats]]
    phi: Callable[[Counters, float], float]
    scaled: Callable[[Counters], float] = lambda _: 1.0
    ripens: bool = False
    rare: bool = False  # a handful of cases in weeks is what should be
    # Nobody minds as long as that figure is not worse: in a promotion more people buy for less.
    excused_by: str | None = None
    by_time: bool = False  # of the whole shop the exposure is time
    cuts: tuple[str, ...] = ("device", "country", "segment", "experiment")

    def signal(
        self,
        counters: Counters,
        whole: Counters,
        scale: float,
        phi: float,
        hours: float | Floats = 1.0,
    ) -> Signal:
        """Of a slice's `counters` and those of the `whole` shop, of buckets of so many hours, all
        of them or each."""
        k, n = self.parts(counters, whole, scale)
        if counters is whole and self.by_time:
            n = np.broadcast_to(np.asarray(hours, dtype=np.float64), k.shape)
        return Signal(np.maximum(k, 0.0), np.maximum(n, 0.0), phi)


def _of(counters: Counters, name: str) -> Floats:
    column: Floats = counters[:, PLACE[name]]
    return column


def _sum(counters: Counters, name: str) -> float:
    return float(counters[:, PLACE[name]].sum())


def _share(over: str, under: str) -> Callable[[Counters, Counters, float], tuple[Floats, Floats]]:
    return lambda own, whole, scale: (_of(own, over), _of(own, under))


def _rest(under: str, without: str) -> Callable[[Counters, Counters, float], tuple[Floats, Floats]]:
    """The cases of `under` that are not of `without`."""
    return lambda own, whole, scale: (_of(own, under) - _of(own, without), _of(own, under))


def _of_cases(over: str, under: str, *, rest: bool = False) -> Callable[[Counters, float], float]:
    """Of yes and no, 1 - p: half of all at the least, as many are one person's."""

    def phi(own: Counters, scale: float) -> float:
        cases = max(_sum(own, under), 1.0)
        share = _sum(own, over) / cases
        return max(1 - (1 - share if rest else share), 0.1)

    return phi


def _squared_spread(own: Counters) -> float:
    """Variance of an order by its squared mean, of those that say what they are worth."""
    valued = max(_sum(own, "valued"), 1.0)
    mean = _sum(own, "revenue") / valued
    if mean <= 0:
        return 1.0
    return max(_sum(own, "revenue_squares") / valued / mean**2 - 1, 0.05)


def _mean_order(own: Counters) -> float:
    return max(_sum(own, "revenue") / max(_sum(own, "valued"), 1.0), 1e-9)


def _usual_edge(own: Counters) -> float:
    """The class from which on about a tenth of all decisions were."""
    by_class = own[:, PLACE[CLASSES[0]] : PLACE[CLASSES[0]] + len(CLASSES)].sum(axis=0)
    beyond = by_class[::-1].cumsum()[::-1] / max(by_class.sum(), 1.0)
    off = np.abs(np.log(np.maximum(beyond[1:], 1e-6) / _USUAL_SHARE))
    return float(1 + int(np.argmin(off)))


def _slower(own: Counters, whole: Counters, scale: float) -> tuple[Floats, Floats]:
    first = PLACE[CLASSES[0]]
    found: Floats = own[:, first + int(scale) : first + len(CLASSES)].sum(axis=1)
    return found, _of(own, "timed")


def latency_edge_ms(scale: float) -> float:
    """The edge that latency is judged by, of the class that `scaled` told."""
    return float(EDGES_MS[int(scale) - 1])


_LITTLE, _SOME, _MUCH = math.log(1 / 0.97), math.log(1 / 0.95), math.log(2.0)
_WATCHED: Final = (
    # Orders by their own time, not by their visit's: nothing has to ripen, so it shows sooner.
    Watched(
        *("conversion", "sales", -1, _LITTLE, _share("orders", "visits")),
        phi=_of_cases("orders", "visits"),
    ),
    Watched(
        *("order_value", "sales", -1, _LITTLE),
        lambda own, whole, scale: (_of(own, "revenue") / scale, _of(own, "valued")),
        phi=lambda own, scale: _squared_spread(own),
        scaled=_mean_order,
        excused_by="revenue_per_decision",
    ),
    Watched(
        *("revenue_per_decision", "sales", -1, _SOME),
        lambda own, whole, scale: (_of(own, "decided_revenue") / scale, _of(own, "decisions")),
        phi=lambda own, scale: 1 + _squared_spread(own),
        scaled=_mean_order,
    ),
    Watched(
        *("abandonment", "sales", -1, _LITTLE, _rest("carts", "abandoned")),
        phi=_of_cases("abandoned", "carts", rest=True),
        ripens=True,
    ),
    Watched(
        *("take_rate", "sales", -1, _SOME, _share("taken", "shown")),
        phi=_of_cases("taken", "shown"),
        ripens=True,
    ),
    Watched(
        *("latency_ms", "speed", 1, _MUCH, _slower),
        phi=lambda own, scale: 1.0,
        scaled=_usual_edge,
        rare=True,
    ),
    Watched(
        *("rung_full", "speed", 1, math.log(1.5), _rest("decisions", "rung_full")),
        phi=lambda own, scale: 1.0,
        rare=True,
    ),
    Watched(
        *("consent_rate", "consent", -1, _SOME, _share("personal", "decisions")),
        phi=_of_cases("personal", "decisions"),
        cuts=("device", "country"),
    ),
    Watched(
        # Of a slice, by the shop's: a campaign lifts both.
        *("decisions", "traffic", -1, _MUCH),
        lambda own, whole, scale: (_of(own, "decisions"), _of(whole, "decisions")),
        phi=lambda own, scale: 1.0,
        by_time=True,
        cuts=("device", "country", "segment"),
    ),
)
WATCHED: Final = {one.metric: one for one in _WATCHED}
# Of these `k` counts the opposite of what the figure does.
OPPOSITE: Final = frozenset({"abandonment", "rung_full"})

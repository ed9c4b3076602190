"""Which key figures there are and how each is made of counters that add up over time, slices and
processes: a figure is one sum over another, so any range can be told from its buckets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from serving.monitoring.decisions import RUNGS

Unit = Literal["share", "count", "money", "ms"]
Better = Literal["more", "less", "neither"]

# Upper edges of the classes in which the time of a decision is counted, milliseconds.
EDGES_MS: Final = (
    *(1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 50.0),
    *(75.0, 100.0, 150.0, 250.0, 500.0, 1_000.0, float("inf")),
)
CLASSES: Final = tuple(f"class_{place}" for place in range(len(EDGES_MS)))
SLOW_MS: Final = 50.0

# Of a visit (a session with anything in it), counted when it began.
VISIT: Final = ("visits", "converted", "carts", "abandoned", "shown", "taken", "refused")
# Of a decision, counted when it was made. `personal`, `counted` and `offers_agreed`: made under
# personalization, analytics and offers.
DECISION: Final = (
    *("decisions", "personal", "counted", "offers_agreed", "degraded", "offered"),
    *(f"rung_{rung}" for rung in RUNGS),
    *("timed", "time_us", "slow", *CLASSES),
)
# Of an order, counted when it was made, net of what was given back. `with_cost`: the orders of
# which every cost is known, alone in `margin`; `valued`: those of which it is said what they are
# worth. `decided`: those that a decision was made before.
ORDER: Final = (
    *(
        "orders",
        "valued",
        "revenue",
        "revenue_squares",
        "items_sold",
        "refunded_orders",
        "refunded",
    ),
    *("margin", "with_cost", "cost_revenue", "offer_cost", "discounted"),
    *("decided_orders", "decided_revenue", "decided_margin"),
)
COUNTERS: Final = (*VISIT, *DECISION, *ORDER)
PLACE: Final[Mapping[str, int]] = {name: place for place, name in enumerate(COUNTERS)}


@dataclass(frozen=True)
class Metric:
    """One key figure: the sum of counter `over` by the sum of counter `under`, or `over` itself
    where there is none. `scale` turns it into its unit. A `quantile` is read from the classes."""

    name: str
    title: str
    unit: Unit
    better: Better
    over: str
    under: str | None = None
    scale: float = 1.0
    quantile: float | None = None
    needs: str | None = None  # without any of this counter it is not known

    @property
    def counters(self) -> tuple[str, ...]:
        """What it is computed from."""
        if self.quantile is not None:
            return (*CLASSES, "timed")
        return (self.over,) if self.under is None else (self.over, self.under)


_SHARE: Final[Unit] = "share"
_COUNT: Final[Unit] = "count"
_MONEY: Final[Unit] = "money"
_MS: Final[Unit] = "ms"
_MORE: Final[Better] = "more"
_LESS: Final[Better] = "less"
_EITHER: Final[Better] = "neither"


_ANSWERS: Final = {
    "full": "Full answers",
    "no_ranker": "Answers without the ranker",
    "session_knn": "Answers by session kNN",
    "popular": "Answers of popular items",
    "empty": "Empty answers",
}


def _rung(rung: str) -> Metric:
    better = _MORE if rung == "full" else _LESS
    name = f"rung_{rung}"
    return Metric(name, _ANSWERS[rung], _SHARE, better, name, "decisions")


_METRICS: Final = (
    Metric("conversion", "Conversion", _SHARE, _MORE, "converted", "visits"),
    Metric("order_value", "Average order value", _MONEY, _MORE, "revenue", "valued"),
    Metric("abandonment", "Cart abandonment", _SHARE, _LESS, "abandoned", "carts"),
    Metric("revenue", "Revenue", _MONEY, _MORE, "revenue"),
    Metric(
        *("revenue_per_decision", "Revenue per decision", _MONEY, _MORE),
        *("decided_revenue", "decisions"),
    ),
    Metric(
        *("margin_per_decision", "Margin per decision", _MONEY, _MORE),
        *("decided_margin", "decisions"),
        needs="with_cost",
    ),
    Metric("margin_share", "Margin of revenue", _SHARE, _MORE, "margin", "cost_revenue"),
    Metric("offer_cost", "Offer cost", _MONEY, _EITHER, "offer_cost"),
    Metric("offer_cost_share", "Offer cost of revenue", _SHARE, _LESS, "offer_cost", "revenue"),
    Metric("offered", "Decisions with an offer", _SHARE, _EITHER, "offered", "decisions"),
    Metric("take_rate", "Take rate", _SHARE, _MORE, "taken", "shown"),
    Metric("refusal_rate", "Suggestions refused", _SHARE, _LESS, "refused", "shown"),
    Metric("latency_ms", "Time of an answer, mean", _MS, _LESS, "time_us", "timed", 0.001),
    Metric("latency_p50_ms", "Half answered within", _MS, _LESS, "timed", "timed", quantile=0.5),
    Metric(
        "latency_p99_ms", "99 of 100 answered within", _MS, _LESS, "timed", "timed", quantile=0.99
    ),
    Metric("slow", f"Slower than {SLOW_MS:.0f} ms", _SHARE, _LESS, "slow", "timed"),
    *(_rung(rung) for rung in RUNGS),
    Metric("degraded", "With a degraded stage", _SHARE, _LESS, "degraded", "decisions"),
    Metric("consent_rate", "Agreed to personalization", _SHARE, _MORE, "personal", "decisions"),
    Metric("analytics_rate", "Agreed to analytics", _SHARE, _MORE, "counted", "decisions"),
    Metric("offers_rate", "Agreed to offers", _SHARE, _MORE, "offers_agreed", "decisions"),
    Metric("refund_rate", "Orders with a refund", _SHARE, _LESS, "refunded_orders", "orders"),
    Metric("visits", "Visits", _COUNT, _MORE, "visits"),
    Metric("orders", "Orders", _COUNT, _MORE, "orders"),
    Metric("decisions", "Decisions", _COUNT, _MORE, "decisions"),
)
METRICS: Final[Mapping[str, Metric]] = {one.name: one for one in _METRICS}

"""Prometheus metrics of how a day's budget for offers is spent."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from serving.state.pacing_records import Standing

WITHHELD = ("cap", "unknown")


class PacingMetrics:
    """The metrics of one gateway process, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._budget = Gauge(
            "tillwise_offer_day_budget", "Of the day, minor units", registry=registry
        )
        self._spent = Gauge(
            "tillwise_offer_day_spent",
            "Of the day's budget, reservations included, minor units",
            registry=registry,
        )
        self._price = Gauge(
            "tillwise_offer_price",
            "Of spending one minor unit, in minor units of expected margin",
            registry=registry,
        )
        self._known = Gauge(
            "tillwise_offer_spend_known",
            "Whether it is known what was spent; nothing is offered under the budget otherwise",
            registry=registry,
        )
        withheld = Counter(
            "tillwise_offers_withheld",
            "Decisions whose offers were withheld: shown often enough, or spend not known",
            ["why"],
            registry=registry,
        )
        self._withheld = {why: withheld.labels(why) for why in WITHHELD}

    def stands(self, amount: int, standing: "Standing") -> None:
        """What was spent of the day's `amount`, and its price."""
        self._known.set(1)
        self._budget.set(amount)
        self._spent.set(standing.spent)
        self._price.set(0.0 if standing.price is None else standing.price.price)

    def unknown(self) -> None:
        """Nobody says what was spent."""
        self._known.set(0)

    def withheld(self, why: str) -> None:
        """A decision showed nothing, for one of `WITHHELD`."""
        self._withheld[why].inc()

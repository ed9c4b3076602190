"""Prometheus metrics of what the outside coupon system is told."""

from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

Outcome = Literal["told", "refused", "again"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("told", "refused", "again")


class CouponMessageMetrics:
    """The metrics of one gateway process, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting = Gauge(
            "tillwise_coupon_messages_waiting",
            "What the outside coupon system is still to be told, of all gateways",
            registry=registry,
        )
        sent = Counter(
            "tillwise_coupon_messages",
            "Messages to it: told, refused for good, or to be told again",
            ["outcome"],
            registry=registry,
        )
        self._sent = {one: sent.labels(one) for one in OUTCOMES}

    def waiting(self, count: int) -> None:
        """So many are still to be told."""
        self._waiting.set(count)

    def sent(self, outcome: Outcome) -> None:
        """One was sent."""
        self._sent[outcome].inc()

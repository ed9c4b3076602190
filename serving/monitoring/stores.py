"""Prometheus metrics of what follows the event log."""

from prometheus_client import CollectorRegistry, Gauge

from serving.ingest.feed import FeatureFeed


class StoreMetrics:
    """How far features are behind the log, where a feed applies it."""

    def __init__(self, registry: CollectorRegistry, feed: FeatureFeed | None) -> None:
        if feed is None:
            return
        behind = Gauge(
            "tillwise_features_behind_seconds",
            "For how long events have been waiting to become features",
            registry=registry,
        )
        behind.set_function(lambda: feed.behind_s)
        applied = Gauge(
            "tillwise_features_applied_events",
            "Events of the log that this gateway has applied since its start",
            registry=registry,
        )
        applied.set_function(lambda: feed.applied)

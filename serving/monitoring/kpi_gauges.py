"""Key figures for Prometheus: of the last hour and of the last day before the latest event, asked
when they are scraped. The windows and the metrics are the only labels."""

import math
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from serving.monitoring.kpi_metrics import METRICS
from serving.monitoring.kpis import MINUTES_5, KpiReader

WINDOWS: Final = {"1h": timedelta(hours=1), "24h": timedelta(hours=24)}


class KpiGauges(Collector):
    """Of the sums in the file at `path`; nothing where there are none yet."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def describe(self) -> list[GaugeMetricFamily]:
        """The families without their values: registering must not read the file."""
        return list(_families().values())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = _families()
        try:
            with KpiReader.open(self._path) as kpis:
                self._fill(families, kpis)
        except (FileNotFoundError, sqlite3.Error):
            return
        yield from families.values()

    def _fill(self, families: dict[str, GaugeMetricFamily], kpis: KpiReader) -> None:
        latest = kpis.as_of()
        if latest is None:
            return
        families["as_of"].add_metric([], latest.timestamp())
        end = latest + timedelta(microseconds=MINUTES_5)  # with the bucket that it is in
        for window, span in WINDOWS.items():
            totals = kpis.totals(end - span, end)
            for name in METRICS:
                series = totals.series(name)
                value = float(series.value[0])
                if not math.isnan(value):
                    families["value"].add_metric([name, window], value)


def _families() -> dict[str, GaugeMetricFamily]:
    return {
        "value": GaugeMetricFamily(
            "tillwise_kpi",
            "Key figures before the latest event; money in minor units, times in milliseconds",
            labels=["metric", "window"],
        ),
        "as_of": GaugeMetricFamily(
            "tillwise_kpi_as_of_timestamp_seconds", "When the latest event happened that counts"
        ),
    }

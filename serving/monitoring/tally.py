"""A Prometheus histogram for the hot path: its labels' values are fixed beforehand and it is
counted from the event loop's thread alone, so that counting takes neither a lock nor a look-up."""

from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class Tally(Collector):
    """Observations by one label, or by none (`label` empty, the only value "")."""

    def __init__(
        self,
        name: str,
        text: str,
        label: str,
        values: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._text, self._label = name, text, label
        self._bounds = tuple(map(float, bounds))
        self._counts = {value: [0] * (len(self._bounds) + 1) for value in values}
        self._sums = dict.fromkeys(values, 0.0)
        registry.register(self)

    def observe(self, value: str, amount: float) -> None:
        """One observation under the label's `value`. KeyError for one that was not announced."""
        self._counts[value][bisect_left(self._bounds, amount)] += 1
        self._sums[value] += amount

    def __contains__(self, value: Hashable) -> bool:
        return value in self._counts

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Its name, for the registry."""
        yield self._family()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """All that was observed so far."""
        family = self._family()
        bounds = (*map(str, self._bounds), "+Inf")
        for value, counts in self._counts.items():
            upto = zip(bounds, accumulate(counts), strict=True)
            labels = [value] if self._label else []
            family.add_metric(labels, [*upto], self._sums[value])
        yield family

    def _family(self) -> HistogramMetricFamily:
        labels = [self._label] if self._label else []
        return HistogramMetricFamily(self._name, self._text, labels=labels)

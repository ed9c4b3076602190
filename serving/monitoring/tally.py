"""A Prometheus histogram and a counter for the hot path: they are counted from the event loop's
thread alone, so that counting takes neither a lock nor a look-up of labels."""

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
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

    def announce(self, value: str) -> None:
        """From now on the label may have this `value` too."""
        self._counts[value] = [0] * (len(self._bounds) + 1)
        self._sums[value] = 0.0

    def observe(self, value: str, amount: float) -> None:
        """One observation under the label's `value`. KeyError for one that was not announced."""
        self._counts[value][bisect_left(self._bounds, amount)] += 1
        self._sums[value] += amount

    def observe_all(self, amounts: Iterable[tuple[str, float]], other: str) -> None:
        """One observation of each (value, amount), under `other` where the value was not
        announced."""
        counts, sums, bounds = self._counts, self._sums, self._bounds
        for value, amount in amounts:
            known = value if value in counts else other
            counts[known][bisect_left(bounds, amount)] += 1
            sums[known] += amount

    def __contains__(self, value: Hashable) -> bool:
        return value in self._counts

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Its name, for the registry."""
        yield self._family()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """All that was observed so far."""
        family = self._family()
        bounds = (*map(str, self._bounds), "+Inf")
        for value, counts in list(self._counts.items()):  # a scrape may be on another thread
            upto = zip(bounds, accumulate(counts), strict=True)
            labels = [value] if self._label else []
            family.add_metric(labels, [*upto], self._sums[value])
        yield family

    def _family(self) -> HistogramMetricFamily:
        labels = [self._label] if self._label else []
        return HistogramMetricFamily(self._name, self._text, labels=labels)


class Counts(Collector):
    """How often what happened, by labels. Those of `values` are told before they happen."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        values: Iterable[tuple[str, ...]],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._text, self._labels = name, text, tuple(labels)
        self._counts: dict[tuple[str, ...], int] = dict.fromkeys(values, 0)
        registry.register(self)

    def add(self, *value: str) -> None:
        """Once more, under these values of the labels; whoever calls sees to it that they are
        few."""
        self._counts[value] = self._counts.get(value, 0) + 1

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Its name, for the registry."""
        yield CounterMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """All that was counted so far."""
        (family,) = self.describe()
        for value, count in list(self._counts.items()):
            family.add_metric(value, count)
        yield family

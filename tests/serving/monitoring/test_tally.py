"""The histogram of the hot path says what prometheus_client's own would say."""

import random

import pytest
from prometheus_client import CollectorRegistry, Histogram

from serving.monitoring.tally import Tally

BOUNDS = (0.001, 0.01, 0.5, 1.0)


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in registry.collect()
        for one in family.samples
        if not one.name.endswith("_created")
    }


def test_as_the_library_counts() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = Tally("t_seconds", "Time", "stage", ("a", "b"), BOUNDS, ours)
    usual = Histogram("t_seconds", "Time", ["stage"], buckets=BOUNDS, registry=theirs)
    draw = random.Random(0)
    for stage in ("a", "b"):
        for value in (*BOUNDS, 0.0, 7.0, *(draw.random() for _ in range(50))):
            tally.observe(stage, value)
            usual.labels(stage).observe(value)
    assert samples(ours) == pytest.approx(samples(theirs))


def test_without_a_label_and_with_an_unknown_one() -> None:
    registry = CollectorRegistry()
    tally = Tally("t_seconds", "Time", "", ("",), BOUNDS, registry)
    tally.observe("", 0.2)
    assert samples(registry)["t_seconds_count", ()] == 1
    assert "a" not in tally
    with pytest.raises(KeyError):
        tally.observe("a", 0.2)

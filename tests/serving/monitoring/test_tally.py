"""The metrics of the hot path say what prometheus_client's own would say."""

import random

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from serving.monitoring.tally import Counts, Tally

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
    tally.observe_all([("a", 0.01), ("new", 0.7), ("a", 2.0)], "b")
    for stage, value in (("a", 0.01), ("b", 0.7), ("a", 2.0)):
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


def test_a_value_that_is_announced_later_counts_too() -> None:
    registry = CollectorRegistry()
    tally = Tally("t_seconds", "Time", "route", (), BOUNDS, registry)
    assert "/a" not in tally
    tally.announce("/a")
    tally.observe("/a", 0.2)
    assert samples(registry)["t_seconds_count", (("route", "/a"),)] == 1


def test_counts_as_the_library_counts() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = Counts("t_things", "Things", ("kind", "end"), [("a", "good"), ("a", "bad")], ours)
    usual = Counter("t_things", "Things", ["kind", "end"], registry=theirs)
    usual.labels("a", "good")  # told before it happens
    usual.labels("a", "bad")
    for value in [("a", "bad"), ("b", "good"), ("a", "bad")]:
        counts.add(*value)
        usual.labels(*value).inc()
    assert samples(ours) == samples(theirs)
    told = generate_latest(ours).decode()
    assert "# TYPE t_things_total counter" in told
    assert 't_things_total{end="bad",kind="a"} 2.0' in told

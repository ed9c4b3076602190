"""The histogram counts everything, to three digits, and parts of a run add up to the whole."""

import random
from pathlib import Path

import pytest

from benchmarks.generator import Samples
from benchmarks.latency import Latencies, read_log, write_log
from contract.errors import UserError


def drawn(number: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.lognormvariate(-5, 1) for _ in range(number)]


def test_percentiles_are_those_of_the_values() -> None:
    values = sorted(drawn(10_000, 0))
    seen = Latencies(values)
    assert len(seen) == 10_000
    for percent, rank in ((50, 5_000), (90, 9_000), (99, 9_900), (99.9, 9_990), (100, 10_000)):
        exact_ms = values[rank - 1] * 1_000
        assert exact_ms - 0.001 <= seen.milliseconds(percent) <= exact_ms * 1.001 + 0.001
    assert seen.mean_ms() == pytest.approx(sum(values) / 10, rel=1e-3)  # 10,000 values, in ms
    assert seen.longer_than(values[4_999]) == pytest.approx(5_000, abs=20)


def test_parts_add_up_to_the_whole() -> None:
    first, second = drawn(3_000, 1), drawn(500, 2)
    merged, whole = Latencies(first).merged(Latencies(second)), Latencies([*first, *second])
    assert merged.percentiles() == whole.percentiles()
    assert len(merged) == 3_500
    # The mean of two p99s is not the p99 of both.
    halves = (Latencies(first).milliseconds(99) + Latencies(second).milliseconds(99)) / 2
    assert halves != merged.milliseconds(99)


def test_nothing_and_the_impossible() -> None:
    nothing = Latencies()
    assert set(nothing.percentiles().values()) == {0.0}
    assert nothing.mean_ms() == 0.0
    odd = Latencies([-1.0, 0.0, 1e9])  # a clock that was set; an answer after years
    assert len(odd) == 3
    assert odd.milliseconds(50) == 0.0


def test_merged_samples_keep_their_kinds() -> None:
    one, two = Samples(seconds=1), Samples(seconds=2)
    one.add(0.01, 0.0, 200, b'{"degraded":[],"rung":"full"}')
    one.kinds["decide"] = Samples()
    one.kinds["decide"].add(0.01, 0.0, 200)
    two.add(0.03, 0.0, 429)
    two.kinds["events"] = Samples()
    two.kinds["events"].add(0.03, 0.0, 429)
    both = one.merge(two)
    assert both.seconds == 3
    assert (both.succeeded, both.refused, both.errors) == (1, 1, 0)
    assert {kind: part.statuses.total() for kind, part in both.kinds.items()} == {
        "decide": 1,
        "events": 1,
    }
    assert both.metrics()["p99.9_ms"][0] < 30  # of what was answered
    assert both.metrics()["failed_p99_ms"][0] >= 30


def test_the_log_can_be_read_again(tmp_path: Path) -> None:
    parts = [Latencies(drawn(200, seed)) for seed in range(3)]
    path = tmp_path / "new" / "run.hlog"
    write_log(path, [(n, n + 1.0, part) for n, part in enumerate(parts)])
    assert [one.percentiles() for one in read_log(path)] == [one.percentiles() for one in parts]
    assert path.read_text().startswith("#[Histogram log format version 1.2]")
    with pytest.raises(UserError, match=r"run\.hlog"):
        write_log(path / "below", [])

"""`benchmarks.overload` tells answers apart and knows when things are normal again."""

import json
from pathlib import Path

import pytest

from benchmarks import overload
from benchmarks.generator import Samples
from benchmarks.http_client import Target
from benchmarks.load import drive
from benchmarks.overload import CHEAPER, FULL, REFUSED, SILENT, Round, Sorting
from benchmarks.profiles import Segment
from tests.benchmarks.test_decide import flags_of, servers
from tests.benchmarks.tiny_server import Answer, serving
from tests.e2e.shop import Shop, build

POOR = b'{"degraded": ["overload"], "rung": "popular"}'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return build(tmp_path_factory.mktemp("shop"))


def window(full: int, cheaper: int = 0, refused: int = 0, ms: float = 5.0) -> Samples:
    whole = Samples(seconds=0.5)
    for kind, number, status in (
        (FULL, full, 200),
        (CHEAPER, cheaper, 200),
        (REFUSED, refused, 429),
    ):
        for _ in range(number):
            whole.add(ms / 1_000, 0.0, status)
            whole.kinds.setdefault(kind, Samples()).add(ms / 1_000, 0.0, status)
    return whole


def test_answers_are_told_apart() -> None:
    kinds = [
        Answer(),
        Answer(body=POOR),
        Answer(status=429, headers="Retry-After: 1\r\n"),
        Answer(status=429),
        Answer(status=503),
    ]
    with serving(lambda n: kinds[n % 5]) as server:
        target = Target.of(server.url, "/v1/checkout/decide", None)
        segments = [Segment("overload", 100, 1)]
        (samples,), _ = drive(target, [b"{}"], segments, generator=Sorting)
    counts = {kind: len(part.latencies) for kind, part in samples.kinds.items()}
    assert counts == {FULL: 20, CHEAPER: 20, REFUSED: 20, SILENT: 20, "broken": 20}
    one = Round(samples, samples, [], samples)
    assert len(one.admitted.latencies) == 40
    assert one.admitted.rungs == {"full": 20, "popular": 20}


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        ([window(100)] * 4, 0.0),
        ([window(50, refused=50), window(90, cheaper=10), window(100), window(100)], 1.0),
        ([window(100, ms=80), window(100), window(100), window(100)], 0.5),
        ([window(100), window(100), window(0, refused=5), window(100)], 1.5),
        ([window(100), window(99, cheaper=1)], 0.0),
        ([window(100), window(0)], 1.0),  # nobody was answered: that is not normal
    ],
)
def test_normal_is_full_in_time_and_stays_so(after: list[Samples], seconds: float) -> None:
    assert Round(window(100), window(10), after, window(100)).recovery_seconds() == seconds


def test_one_round_of_a_real_gateway(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "_BEFORE_SECONDS", 0.5)
    monkeypatch.setattr(overload, "_AFTER_SECONDS", 1.0)
    target = tmp_path / "overload.json"
    few = ["--capacity", "20", "--seconds", "1", "--rounds", "1", "--json", str(target)]
    assert overload.main([*flags_of(shop), *few]) in (0, 3)  # 3: too busy to keep the schedule
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    assert {"bare", "before", "overload", "overload/admitted", "after"} <= set(rows)
    parts = [row for name, row in rows.items() if name.startswith("overload/")]
    apart = [row for row in parts if row is not rows["overload/admitted"]]
    whole = sum(rows["overload"]["requests"]["values"])
    assert sum(sum(row["requests"]["values"]) for row in apart) == whole > 60
    assert any("p99 of the admitted" in note for note in written["notes"])
    assert servers() == []

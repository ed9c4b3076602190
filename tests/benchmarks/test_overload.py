"""`benchmarks.overload` tells answers apart and knows when things are normal again."""

import json
from pathlib import Path

import pytest

from benchmarks import overload
from benchmarks.command import execute
from benchmarks.generator import Samples
from benchmarks.http_client import Target
from benchmarks.load import drive
from benchmarks.overload_round import (
    BROKEN,
    CHEAPER,
    FULL,
    REFUSED,
    SILENT,
    Round,
    Sorting,
    Verdict,
)
from benchmarks.profiles import Segment
from tests.benchmarks.test_decide import flags_of, servers
from tests.benchmarks.tiny_server import Answer, serving
from tests.e2e.shop import Shop, build

POOR = b'{"degraded": ["overload"], "rung": "popular"}'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return build(tmp_path_factory.mktemp("shop"))


def window(
    full: int,
    cheaper: int = 0,
    refused: int = 0,
    ms: float = 5.0,
    silent: int = 0,
    broken: int = 0,
) -> Samples:
    whole = Samples(seconds=0.5)
    for kind, number, status in (
        (FULL, full, 200),
        (CHEAPER, cheaper, 200),
        (REFUSED, refused, 429),
        (SILENT, silent, 429),
        (BROKEN, broken, 503),
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
    counts = {kind: part.statuses.total() for kind, part in samples.kinds.items()}
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


NORMAL = [window(100)] * 4


@pytest.mark.parametrize(
    ("overloaded", "after", "missed"),
    [
        (window(80, 20, 100), NORMAL, []),
        (window(199, 1, 100), NORMAL, ["0.5% of the 200s from cheaper rungs, less than 5%"]),
        (window(80, 20, 100, ms=150), NORMAL, ["p99 of the admitted 150.0 ms, more than 100"]),
        (window(80, 20), [window(50, 50)] * 11, ["normal 5.5 s after, later than 5"]),
        (window(80, 20, silent=2), NORMAL, ["2 x 429 without Retry-After"]),
        (window(80, 20, broken=3), NORMAL, ["3 answers neither 200 nor 429"]),
    ],
)
def test_the_verdict(overloaded: Samples, after: list[Samples], missed: list[str]) -> None:
    found = Verdict.of([Round(window(100), overloaded, after, window(100))]).missed()
    assert len(found) == len(missed)
    assert all(one.startswith(told) for one, told in zip(found, missed, strict=True))


def test_the_shares_are_those_of_all_that_was_sent() -> None:
    verdict = Verdict.of([Round(window(100), window(60, 20, 120), NORMAL, window(100))])
    assert verdict.shares == {FULL: 0.3, CHEAPER: 0.1, REFUSED: 0.6, SILENT: 0, BROKEN: 0}
    assert verdict.cheaper_share == 0.25


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (window(100), None),
        (window(99, cheaper=1), None),
        (window(90, cheaper=10), "not healthy before: 90.0% full"),
        (window(90, refused=10), "not healthy before: 90.0% full"),
        (window(100, ms=40), "not healthy before: 100.0% full, p99 40"),
        (window(0), "not healthy before: 0.0% full"),
    ],
)
def test_a_round_that_does_not_begin_healthy_is_void(before: Samples, told: str | None) -> None:
    void = Round(before, window(80, 20), NORMAL, window(100)).void
    assert (void is None) == (told is None)
    assert (void or "").startswith(told or "")


def test_what_was_missed_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "figures.json"
    rounds = [Round(window(100), window(199, 1, 100), NORMAL, window(100))]
    args = overload.build_parser().parse_args(["--rounds", "1"])
    status = execute("benchmarks.overload", lambda: overload._figures(args, 20, rounds, []), target)
    assert status == 3
    said = capsys.readouterr()
    assert "MISSED" in said.out
    assert "missed: 0.5% of the 200s from cheaper rungs" in said.err
    assert json.loads(target.read_text())["rows"]


def test_one_round_of_a_real_gateway(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "_BEFORE_SECONDS", 0.5)
    monkeypatch.setattr(overload, "_AFTER_SECONDS", 1.0)
    target = tmp_path / "overload.json"
    few = ["--capacity", "20", "--seconds", "1", "--rounds", "1", "--json", str(target)]
    status = overload.main([*flags_of(shop), *few])
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    assert {"bare", "before", "overload", "overload/admitted", "after"} <= set(rows)
    parts = [row for name, row in rows.items() if name.startswith("overload/")]
    apart = [row for row in parts if row is not rows["overload/admitted"]]
    whole = sum(rows["overload"]["requests"]["values"])
    assert sum(sum(row["requests"]["values"]) for row in apart) == whole > 60
    assert any("p99 of the admitted" in note for note in written["notes"])
    assert any("from cheaper rungs" in note for note in written["notes"])
    verdict = next(note for note in written["notes"] if note.endswith(("reached", "MISSED")))
    void = any(note.startswith("VOID") for note in written["notes"])
    assert status == (3 if void or verdict.endswith("MISSED") else 0)
    assert servers() == []

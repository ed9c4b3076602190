"""Our generator and a tool by others see the same server alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cross_check
from benchmarks.cross_check import omitted, read_hey, run_hey
from benchmarks.http_client import Target
from benchmarks.latency import Latencies
from benchmarks.load import drive
from tests.benchmarks.test_decide import flags_of, servers
from tests.benchmarks.tiny_server import Answer, serving
from tests.e2e.shop import build

HEAD = "response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,offset"


def test_hey_sends_what_it_is_told() -> None:
    # Its first requests, which are its warm-up, take long.
    with serving(lambda n: Answer(0.15 if n < 4 else 0.02, 429 if n % 10 == 9 else 200)) as server:
        target = Target.of(server.url, "/v1/checkout/decide", "key")
        seen = run_hey(target, b'{"some":"body"}', 50, 2)
        assert server.requests >= 130  # the warm-up as well
        assert server.connections == 2  # each of its processes keeps its own
    plain = seen["hey"]
    assert 70 <= plain.statuses.total() <= 102
    assert len(plain.latencies) == plain.statuses[200]
    assert 0 < plain.statuses[429] < plain.statuses[200]
    assert plain.latencies.milliseconds(50) >= 20


def test_what_a_closed_loop_leaves_out_is_added_back() -> None:
    # Due every 10 ms; one answer took 35 ms, so three more were due meanwhile.
    assert omitted(0.035, 0.01) == pytest.approx([0.025, 0.015, 0.005])
    assert omitted(0.010, 0.01) == []
    warm_up = "0.9000,0.4,0,0,0,0,200,0.0"
    counted = [*["0.0010,0,0,0,0,0,200,1.1"] * 9, "0.0350,0,0,0,0,0,200,1.2"]
    seen = read_hey(["\n".join([HEAD, warm_up, *counted])], 0.01, 0.1, 1.0)
    assert len(seen["hey"].latencies) == 10
    assert len(seen["hey, corrected"].latencies) == 13
    assert seen["hey"].latencies.longer_than(0.004) == 1
    assert seen["hey, corrected"].latencies.longer_than(0.004) == 4


def test_both_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop, target = build(tmp_path / "shop"), tmp_path / "check.json"
    few = [
        "--bare-rates",
        "20",
        "--decide-rates",
        "20",
        "--seconds",
        "1",
        "--rounds",
        "1",
        "--json",
        str(target),
    ]
    assert cross_check.main([*flags_of(shop), *few]) in (0, 3)  # 3: too busy here
    written = json.loads(target.read_text())
    rows = {row["name"]: row["metrics"] for row in written["rows"]}
    assert list(rows) == [
        f"{where} 20/s {tool}"
        for where in ("bare", "decide")
        for tool in ("ours", "hey", "hey, corrected")
    ]
    assert all(row["errors"]["mean"] == 0 for row in rows.values())
    assert rows["decide 20/s ours"]["requests"]["mean"] == 20
    assert any(note.startswith("decide 20/s, ours against hey: p50") for note in written["notes"])
    assert any(note.startswith("attempts in which our generator") for note in written["notes"])
    assert servers() == []


def test_who_begins_is_chosen_and_void_attempts_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    hey = run_hey

    def ours(*args: Any, **named: Any) -> Any:
        seen.append("ours")
        (samples,), waited = drive(*args, **named)
        late = len(seen) <= 2  # in the first attempt
        samples.lags = Latencies([0.5 if late else 0.0])
        return [samples], waited

    def theirs(*args: Any) -> Any:
        seen.append("hey")
        return hey(*args)

    monkeypatch.setattr(cross_check, "drive", ours)
    monkeypatch.setattr(cross_check, "run_hey", theirs)
    with serving(lambda n: Answer()) as server:
        target = Target.of(server.url, "/v1/checkout/decide", "key")
        found, void = cross_check.both_tools(target, b"{}", 10, 0.5, ours_first=False)
    assert seen == ["hey", "ours", "ours", "hey"]
    assert void == 1
    assert tuple(found) == cross_check.TOOLS


def test_without_hey_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cross_check, "_OWN_TOOLS", tmp_path)
    assert cross_check.main([]) == 2
    said = capsys.readouterr().err
    assert "make hey" in said
    assert said.count("\n") == 1

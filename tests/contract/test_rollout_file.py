"""The two small files that every gateway follows: whole at every moment, whoever writes or dies."""

import json
import multiprocessing
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import pytest

from contract import rollout_file, whole_file
from contract.errors import GateRefused, UserError
from contract.rollout import ROLLOUT, Canary
from contract.rollout_file import live_release_id

AT = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    rollout_file.promote(tmp_path, "a", AT)
    return tmp_path


def trial(release_id: str) -> Canary:
    return Canary(release_id=release_id, percent=10, started_at=AT)


def test_promote_and_roll_back(releases: Path) -> None:
    rollout_file.promote(releases, "b", AT)
    assert live_release_id(releases) == "b"
    assert rollout_file.roll_back(releases, "b", "too slow", AT) == "a"
    assert live_release_id(releases) == "a"
    told = rollout_file.read_rollout(releases).rollback_of("b")
    assert told is not None
    assert told.reason == "too slow"
    assert rollout_file.roll_back(releases, "b", "again", AT) is None  # somebody was quicker
    with pytest.raises(UserError, match="no release to go back to from a"):
        rollout_file.roll_back(releases, "a", "x", AT)
    assert live_release_id(releases) == "a"


def test_a_rollback_passes_over_what_is_gone_and_stops_at_what_is_broken(releases: Path) -> None:
    rollout_file.promote(releases, "b", AT)
    rollout_file.promote(releases, "c", AT)

    def broken(release_id: str) -> None:
        raise UserError(f"release {release_id} is refused")

    with pytest.raises(UserError, match="release b is refused"):
        rollout_file.roll_back(releases, "c", "x", AT, verify=broken)
    assert live_release_id(releases) == "c"
    assert rollout_file.read_rollout(releases).rolled_back == ()
    (releases / "b").rmdir()
    assert rollout_file.roll_back(releases, "c", "x", AT) == "a"


def test_a_canary_that_was_rolled_back_needs_a_word(releases: Path) -> None:
    rollout_file.start_canary(releases, trial("b"))
    assert rollout_file.roll_back(releases, "b", "errors", AT) == "a"
    assert rollout_file.read_rollout(releases).canary is None
    with pytest.raises(GateRefused, match=r"rolled back at 2024-05-01 00:00 \(errors\)"):
        rollout_file.start_canary(releases, trial("b"))
    rollout_file.start_canary(releases, trial("b"), again=True)
    assert rollout_file.stop_canary(releases) == "b"
    with pytest.raises(UserError, match="no canary"):
        rollout_file.stop_canary(releases)
    with pytest.raises(UserError, match="live one already"):
        rollout_file.start_canary(releases, trial("a"))


def test_only_the_live_release_is_remembered_as_healthy(releases: Path) -> None:
    rollout_file.record_healthy(releases, "b")
    assert not rollout_file.read_rollout(releases).healthy
    rollout_file.record_healthy(releases, "a")
    before = (releases / ROLLOUT).stat().st_mtime_ns
    rollout_file.record_healthy(releases, "a")
    assert (releases / ROLLOUT).stat().st_mtime_ns == before
    assert rollout_file.read_rollout(releases).healthy == ("a",)


def _killed_after(replaced: int, folder: str, action: str) -> None:
    """Do `action`, and die by SIGKILL once `replaced` files have taken their places."""
    left = replaced

    def replace(path: Path, content: bytes) -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        whole_file.replace(path, content)

    with mock.patch.object(rollout_file, "replace", replace):
        if action == "promote":
            rollout_file.promote(Path(folder), "c", AT)
        else:
            rollout_file.roll_back(Path(folder), "b", "errors", AT)


@pytest.mark.parametrize("replaced", [0, 1, 2])
@pytest.mark.parametrize(("action", "became"), [("promote", "c"), ("roll back", "a")])
@pytest.mark.parametrize("next_to_come", ["reads", "changes"])
def test_a_switch_whose_process_is_killed_is_finished_by_the_next_who_comes(
    releases: Path, action: str, became: str, replaced: int, next_to_come: str
) -> None:
    rollout_file.promote(releases, "b", AT)
    process = multiprocessing.get_context("fork").Process(
        target=_killed_after, args=(replaced, str(releases), action)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    if replaced == 1:  # one file says it, the other does not yet: what is taken away is not served
        half = rollout_file.read_rollout(releases)
        assert (half.next_live, live_release_id(releases)) == (became, "b")
        assert (half.rollback_of("b") is None) == (action == "promote")
    if next_to_come == "reads":
        rollout = rollout_file.settled(releases)
    else:
        rollout_file.record_healthy(releases, "nobody")
        rollout = rollout_file.read_rollout(releases)
    live = live_release_id(releases)
    assert rollout == rollout_file.read_rollout(releases)
    assert rollout.next_live is None
    assert b"next_live" not in (releases / ROLLOUT).read_bytes()  # versions before it read on
    assert live == (became if replaced else "b")
    assert rollout.previous(live)[:1] == {"c": ("b",), "b": ("a",), "a": ()}[live]


def test_a_promotion_that_fails_does_not_come_about_later(
    releases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (releases / ROLLOUT).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rollout_file, "_point", full)
    with pytest.raises(OSError, match="No space"):
        rollout_file.promote(releases, "b", AT)
    assert (releases / ROLLOUT).read_bytes() == before
    # What was begun and can not be finished is one line.
    half = rollout_file.read_rollout(releases).promoted("a", "b", AT).about_to_name("b")
    (releases / ROLLOUT).write_bytes(half.as_bytes())
    with pytest.raises(UserError, match=r"switch to release b was left half done .*No space"):
        rollout_file.settled(releases)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1, "more": 2}', b"\xff\xfe"])
def test_a_malformed_file_is_one_line_and_is_not_overwritten(
    releases: Path, content: bytes
) -> None:
    (releases / ROLLOUT).write_bytes(content)
    with pytest.raises(UserError, match=r"rollout\.json: .*remove it"):
        rollout_file.promote(releases, "b", AT)
    assert (releases / ROLLOUT).read_bytes() == content
    assert live_release_id(releases) == "a"


def _promote_often(folder: str, release_id: str) -> None:
    for _ in range(30):
        rollout_file.promote(Path(folder), release_id, AT)


def test_writers_at_once_lose_nothing_and_readers_see_whole_files(releases: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_promote_often, args=(str(releases), name)) for name in "bc"]
    for writer in writers:
        writer.start()
    reads = 0
    while any(writer.is_alive() for writer in writers):
        assert live_release_id(releases) in {"a", "b", "c"}
        json.loads((releases / ROLLOUT).read_bytes())
        rollout_file.read_rollout(releases)
        reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert reads > 10
    live = live_release_id(releases)
    assert "a" in rollout_file.read_rollout(releases).previous(live)
    assert [path.name for path in releases.iterdir() if path.name.startswith(".c")] == []

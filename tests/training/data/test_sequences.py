"""Importing lines of `user item item ...`."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.errors import UserError
from contract.events import Event
from training.data.sequences import import_sequences
from training.data.storage import read_catalogue, read_events, read_parquet

# Ibis 12 calls what DuckDB 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")


def written(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "sequences.txt"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def refusal(tmp_path: Path, content: str | bytes) -> str:
    with pytest.raises(UserError) as error:
        import_sequences(written(tmp_path, content), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_every_interaction_is_an_event_a_day_apart(tmp_path: Path) -> None:
    counts = import_sequences(written(tmp_path, "ann b a b\n\nbob c\n"), tmp_path)
    assert counts == {"sequences": {"users": 2, "items": 3, "interactions": 4}}
    events = [Event.model_validate(row) for row in read_events(tmp_path).to_pylist()]
    assert [(e.session_id, e.items[0].item_id) for e in events] == [
        ("ann", "b"),
        ("ann", "a"),
        ("ann", "b"),
        ("bob", "c"),
    ]
    assert {e.event_name for e in events} == {"select_item"}
    assert [e.occurred_at for e in events[1:]] == [
        datetime(2000, 1, 2, tzinfo=UTC),
        datetime(2000, 1, 3, tzinfo=UTC),
        datetime(2000, 1, 1, tzinfo=UTC),
    ]
    assert len({e.event_id for e in events}) == 4
    subjects = {row["visitor_id"]: row["subject_id"] for row in _subjects(tmp_path)}
    assert subjects == {e.session_id: str(e.subject_id) for e in events}


def test_the_catalogue_is_the_distinct_ids_as_text(tmp_path: Path) -> None:
    large = 2**40 + 1  # does not fit 32 bits, and is text anyway
    import_sequences(written(tmp_path, f"1 {large} 007 7 {large}\n"), tmp_path)
    assert read_catalogue(tmp_path)["item_id"].to_pylist() == ["007", str(large), "7"]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert "holds no sequences" in refusal(tmp_path, "")
    assert "holds no sequences" in refusal(tmp_path, "\n \n")


def test_a_user_without_items_is_refused_with_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a 1 2\nb\n").endswith("line 2 holds a user without items")


def test_a_user_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a 1\nb 2\na 3\n").endswith("line 3 repeats the user of line 1")


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"a 1\nb \xff\xfe\n").endswith("line 2 is not UTF-8")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt: no such file"):
        import_sequences(tmp_path / "none.txt", tmp_path)


def _subjects(folder: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = read_parquet(folder / "subjects.parquet").to_pylist()
    return rows

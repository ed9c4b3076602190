"""Importing click sessions with their test instances."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import UserError
from contract.events import Event
from training.data.sessions import import_sessions
from training.data.storage import read_catalogue, read_events, read_parquet

# Ibis 12 calls what DuckDB 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

TESTS = {"history": [[3, 1], [9]], "target": [4, 3]}


def folder_with(folder: Path, train: Any, tests: Any) -> Path:
    pq.write_table(pa.table(train), folder / "train_sessions.parquet")
    pq.write_table(pa.table(tests), folder / "test_instances.parquet")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        import_sessions(folder, folder / "out")
    assert not (folder / "out").exists()
    return str(error.value)


def test_sessions_become_views_in_order(tmp_path: Path) -> None:
    folder_with(tmp_path, {"item_ids": [[3, 1, 3], [2**40]]}, TESTS)
    counts = import_sessions(tmp_path, tmp_path / "out")
    assert counts["train"] == {"sessions": 2, "views": 4, "items": 5}
    assert counts["test"] == {"instances": 2}
    events = [Event.model_validate(row) for row in read_events(tmp_path / "out").to_pylist()]
    assert [(e.session_id, e.items[0].item_id) for e in events] == [
        ("session-0", "3"),
        ("session-0", "1"),
        ("session-0", "3"),
        ("session-1", str(2**40)),
    ]
    assert {e.event_name for e in events} == {"view_item"}
    times = [e.occurred_at for e in events]
    assert times == sorted(set(times))
    assert [e.subject_id for e in events].count(events[0].subject_id) == 3


def test_test_instances_are_kept_as_text(tmp_path: Path) -> None:
    import_sessions(folder_with(tmp_path, {"item_ids": [[3, 1]]}, TESTS), tmp_path / "out")
    kept = read_parquet(tmp_path / "out" / "test_instances.parquet").to_pylist()
    assert kept == [
        {"history": ["3", "1"], "target": "4"},
        {"history": ["9"], "target": "3"},
    ]


def test_the_catalogue_covers_training_and_test(tmp_path: Path) -> None:
    import_sessions(folder_with(tmp_path, {"item_ids": [[3, 1]]}, TESTS), tmp_path / "out")
    assert read_catalogue(tmp_path / "out")["item_id"].to_pylist() == ["1", "3", "4", "9"]


def test_missing_columns_are_named(tmp_path: Path) -> None:
    folder_with(tmp_path, {"items": [[1]]}, TESTS)
    assert refusal(tmp_path).endswith("train_sessions.parquet: lacks the columns item_ids")


def test_a_column_that_is_no_list_is_named(tmp_path: Path) -> None:
    folder_with(tmp_path, {"item_ids": [1, 2]}, TESTS)
    assert "column item_ids is int64, not a list" in refusal(tmp_path)


def test_a_session_without_items_is_refused_with_its_row(tmp_path: Path) -> None:
    folder_with(tmp_path, {"item_ids": pa.array([[1], []], pa.list_(pa.int64()))}, TESTS)
    assert "row 1 has no items in item_ids" in refusal(tmp_path)


def test_an_instance_without_a_target_is_refused(tmp_path: Path) -> None:
    folder_with(
        tmp_path, {"item_ids": [[1]]}, {"history": [[1]], "target": pa.nulls(1, pa.int64())}
    )
    assert "row 0 has no target" in refusal(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert refusal(tmp_path).endswith("train_sessions.parquet: no such file")

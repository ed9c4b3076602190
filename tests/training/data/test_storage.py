"""Reading refuses what is not the schema, in one line; writing is whole or not at all."""

from pathlib import Path
from uuid import NAMESPACE_DNS

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import UserError
from contract.frames import EVENT_SCHEMA
from training.data.columns import event_table, one_item_each, repeated, stable_ids, utc
from training.data.storage import events_writer, read_catalogue, read_events, write_events


def some_events(size: int = 3) -> pa.Table:
    times = utc(np.arange(size, dtype=np.int64))
    ids = stable_ids(NAMESPACE_DNS, (f"event-{number}" for number in range(size)))
    return event_table(
        {
            "event_id": ids,
            "event_name": repeated("view_item", "event_name", size),
            "occurred_at": times,
            "received_at": times,
            "subject_id": ids,
            "session_id": ids,
            "items": one_item_each(pa.array([str(number) for number in range(size)])),
        },
        synthetic=False,
    )


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read_events(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def put_part(folder: Path, table: pa.Table) -> Path:
    part = folder / "events" / "part-00000.parquet"
    part.parent.mkdir()
    pq.write_table(table, part)
    return part


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    events = some_events()
    with events_writer(tmp_path, {"synthetic": "true"}) as writer:
        writer.write(events.slice(0, 1))
        writer.write(events.slice(1))
    assert read_events(tmp_path).equals(events.cast(EVENT_SCHEMA))
    assert read_events(tmp_path, ["event_name"]).column_names == ["event_name"]
    metadata = pq.read_metadata(tmp_path / "events" / "part-00001.parquet").metadata
    assert metadata[b"synthetic"] == b"true"


def test_a_shorter_import_leaves_no_part_of_a_longer_one(tmp_path: Path) -> None:
    for parts in (3, 1):
        with events_writer(tmp_path) as writer:
            for _ in range(parts):
                writer.write(some_events())
    assert [path.name for path in (tmp_path / "events").iterdir()] == ["part-00000.parquet"]


def test_an_import_that_fails_leaves_the_old_events(tmp_path: Path) -> None:
    write_events(some_events(), lambda rows: rows, tmp_path, label="events")

    def broken(_: pa.Table) -> pa.Table:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_events(some_events(1), broken, tmp_path, label="events")
    assert len(read_events(tmp_path)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["events"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "nowhere: no such folder" in refusal(tmp_path / "nowhere")


def test_a_folder_without_events_is_refused(tmp_path: Path) -> None:
    assert "no *.parquet files" in refusal(tmp_path)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    put_part(tmp_path, some_events().drop_columns(["items", "value"]))
    assert refusal(tmp_path).endswith("part-00000.parquet: lacks the columns items, value")


def test_unknown_columns_are_named(tmp_path: Path) -> None:
    put_part(tmp_path, some_events().append_column("truth", pa.array([1, 2, 3])))
    assert refusal(tmp_path).endswith("part-00000.parquet: has unknown columns truth")


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    place = EVENT_SCHEMA.names.index("value")
    put_part(tmp_path, some_events().set_column(place, "value", pa.array(["1", "2", "3"])))
    assert "column value is string, not int64" in refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    put_part(tmp_path, some_events().slice(0, 0))
    assert refusal(tmp_path).endswith("part-00000.parquet: holds no rows")


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1 cut off"])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    part = put_part(tmp_path, some_events())
    part.write_bytes(content)
    assert "part-00000.parquet: not a readable Parquet file" in refusal(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    part = put_part(tmp_path, some_events())
    part.write_bytes(part.read_bytes()[:-20])
    assert "part-00000.parquet: not a readable Parquet file" in refusal(tmp_path)


def test_a_catalogue_is_found_by_file_or_folder(catalogue_file: Path) -> None:
    assert read_catalogue(catalogue_file).equals(read_catalogue(catalogue_file.parent))


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"catalogue\.parquet: no such file"):
        read_catalogue(tmp_path)

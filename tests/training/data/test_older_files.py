"""Event files of an older schema version: what they lack is read as empty, beside newer ones."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contract.errors import UserError
from contract.frames import ADDED_COLUMNS, EVENT_SCHEMA
from tests.training.shop import build_shop
from training.data.storage import check_events, read_events


def test_files_without_the_later_columns_are_read(tmp_path: Path) -> None:
    shop = build_shop(tmp_path)
    (part,) = (shop / "events").glob("*.parquet")
    whole = read_events(shop)
    half = len(whole) // 2
    older = whole.slice(0, half).drop_columns(list(ADDED_COLUMNS))
    pq.write_table(older, part)
    pq.write_table(whole.slice(half), part.with_name("part-00001.parquet"))
    check_events(shop)
    assert read_events(shop).equals(whole)
    assert read_events(shop, ["percent_scrolled"]).schema.names == ["percent_scrolled"]
    pq.write_table(older.drop_columns(["value"]), part)
    with pytest.raises(UserError, match="lacks the columns value"):
        read_events(shop)


def test_the_schema_has_what_was_added() -> None:
    assert set(EVENT_SCHEMA.names) >= ADDED_COLUMNS
    assert pa.types.is_integer(EVENT_SCHEMA.field("percent_scrolled").type)

"""The same expressions on DuckDB and on Spark: equal frames."""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import ibis
import pyarrow as pa
import pytest

from tests.training.data.event_logs import random_events, write
from training.data import etl
from training.data.etl import By

pytestmark = [
    pytest.mark.slow,
    # py4j leaves its sockets to the garbage collector, and Spark says what it deprecates.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """An Ibis connection to a local Spark."""
    if importlib.util.find_spec("pyspark") is None:
        pytest.fail(
            "no pyspark; install it: .venv/bin/uv pip install -c constraints.txt -e '.[spark]'"
        )
    if shutil.which("java") is None:
        pytest.fail("no java for Spark; install it: apt-get install -y openjdk-17-jre-headless")
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.sql.session.timeZone", "UTC")  # stamps are UTC; Spark would shift them
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    yield ibis.pyspark.connect(session)
    session.stop()


def frame(expression: Any, *order: str) -> list[dict[str, Any]]:
    """The rows in `order`, times as microseconds: the engines type zones differently."""
    table = expression.order_by(*order).to_pyarrow()
    return [
        {name: _plain(value, table.schema.field(name).type) for name, value in row.items()}
        for row in _cast(table).to_pylist()
    ]


def _cast(table: pa.Table) -> pa.Table:
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
        columns[name] = column
    return pa.table(columns)


def _plain(value: Any, kind: Any) -> Any:
    if pa.types.is_list(kind) and pa.types.is_timestamp(kind.value_type):
        return [stamp.replace(tzinfo=None) for stamp in value]
    return value


@pytest.mark.parametrize(
    ("by", "names", "min_item_count"),
    [("subject", None, 1), ("session", ("view_item", "purchase"), 2)],
)
def test_equal_frames(
    spark: Any, tmp_path: Path, by: By, names: tuple[str, ...] | None, min_item_count: int
) -> None:
    folder = write(tmp_path, random_events(Random(5), 200), parts=1)
    file = str(folder / "events" / "part-0.parquet")
    engines = [ibis.duckdb.connect(), spark]
    logs = [engine.read_parquet(file) for engine in engines]
    order = ("sequence", "occurred_at", "event_id", "place")
    encoded = [
        etl.encoded_events(log, by=by, names=names, min_item_count=min_item_count) for log in logs
    ]
    on_duckdb, on_spark = (frame(rows, *order) for rows in encoded)
    assert len(on_duckdb) > 50
    assert on_duckdb == on_spark
    on_duckdb, on_spark = (frame(etl.as_lists(rows), "sequence") for rows in encoded)
    assert len(on_duckdb) > 2
    assert on_duckdb == on_spark
    # In order by their own account too: the lists hold what the rows hold, row after row.
    flat = [item for row in on_duckdb for item in row["items"]]
    assert flat == [row["item"] for row in frame(encoded[0], *order)]
    rows = [etl.interactions(log, etl.units(log, by), by=by, names=names) for log in logs]
    on_duckdb, on_spark = (frame(etl.vocabulary(r, min_item_count), "item") for r in rows)
    assert on_duckdb == on_spark
    asked = [
        etl.searches(log, etl.units(log, by), etl.sequences(held), by=by)
        for log, held in zip(logs, rows, strict=True)
    ]
    on_duckdb, on_spark = (frame(one, "sequence", "occurred_at", "event_id") for one in asked)
    assert len(on_duckdb) > 5
    assert on_duckdb == on_spark

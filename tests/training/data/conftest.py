"""Small inputs that several tests of the data side share."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import training
from training.data.storage import CATALOGUE_SCHEMA, write_catalogue

DEFAULT_WORLD = Path(training.__file__).parent / "worlds" / "default.json"
DEPARTMENTS = ("GROCERY", "PRODUCE", "DRUG GM")
KINDS = ("apple sauce", "potato chips", "green tea", "brown bread", "oat milk")


def item_row(number: int, **changed: Any) -> dict[str, Any]:
    """A catalogue row; prices of a category run from 1.00 upwards."""
    kind = KINDS[number % len(KINDS)]
    department = DEPARTMENTS[number % len(DEPARTMENTS)]
    return {
        "item_id": f"item-{number}",
        "title": kind.title(),
        "brand": f"Brand {number % 7}",
        "category_path": [department, f"{department} {kind}", kind],
        "text": f"{department.lower()} {kind} brand",
        "price": 100 + 7 * number,
        "currency": "EUR",
        "available": True,
        "regions": [],
        "synthetic": False,
    } | changed


def catalogue_of(rows: list[dict[str, Any]]) -> pa.Table:
    """`rows` as a catalogue table."""
    return pa.Table.from_pylist(rows, CATALOGUE_SCHEMA)


@pytest.fixture(scope="session")
def catalogue_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 items in 15 categories, one not available, one never priced."""
    folder = tmp_path_factory.mktemp("catalogue")
    rows = [item_row(number) for number in range(300)]
    rows[0]["available"], rows[1]["price"] = False, None
    write_catalogue(catalogue_of(rows), folder)
    return folder / "catalogue.parquet"


@pytest.fixture
def world_content() -> dict[str, Any]:
    """The default world as a dictionary to change."""
    content: dict[str, Any] = json.loads(DEFAULT_WORLD.read_text(encoding="utf-8"))
    return content

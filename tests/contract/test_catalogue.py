from typing import Any

import pytest
from pydantic import ValidationError

from contract.catalogue import CATALOGUE_COLUMNS, Item, Money

MILK: dict[str, Any] = {"item_id": "milk", "currency": "USD"}


def test_columns_are_the_fields_of_an_item() -> None:
    assert tuple(CATALOGUE_COLUMNS) == tuple(Item.model_fields)


@pytest.mark.parametrize(
    ("field", "changed"),
    [
        ("item_id", {"item_id": ""}),
        ("item_id", {"item_id": "m" * 129}),
        ("price", {"price": -1}),
        ("price", {"price": 1.5}),
        ("price", {"price": 10**12 + 1}),
        ("currency", {"currency": "usd"}),
        ("currency", {"currency": "USD\n"}),
        ("sku", {"sku": "4711"}),
    ],
)
def test_bad_item_names_the_field(field: str, changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as error:
        Item(**(MILK | changed))
    assert [problem["loc"] for problem in error.value.errors()] == [(field,)]


def test_money_is_minor_units_with_a_currency() -> None:
    assert Money(amount=0, currency="EUR").model_dump() == {"amount": 0, "currency": "EUR"}
    with pytest.raises(ValidationError):
        Money(amount=-1, currency="EUR")

"""What the shop sells. Prices are integers in minor units; one currency per catalogue."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

ItemId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
MOST_MINOR = 10**12
MinorUnits = Annotated[int, Field(ge=0, le=MOST_MINOR)]

# The columns of `catalogue.parquet`, in order, with their Arrow types by name.
CATALOGUE_COLUMNS: dict[str, str] = {
    "item_id": "string",
    "title": "string",
    "brand": "string",
    "category_path": "list<string>",
    "text": "string",
    "price": "int64",
    "currency": "string",
    "available": "bool",
    "regions": "list<string>",
    "synthetic": "bool",
}


class Money(BaseModel):
    """An amount in minor units (cents) with its ISO 4217 currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: MinorUnits
    currency: Currency


class Item(BaseModel):
    """One thing that can be recommended.

    `category_path` runs from the widest to the narrowest category. `regions` empty means sold
    everywhere. `price` None means not priced; it is then never shown with an amount.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: ItemId
    title: str = ""
    brand: str = ""
    category_path: tuple[str, ...] = ()
    text: str = ""
    price: MinorUnits | None = None
    currency: Currency
    available: bool = True
    regions: tuple[str, ...] = ()
    synthetic: bool = False


@dataclass(frozen=True)
class ItemChange:
    """What the shop says of one item; None where it says nothing, so that the release's word holds.

    `price` and `cost` per unit in minor units of the catalogue's currency; `cost` is nothing that a
    release holds. `regions` empty: sold everywhere.
    """

    available: bool | None = None
    price: int | None = None
    cost: int | None = None
    regions: tuple[str, ...] | None = None

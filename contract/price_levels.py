"""How dear every item of a catalogue is among its own kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from contract.encoding import FIRST_ITEM, table_of
from contract.items import category_of
from contract.pieces import in_pieces

Floats = npt.NDArray[np.float64]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class PriceLevels:
    """Of I items with a price, by `contract.events.key_of` their ids."""

    item_key: Keys  # [I] ascending
    level: Floats  # [I] logarithm of the price over the median of the category
    category: npt.NDArray[np.int64]  # [I] numbers of this catalogue alone

    @classmethod
    def of(
        cls,
        item_key: Keys,
        price: npt.NDArray[np.int64],
        paths: Sequence[Sequence[str] | None],
    ) -> "PriceLevels":
        """Of a catalogue, a row an item; those without a price above 0 are left out."""
        kept = np.flatnonzero(price > 0)
        kept = kept[np.argsort(item_key[kept], kind="stable")]
        if not len(kept):
            return NOTHING
        _, category = np.unique(_categories(paths)[kept], return_inverse=True)
        log_price = np.log(price[kept])
        by_category = np.lexsort((log_price, category))
        starts = np.searchsorted(category[by_category], np.arange(category.max() + 2))
        ordered = log_price[by_category]
        # The mean of the two in the middle; they are one where the number is odd.
        below, above = (starts[:-1] + starts[1:] - 1) // 2, (starts[:-1] + starts[1:]) // 2
        median = (ordered[below] + ordered[above]) / 2
        return cls(item_key[kept], log_price - median[category], category)

    @cached_property
    def table(self) -> Keys:
        """Where each item stands, plus FIRST_ITEM, as `contract.encoding.table_of` its key."""
        places = np.arange(len(self.item_key)) + FIRST_ITEM
        table: Keys = table_of(self.item_key, places)
        return table

    def at(self, item_keys: Keys) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Level and category of each; nan and -1 where the catalogue has no price."""
        if not len(self.item_key):
            return np.full(len(item_keys), np.nan), np.full(len(item_keys), -1)
        place = np.minimum(np.searchsorted(self.item_key, item_keys), len(self.item_key) - 1)
        known = self.item_key[place] == item_keys
        return np.where(known, self.level[place], np.nan), np.where(known, self.category[place], -1)


def _categories(paths: Sequence[Sequence[str] | None]) -> npt.NDArray[np.int64]:
    """A number for the `item_category` of each path, the same for all that have none."""
    numbers: dict[str | None, int] = {}
    of_path: dict[tuple[str, ...], int] = {}  # most items share their path with others
    found = np.empty(len(paths), np.int64)
    for row, path in enumerate(in_pieces(paths)):
        key = tuple(path or ())
        if key not in of_path:
            of_path[key] = numbers.setdefault(category_of(key), len(numbers))
        found[row] = of_path[key]
    return found


NOTHING = PriceLevels(np.empty(0, np.uint64), np.empty(0), np.empty(0, np.int64))

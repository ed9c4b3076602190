"""What a shop sells at this moment, where and for how much: the release's word, and over it what
the shop has said since (`PATCH /v1/catalogue/items`)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import numpy.typing as npt

from contract.catalogue import ItemChange
from contract.items import Floats, Indices

Mask = npt.NDArray[np.bool_]
NOT_PRICED = -1
_NONE: Indices = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Assortment:
    """Indexed like the vocabulary, N rows; never changed, only replaced, so that a decision sees
    one moment."""

    price: Indices  # [N] minor units, NOT_PRICED where there is none
    available: Mask  # [N]
    regions: Sequence[tuple[str, ...]]  # [N], empty: sold everywhere
    everywhere: Mask  # [N] available, and not in some regions only
    only_in: Mapping[str, Indices]  # the others by region, each ascending
    # [N] minor units that one of each leaves; of what is not known of, the mean of what is.
    margins: Floats
    cost: Mapping[int, int] = field(default_factory=dict)  # of those that the shop said it of

    @classmethod
    def of(cls, price: Indices, available: Mask, regions: Sequence[tuple[str, ...]]) -> Self:
        """With what follows from the three columns."""
        everywhere: Mask = np.array([not where for where in regions], bool)
        everywhere &= available
        members: dict[str, list[int]] = defaultdict(list)
        for index in np.flatnonzero(available & ~everywhere).tolist():
            for region in set(regions[index]):
                members[region].append(index)
        only_in = {region: np.array(rows, np.int64) for region, rows in members.items()}
        for column in (price, available, everywhere, *only_in.values()):
            column.flags.writeable = False  # they are shared by all decisions
        return cls(price, available, regions, everywhere, only_in, _margins(price, {}))

    def sellable(self, region: str | None) -> Mask:
        """Which items are available in `region` (unknown: everywhere), a fresh [N]."""
        if region is None:
            return self.available.copy()
        mask = self.everywhere.copy()
        mask[self.only_in.get(region, _NONE)] = True
        return mask

    def with_changes(self, released: Self, changes: Mapping[int, ItemChange]) -> Self:
        """The assortment after `changes` by index, each of which replaces what was said of its item
        before. `released` is the assortment as the release has it."""
        price, available = self.price.copy(), self.available.copy()
        everywhere, regions = self.everywhere.copy(), list(self.regions)
        cost = dict(self.cost)
        gone: dict[str, set[int]] = defaultdict(set)
        come: dict[str, set[int]] = defaultdict(set)
        for index, change in changes.items():
            for region in () if self.everywhere[index] else self.regions[index]:
                gone[region].add(index)
            price[index] = released.price[index] if change.price is None else change.price
            cost.pop(index, None)
            if change.cost is not None:
                cost[index] = change.cost
            said = change.available
            available[index] = released.available[index] if said is None else said
            where = released.regions[index] if change.regions is None else change.regions
            regions[index], everywhere[index] = where, available[index] and not where
            for region in where if available[index] else ():
                come[region].add(index)
        only_in = dict(self.only_in)
        for region in gone.keys() | come.keys():
            kept = np.setdiff1d(only_in.get(region, _NONE), list(gone[region]))
            only_in[region] = np.union1d(kept, np.array(sorted(come[region]), np.int64))
        for column in (price, available, everywhere, *only_in.values()):
            column.flags.writeable = False
        margins = _margins(price, cost) if cost else released.margins
        return type(self)(price, available, regions, everywhere, only_in, margins, cost)


def _margins(price: Indices, cost: Mapping[int, int]) -> Floats:
    """Price less cost, [N]; where one of the two is missing the mean of the others, 0 of none."""
    index = np.fromiter(cost.keys(), np.int64, len(cost))
    left = price[index] - np.fromiter(cost.values(), np.int64, len(cost))
    index, left = index[price[index] != NOT_PRICED], left[price[index] != NOT_PRICED]
    margins = np.full(len(price), left.mean() if len(left) else 0.0, np.float32)
    margins[index] = left
    margins.flags.writeable = False
    return margins

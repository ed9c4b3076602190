"""A simulated shop whose lists change what is bought: shoppers who come once or twice a week for
what they usually buy, and take something of the list that they are shown at the checkout. What they
would take of everything that could be shown is the truth, which stands beside the events and never
in them.

Shapes: S shoppers, I items, C categories.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.frames import EVENT_SCHEMA

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_STAPLES: Final = 10  # items that a shopper buys again and again
_PURPOSES: Final = ["analytics", "personalization"]


@dataclass(frozen=True)
class World:
    """`staple_taken`: how much of its appeal an item keeps at the checkout for a shopper who buys
    it again and again anyway; 1 is a shop in which people take what they usually buy.
    `charm_spread`: standard deviation (log scale) of what makes an item be taken that no basket
    shows."""

    shoppers: int = 400
    items: int = 240
    categories: int = 20
    taken: float = 0.05  # of an item of average appeal
    staple_taken: float = 0.15
    charm_spread: float = 0.6
    visits_a_week: float = 1.5


@dataclass(frozen=True)
class Visit:
    """A shopper at the checkout with what they came for."""

    shopper: int
    at: datetime
    cart: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of its session and order."""
        return f"{self.shopper}-{self.at:%Y%m%d%H%M}"


class Shop:
    """The shop and its shoppers; `chance` is the truth."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world = world
        self.category = np.arange(world.items) % world.categories
        self.popularity = (rng.permutation(world.items) + 1.0) ** -0.8
        self.affinity = rng.dirichlet(np.full(world.categories, 0.25), world.shoppers)
        charm = np.exp(world.charm_spread * rng.standard_normal(world.items))
        self.wish = self.affinity[:, self.category] * self.popularity  # [S, I]
        self.wish /= self.wish.sum(axis=1, keepdims=True)
        self.staple = np.zeros((world.shoppers, world.items), bool)
        for shopper, wish in enumerate(self.wish):
            some = (1 - 1e-6) * wish + 1e-6 / world.items
            held = rng.choice(world.items, _STAPLES, replace=False, p=some)
            self.staple[shopper, held] = True
        appeal = self.affinity[:, self.category] * world.categories * charm
        appeal *= np.where(self.staple, world.staple_taken, 1.0)
        self._chance: Floats = np.minimum(world.taken * appeal, 0.8)

    def chance(self, shopper: Ints | int) -> Floats:
        """How likely each item is taken by `shopper` when it is shown, [..., I]."""
        found: Floats = self._chance[shopper]
        return found

    def visits(self, rng: np.random.Generator, week: int) -> list[Visit]:
        """Everybody's visits of a week, in the order of time."""
        found = []
        for shopper in range(self.world.shoppers):
            for _ in range(rng.poisson(self.world.visits_a_week)):
                minutes = int(rng.integers(7 * 24 * 60))
                at = START + timedelta(days=7 * week, minutes=minutes)
                found.append(Visit(shopper, at, self._came_for(rng, shopper)))
        return sorted({one.name: one for one in found}.values(), key=lambda one: one.at)

    def _came_for(self, rng: np.random.Generator, shopper: int) -> tuple[int, ...]:
        staples = np.flatnonzero(self.staple[shopper])
        usual = rng.choice(staples, min(1 + rng.poisson(2.0), len(staples)), replace=False)
        others = rng.choice(self.world.items, rng.poisson(1.5), p=self.wish[shopper])
        return tuple(np.unique(np.concatenate((usual, others))).tolist())

    def taken(self, rng: np.random.Generator, visit: Visit, shown: Sequence[int]) -> list[int]:
        """What the shopper takes of the list."""
        chance = self.chance(visit.shopper)[list(shown)]
        hit = rng.random(len(shown)) < chance
        return [item for item, taken in zip(shown, hit.tolist(), strict=True) if taken]

    def catalogue(self) -> pa.Table:
        """What the shop says of its items."""
        return pa.Table.from_pylist(
            [
                {
                    "item_id": item_id(item),
                    "title": f"Product {item}",
                    "brand": f"brand-{item % 37}",
                    "category_path": ["shop", f"aisle-{of % 5}", f"shelf-{of}"],
                    "text": f"shelf {of}",
                    "price": 100 + 7 * (item % 50),
                    "currency": "USD",
                    "available": True,
                    "regions": [],
                    "synthetic": True,
                }
                for item, of in enumerate(self.category.tolist())
            ]
        )


def item_id(item: int) -> str:
    """Of item number `item`."""
    return f"item-{item:04d}"


def item_of(named: str) -> int:
    """The number of an item."""
    return int(named.removeprefix("item-"))


def subject_id(shopper: int) -> str:
    """Of shopper number `shopper`."""
    return str(uuid5(NAMESPACE_URL, f"exploration-{shopper}"))


def purchase(visit: Visit, items: Sequence[int]) -> dict[str, Any]:
    """The order of a visit."""
    lines = [{"item_id": item_id(one), "quantity": 1, "price": 100} for one in items]
    told = {"items": lines, "transaction_id": visit.name, "value": 100 * len(lines)}
    return _event(visit, "purchase", minutes=2) | told | {"currency": "USD"}


def decision(visit: Visit, shown: list[dict[str, Any]], drawn: dict[str, Any]) -> dict[str, Any]:
    """The list of a visit as a gateway logs it, with what was `drawn` by chance."""
    said = {"cart": [item_id(one) for one in visit.cart], "shown": shown, "exploration": drawn}
    return _event(visit, "decision", minutes=0) | {"decision": json.dumps(said), "items": []}


def as_table(events: list[dict[str, Any]]) -> pa.Table:
    """Events in the order of time."""
    return pa.Table.from_pylist(sorted(events, key=lambda one: one["occurred_at"]), EVENT_SCHEMA)


def _event(visit: Visit, name: str, *, minutes: int) -> dict[str, Any]:
    at = visit.at + timedelta(minutes=minutes)
    return {
        "schema_version": 3,
        "event_id": str(uuid5(NAMESPACE_URL, f"{name}-{visit.name}")),
        "event_name": name,
        "occurred_at": at,
        "received_at": at,
        "subject_id": subject_id(visit.shopper),
        "session_id": visit.name,
        "purposes": _PURPOSES,
        "context": {"device": "mobile", "country": "US", "timezone": "UTC"},
        "synthetic": True,
    }

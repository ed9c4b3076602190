"""A shop of a few items and offers that rules are applied in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SmallShop:
    """`paths` are the categories of every item, in the order in which the items are known best."""

    paths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    valid: frozenset[str] = frozenset()
    together: bool = False

    def sellable(self, item_id: str) -> bool:
        return item_id in self.paths and item_id not in self.gone

    def categories(self, item_ids: Iterable[str]) -> Iterable[Sequence[str]]:
        return [self.paths.get(one, ()) for one in item_ids]

    def members(self, category: str, limit: int) -> Sequence[str]:
        found = [one for one, path in self.paths.items() if category in path and self.sellable(one)]
        return found[:limit]

    def may_give(self, offer_id: str) -> bool:
        return offer_id in self.valid

    def go_together(self, offer_ids: Sequence[str]) -> bool:
        return self.together or len(offer_ids) < 2

"""What rules and offers speak of and this shop does not have. It is saved all the same, as the
offer, or the release with the item, may come after it; and it is told, as it may be misspelt."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from contract.encoding import OOV
from contract.expression_needs import sought
from contract.expressions import parse
from contract.offers import OfferBook
from contract.rules import (
    Action,
    BlockOffer,
    Boost,
    Exclude,
    ForceOffer,
    Pin,
    ReplaceOffer,
    RuleBook,
)
from serving.api.gateway import Gateway

MOST_TOLD: Final = 50


def unknown_in_rules(gateway: Gateway, book: RuleBook) -> list[str]:
    """Of the actions and conditions of rules, each with the id of its rule."""
    shop = _Shop(gateway, gateway.shelf.current.book)
    found = (
        f"{rule.id}: {said}"
        for rule in book.rules
        for said in (
            *(one for action in rule.actions for one in shop.unknown_in(action)),
            *shop.unknown_to(rule.condition),
        )
    )
    return list(islice(found, MOST_TOLD))


def unknown_in_offers(gateway: Gateway, book: OfferBook) -> list[str]:
    """Of the conditions of offers, each with the id of its offer."""
    shop = _Shop(gateway, book)
    found = (
        f"{offer.offer_id}: {said}"
        for offer in book.offers
        for said in shop.unknown_to(offer.condition)
    )
    return list(islice(found, MOST_TOLD))


class _Shop:
    """The names that there are."""

    def __init__(self, gateway: Gateway, offers: OfferBook) -> None:
        self._release = release = gateway.live.current
        self._offers = {one.offer_id for one in offers.offers}
        learned = () if release.learned is None else release.learned.keys
        self._segments = {*release.rules.names, *learned}

    def unknown_in(self, action: Action) -> Iterator[str]:
        """What `action` speaks of that is not there."""
        match action:
            case ForceOffer(offer_id=one):
                yield from self._no_offers([one])
            case BlockOffer(offer_ids=some):
                yield from self._no_offers(some)
            case ReplaceOffer(offer_id=one, by=other):
                yield from self._no_offers([one, other])
            case Pin(items=items):
                yield from self._no_items(items)
            case Exclude(items=items, categories=names) | Boost(items=items, categories=names):
                yield from self._no_items(items)
                yield from self._no_categories(names)

    def unknown_to(self, condition: str | None) -> Iterator[str]:
        """What `condition`, which compiles, looks for and can not find."""
        for variable, name in () if condition is None else sought(parse(condition).root):
            match variable:
                case "segments" if name not in self._segments:
                    yield f"there is no segment {name}"
                case "cart.items" | "cart.quantities" | "decision.items":
                    yield from self._no_items([name])
                case "cart.categories" | "decision.categories":
                    yield from self._no_categories([name])
                case "decision.offers":
                    yield from self._no_offers([name])

    def _no_offers(self, ids: Iterable[str]) -> Iterator[str]:
        return (f"there is no offer {one}" for one in ids if one not in self._offers)

    def _no_items(self, ids: Iterable[str]) -> Iterator[str]:
        index = self._release.vocabulary.index
        return (f"the catalogue has no item {one}" for one in ids if index(one) == OOV)

    def _no_categories(self, names: Iterable[str]) -> Iterator[str]:
        found = self._release.catalogue.in_category
        return (f"the catalogue has no category {one}" for one in names if not len(found(one)))

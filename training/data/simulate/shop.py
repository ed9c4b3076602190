"""The catalogue as arrays: categories, popularity, list pages, complements and search words.

Items are ordered by category and, within it, from the most to the least popular, so that a page of
a category's list is a run of neighbours. Shapes: I items, C categories, K complements.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.errors import UserError
from contract.items import category_of
from training.data.simulate.draws import Floats, Generator, Ints
from training.data.simulate.world import World

_TERMS_PER_ITEM = 3
_TERM_LENGTH = 100
_WORD = re.compile(r"[a-z]{3,}")


@dataclass(frozen=True)
class Shop:
    """What is sold, ready for drawing from."""

    item_ids: pa.Array  # [I] text
    item_categories: pa.Array  # [I] text as events say it, null where there is none
    price: Ints  # [I] minor units
    relative_price: Floats  # [I] log of the price over the median of its category
    category: Ints  # [I]
    categories: list[str]  # [C]
    category_start: Ints  # [C + 1] first item of each category
    category_share: Floats  # [C] popularity of the category as a whole
    popularity: Floats  # [I] category + cumulative share within it
    complements: Ints  # [I, K] items that go with an item
    search_terms: list[str]  # [I * 3]
    currency: str
    list_length: int

    def draw_items(self, rng: Generator, categories: Ints) -> Ints:
        """A popular item of each category."""
        drawn = np.searchsorted(self.popularity, categories + rng.random(len(categories)), "right")
        return np.clip(
            drawn, self.category_start[categories], self.category_start[categories + 1] - 1
        ).astype(np.int64)

    def page_of(self, items: Ints) -> tuple[Ints, Ints]:
        """Where the list page of each item starts, and how many items it shows."""
        first = self.category_start[self.category[items]]
        start = first + (items - first) // self.list_length * self.list_length
        end = np.minimum(start + self.list_length, self.category_start[self.category[items] + 1])
        return start, end - start

    def draw_terms(self, rng: Generator, items: Ints) -> Ints:
        """Positions in `search_terms` of words that a shopper would type for each item."""
        return items * _TERMS_PER_ITEM + rng.integers(0, _TERMS_PER_ITEM, len(items))


def open_shop(rng: Generator, catalogue: pa.Table, world: World) -> Shop:
    """The shop that sells what `catalogue` can sell in every region of `world`.

    Raises UserError when no item is available with a price, prices are in several currencies, or an
    item comes twice.
    """
    sold = _sellable(catalogue, world)
    paths = sold["category_path"].to_pylist()
    names = [_category(path, world.items.category_level) for path in paths]
    categories = sorted(set(names))
    code = {name: place for place, name in enumerate(categories)}
    category = np.array([code[name] for name in names], np.int64)
    weight = (rng.permutation(len(sold)) + 1.0) ** -world.items.zipf_exponent
    order = np.lexsort((-weight, category))
    sold, category, weight = sold.take(pa.array(order)), category[order], weight[order]
    start = np.searchsorted(category, np.arange(len(categories) + 1))
    price = sold["price"].to_numpy().astype(np.int64)
    medians = np.array([np.median(price[a:b]) for a, b in pairwise(start)])
    running = np.concatenate([[0.0], np.cumsum(weight)])
    total = running[start[1:]] - running[start[:-1]]
    within = (running[1:] - running[start[category]]) / total[category]
    return Shop(
        item_ids=sold["item_id"].combine_chunks(),
        item_categories=pa.array(
            [category_of(path) for path in sold["category_path"].to_pylist()], pa.string()
        ),
        price=price,
        relative_price=np.log(price / medians[category]),
        category=category,
        categories=categories,
        category_start=start.astype(np.int64),
        category_share=total / total.sum(),
        popularity=category + np.minimum(within, 1.0),
        complements=_complements(rng, world.items.complements_per_item, category, within, start),
        search_terms=_search_terms(rng, sold),
        currency=sold["currency"][0].as_py(),
        list_length=world.items.list_length,
    )


def _sellable(catalogue: pa.Table, world: World) -> pa.Table:
    here = {region.region for region in world.regions}
    everywhere = pa.array([not r or here <= set(r) for r in catalogue["regions"].to_pylist()])
    priced = pc.fill_null(pc.greater(catalogue["price"], 0), False)
    available = pc.and_(pc.fill_null(catalogue["available"], False), everywhere)
    sold = catalogue.filter(pc.and_(priced, available)).combine_chunks()
    if len(sold) == 0:
        raise UserError("the catalogue has no available item with a price")
    currencies = sorted(str(currency) for currency in sold["currency"].unique().to_pylist())
    if len(currencies) > 1:
        raise UserError(f"the catalogue mixes currencies: {', '.join(currencies)}")
    if len(sold["item_id"].unique()) < len(sold):
        raise UserError("the catalogue has an item_id twice")
    return sold


def _category(path: list[str] | None, level: int) -> str:
    return path[min(level, len(path) - 1)] if path else "(none)"


def _complements(
    rng: Generator, per_item: int, category: Ints, within: Floats, start: Ints
) -> Ints:
    """[I, K]: every category goes with K others; an item takes one of equal standing from each."""
    num_categories = len(start) - 1
    partner = rng.integers(0, num_categories, (num_categories, per_item))[category]
    size = start[partner + 1] - start[partner]
    standing = np.minimum(within[:, None] * rng.random(partner.shape), 1.0 - 1e-9)
    chosen: Ints = (start[partner] + np.floor(standing**2 * size)).astype(np.int64)
    return chosen


def _search_terms(rng: Generator, sold: pa.Table) -> list[str]:
    """Three terms of one or two words for each item, from its text, else from its title."""
    terms: list[str] = []
    draws = rng.random((len(sold), _TERMS_PER_ITEM, 2))
    texts, titles = sold["text"].to_pylist(), sold["title"].to_pylist()
    for text, title, item_draws in zip(texts, titles, draws.tolist(), strict=True):
        words = _WORD.findall((text or "").lower()) or _WORD.findall((title or "").lower())
        words = words or ["item"]
        for first, second in item_draws:
            place = int(first * len(words))
            # Neighbouring words belong together more often than not: "potato chips".
            length = 1 + (second < 0.5)
            terms.append(" ".join(words[place : place + length])[:_TERM_LENGTH])
    return terms

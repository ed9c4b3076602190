"""Which items are viewed, how they were found and which go into the cart.

Shapes: V views, ordered by visit; S visits; N shoppers.
"""

from dataclasses import dataclass

import numpy as np

from training.data.simulate.draws import (
    Bools,
    Floats,
    Generator,
    Ints,
    chance,
    choose,
    cumulative,
    from_log_odds,
    log_odds,
    trait,
)
from training.data.simulate.shop import Shop
from training.data.simulate.shoppers import Shoppers
from training.data.simulate.visits import Visits
from training.data.simulate.world import World

_MAX_UNITS = 12
_STAPLE_DECAY = 0.15  # the first staple is bought most, each next one 15 % less
_DAYS_PER_WEEK = 7.0


@dataclass(frozen=True)
class Views:
    """Item views, visit by visit."""

    visit: Ints  # [V]
    item: Ints  # [V]
    searched: Bools  # [V] found by a search of its own
    listed: Bools  # [V] chosen from a list (every searched view is)
    added: Bools  # [V] put into the cart
    quantity: Ints  # [V] units, where added
    add_probability: Floats  # [V]


def draw_views(
    rng: Generator, world: World, shop: Shop, shoppers: Shoppers, visits: Visits
) -> Views:
    """What is viewed in each visit, how it was found, and whether it went into the cart."""
    visit = np.repeat(np.arange(len(visits)), visits.num_views)
    size = len(visit)
    archetype, intent = shoppers.archetype[visits.shopper[visit]], visits.intent[visit]
    item, staple = _items(rng, world, shop, shoppers, visits, visit)
    add_probability = _add_probability(world, shop, shoppers, visits, visit, item, staple)
    search = trait(world.archetypes, "search_probability")[archetype]
    searched = chance(rng, search * trait(world.intents, "search")[intent], size)
    listed = chance(rng, trait(world.archetypes, "list_probability")[archetype], size)
    units = rng.geometric(1.0 - world.items.extra_unit_probability, size)
    return Views(
        visit=visit,
        item=item,
        searched=searched,
        listed=searched | listed,
        added=chance(rng, add_probability, size),
        quantity=np.minimum(units, _MAX_UNITS).astype(np.int64),
        add_probability=add_probability,
    )


def _items(
    rng: Generator, world: World, shop: Shop, shoppers: Shoppers, visits: Visits, visit: Ints
) -> tuple[Ints, Bools]:
    """[V] items, from a category or a staple or a companion; and which are staples."""
    size, shopper = len(visit), visits.shopper[visit]
    archetype = shoppers.archetype[shopper]
    focus = _categories(rng, world, shoppers, visits.shopper, visits.day)[visit]
    other = _categories(rng, world, shoppers, shopper, visits.day[visit])
    loyal = chance(rng, trait(world.archetypes, "category_loyalty")[archetype], size)
    item = shop.draw_items(rng, np.where(loyal, focus, other))
    again = trait(world.archetypes, "repeat_probability")[archetype]
    staple = chance(rng, again * trait(world.intents, "repeat")[visits.intent[visit]], size)
    place = (rng.geometric(_STAPLE_DECAY, size) - 1) % shoppers.staples.shape[1]
    item = np.where(staple, shoppers.staples[shopper, place], item)
    item, follows = _with_complements(rng, world, shop, visit, item)
    return item, staple & ~follows


def _add_probability(
    world: World,
    shop: Shop,
    shoppers: Shoppers,
    visits: Visits,
    visit: Ints,
    item: Ints,
    staple: Bools,
) -> Floats:
    """[V]: the archetype's rate, its odds moved by intent, by habit and by the price."""
    shopper = visits.shopper[visit]
    rate = trait(world.archetypes, "add_to_cart_rate")[shoppers.archetype[shopper]]
    odds = log_odds(rate) + np.log(trait(world.intents, "add_odds"))[visits.intent[visit]]
    odds = odds + staple * np.log(world.taste.staple_add_odds)
    return from_log_odds(odds - shoppers.sensitivity[shopper] * shop.relative_price[item])


def _categories(rng: Generator, world: World, shoppers: Shoppers, shopper: Ints, day: Ints) -> Ints:
    """A category each, from the taste that the shopper has on that day."""
    moved = np.minimum(world.taste.drift_per_week * day / _DAYS_PER_WEEK, 1.0)
    later = chance(rng, moved, len(shopper))
    both = cumulative(np.concatenate([shoppers.affinity, shoppers.later_affinity]))
    rows = np.where(later, shopper + len(shoppers), shopper)
    return choose(rng, both, shoppers.affinity.shape[1], rows)


def _with_complements(
    rng: Generator, world: World, shop: Shop, visit: Ints, item: Ints
) -> tuple[Ints, Bools]:
    """Some views replaced by an item that goes with the one viewed before; and which those are."""
    size = len(item)
    opening = np.ones(size, bool)
    opening[1:] = visit[1:] != visit[:-1]
    follows = ~opening & chance(rng, world.items.complement_probability, size)
    # What goes with it is looked up for the last view that was not itself such a companion.
    anchor = np.maximum.accumulate(np.where(follows, 0, np.arange(size)))
    companion = shop.complements[item[anchor], rng.integers(0, shop.complements.shape[1], size)]
    return np.where(follows, companion, item), follows

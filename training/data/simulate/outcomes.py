"""What stays in each cart, who checks out, who buys, and where the others leave.

An outcome depends on nothing but the probabilities computed here, so the true purchase probability
of a visit, given what was viewed, is exact. Shapes: L cart lines, S visits, V views.
"""

from dataclasses import dataclass

import numpy as np

from training.data.simulate.draws import (
    Bools,
    Floats,
    Generator,
    Ints,
    chance,
    from_log_odds,
    log_odds,
    pick,
    trait,
)
from training.data.simulate.offers import Decisions, draw_decisions
from training.data.simulate.shop import Shop
from training.data.simulate.shoppers import Shoppers
from training.data.simulate.views import Views
from training.data.simulate.visits import Visits
from training.data.simulate.world import CHECKOUT_STEPS, World


@dataclass(frozen=True)
class Outcomes:
    """How visits ended. A cart line is a distinct item of a visit, also one removed again."""

    line_visit: Ints  # [L] ascending
    line_item: Ints  # [L]
    line_quantity: Ints  # [L]
    line_removed: Bools  # [L]
    checkout: Bools  # [S]
    purchased: Bools  # [S]
    last_step: Ints  # [S] position in CHECKOUT_STEPS of the last one reached
    purchase_probability: Floats  # [S] given the views; with offers, given the cart, over the arms


def draw_outcomes(
    rng: Generator,
    offer_rng: Generator,
    world: World,
    shop: Shop,
    shoppers: Shoppers,
    visits: Visits,
    views: Views,
) -> tuple[Outcomes, Decisions | None]:
    """The end of every visit, and what was offered at checkout where the world makes offers."""
    size, num_items = len(visits), len(shop.category)
    archetype = shoppers.archetype[visits.shopper]
    remove_rate = trait(world.archetypes, "remove_rate")[archetype]
    # Views of one item in one visit share a line of the cart.
    keys, line = np.unique(views.visit * num_items + views.item, return_inverse=True)
    quantity = np.bincount(line, views.quantity * views.added, len(keys)).astype(np.int64)
    line_visit, line_item = keys // num_items, keys % num_items
    some_left = _some_left(views, line, line_visit, remove_rate)
    in_cart = quantity > 0
    line_visit, line_item = line_visit[in_cart], line_item[in_cart]
    removed = chance(rng, remove_rate[line_visit], len(line_visit))
    has_cart = np.bincount(line_visit, ~removed, size) > 0
    p_checkout, p_purchase = _checkout_probabilities(world, visits, archetype)
    checkout = has_cart & chance(rng, p_checkout, size)
    value = values_of(shop, line_visit, line_item, quantity[in_cart] * ~removed, size)
    decisions = draw_decisions(
        offer_rng, world, shoppers, visits, checkout=checkout, buys=p_purchase, value=value
    )
    if decisions is not None:
        p_purchase, expected = decisions.bought(p_purchase), decisions.expected(p_purchase)
    else:
        expected = p_purchase
    leave = [world.checkout.abandon_after.get(step, 0.0) for step in CHECKOUT_STEPS]
    left_after = pick(rng, leave, size)
    purchased = checkout & chance(rng, p_purchase, size)
    outcomes = Outcomes(
        line_visit=line_visit,
        line_item=line_item,
        line_quantity=quantity[in_cart],
        line_removed=removed,
        checkout=checkout,
        purchased=purchased,
        last_step=np.where(purchased, len(CHECKOUT_STEPS) - 1, left_after),
        purchase_probability=some_left * p_checkout * expected,
    )
    return outcomes, decisions


def cart_values(shop: Shop, outcomes: Outcomes, num_visits: int) -> Ints:
    """[S] minor units: what stayed in each cart."""
    kept = outcomes.line_quantity * ~outcomes.line_removed
    return values_of(shop, outcomes.line_visit, outcomes.line_item, kept, num_visits)


def values_of(shop: Shop, visit: Ints, item: Ints, quantity: Ints, num_visits: int) -> Ints:
    """[S] minor units: price times quantity of the lines of each visit."""
    return np.bincount(visit, shop.price[item] * quantity, num_visits).astype(np.int64)


def _some_left(views: Views, line: Ints, line_visit: Ints, remove_rate: Floats) -> Floats:
    """[S] the chance that at least one item is added and not removed."""
    never_added = np.exp(np.bincount(line, np.log1p(-views.add_probability), len(line_visit)))
    kept = (1.0 - never_added) * (1.0 - remove_rate[line_visit])
    none_kept = np.bincount(line_visit, np.log1p(-np.minimum(kept, 1 - 1e-12)), len(remove_rate))
    return 1.0 - np.exp(none_kept)


def _checkout_probabilities(world: World, visits: Visits, archetype: Ints) -> tuple[Floats, Floats]:
    """[S] the chance of going to checkout with a cart, and of buying once there."""
    begin = log_odds(trait(world.archetypes, "checkout_rate"))[archetype]
    begin = begin + np.log(trait(world.intents, "checkout_odds"))[visits.intent]
    buy = log_odds(trait(world.archetypes, "purchase_rate"))[archetype]
    buy = buy + np.log(trait(world.devices, "purchase_odds"))[visits.device]
    return from_log_odds(begin), from_log_odds(buy)

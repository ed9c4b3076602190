"""One group of shoppers from who they are to the last event: the order of the draws is here."""

from dataclasses import dataclass
from datetime import date

import numpy as np

from training.data.simulate.choices import Choices, draw_choices
from training.data.simulate.draws import Generator
from training.data.simulate.names import Names, name_all
from training.data.simulate.offers import Decisions
from training.data.simulate.outcomes import Outcomes, cart_values, draw_outcomes
from training.data.simulate.shop import Shop
from training.data.simulate.shoppers import Shoppers, draw_shoppers
from training.data.simulate.timeline import Pool, Timeline, lay_out
from training.data.simulate.views import Views, draw_views
from training.data.simulate.visits import Visits, draw_visits
from training.data.simulate.world import World


@dataclass(frozen=True)
class Group:
    """Everything about some shoppers, the truth included."""

    everyone: Shoppers
    shoppers: (
        Shoppers  # those of `everyone` whose behaviour may be stored; the others left no trace
    )
    visits: Visits
    views: Views
    outcomes: Outcomes
    timeline: Timeline
    pool: Pool
    names: Names
    choices: Choices
    decisions: Decisions | None  # where the world makes offers


def draw_group(
    seed: np.random.SeedSequence,
    world: World,
    shop: Shop,
    size: int,
    start: date,
    num_days: int,
) -> tuple[Group, Generator]:
    """`size` shoppers and what they do from `start` for `num_days` days; and the generator that
    goes on from there. Offers have one of their own: a world without them draws as ever."""
    rng = np.random.default_rng(seed)
    offer_rng = np.random.default_rng(seed.spawn(1)[0])
    everyone = draw_shoppers(rng, world, shop, size)
    shoppers = everyone.where(everyone.stored)
    visits = draw_visits(rng, world, shoppers, start, num_days)
    views = draw_views(rng, world, shop, shoppers, visits)
    outcomes, decisions = draw_outcomes(rng, offer_rng, world, shop, shoppers, visits, views)
    timeline, pool = lay_out(rng, world, shop, visits, views, outcomes)
    names = name_all(rng, len(shoppers), len(visits))
    value = cart_values(shop, outcomes, len(visits))
    choices = draw_choices(rng, offer_rng, world, shoppers, visits, value)
    parts = (everyone, shoppers, visits, views, outcomes, timeline, pool, names)
    return Group(*parts, choices, decisions), rng

"""When shoppers come, on which device and what for. Shapes: S visits, N shoppers."""

from dataclasses import dataclass
from datetime import date

import numpy as np

from training.data.simulate.calendar import draw_starts
from training.data.simulate.draws import Generator, Ints, chance, choose, cumulative, pick, trait
from training.data.simulate.shoppers import Shoppers
from training.data.simulate.world import World


@dataclass(frozen=True)
class Visits:
    """Visits in the order of shopper and time."""

    shopper: Ints  # [S]
    start_us: Ints  # [S] UTC microseconds
    day: Ints  # [S] days after the start of the simulation
    device: Ints  # [S]
    intent: Ints  # [S]
    num_views: Ints  # [S]

    def __len__(self) -> int:
        return len(self.shopper)


def draw_visits(
    rng: Generator, world: World, shoppers: Shoppers, start: date, num_days: int
) -> Visits:
    """All visits of `shoppers` from `start` on."""
    counts = rng.poisson(shoppers.visits_per_week * num_days / 7.0)
    shopper = np.repeat(np.arange(len(shoppers)), counts)
    start_us, day = draw_starts(rng, world, start, num_days, shoppers.region[shopper])
    order = np.lexsort((start_us, shopper))
    shopper, start_us, day = shopper[order], start_us[order], day[order]
    archetype = shoppers.archetype[shopper]
    kinds, intents = world.archetypes.values(), list(world.intents)
    weights = [[kind.intents.get(name, 0.0) for name in intents] for kind in kinds]
    intent = choose(rng, cumulative(weights), len(intents), archetype)
    others = pick(rng, trait(world.devices, "share"), len(shopper))
    usual = chance(rng, world.device_loyalty, len(shopper))
    device = np.where(usual, shoppers.device[shopper], others)
    mean = trait(world.archetypes, "views_per_session")[archetype]
    mean = mean * trait(world.devices, "views")[device] * trait(world.intents, "views")[intent]
    spread = world.taste.views_dispersion
    more = rng.poisson(np.maximum(mean - 1.0, 0.0) * rng.gamma(spread, 1.0 / spread, len(mean)))
    return Visits(shopper, start_us, day, device, intent, 1 + more.astype(np.int64))

"""Who comes: archetype, home, device, tastes, and what they agreed to.

Shapes: N shoppers, C categories, T staples.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.data.simulate.draws import (
    Bools,
    Floats,
    Generator,
    Ints,
    choose,
    cumulative,
    pick,
    trait,
)
from training.data.simulate.shop import Shop
from training.data.simulate.world import World

PURPOSES = ("analytics", "offers", "personalization")


@dataclass(frozen=True)
class Shoppers:
    """A group of shoppers as arrays; codes count in the order of the world file."""

    archetype: Ints  # [N]
    region: Ints  # [N]
    device: Ints  # [N] the one they use most
    payment: Ints  # [N] favourite among the payment types of their region
    gpc: Bools  # [N]
    consent: Bools  # [N, 3] in the order of PURPOSES, before GPC
    sensitivity: Floats  # [N]
    visits_per_week: Floats  # [N]
    affinity: Floats  # [N, C] at the start, rows add up to 1
    later_affinity: Floats  # [N, C] where they drift to
    staples: Ints  # [N, T] items bought again and again

    def __len__(self) -> int:
        return len(self.archetype)

    @property
    def stored(self) -> Bools:
        """[N]: behaviour may be kept at all; the others leave no event."""
        return ~self.gpc & (self.consent[:, 0] | self.consent[:, 2])

    def where(self, chosen: Bools) -> "Shoppers":
        """Those that are `chosen`."""
        return Shoppers(**{name: column[chosen] for name, column in vars(self).items()})


def draw_shoppers(rng: Generator, world: World, shop: Shop, size: int) -> Shoppers:
    """`size` new shoppers."""
    kinds, taste = list(world.archetypes.values()), world.taste
    archetype = pick(rng, trait(world.archetypes, "share"), size)
    region = pick(rng, (region.share for region in world.regions), size)
    shared = [[k.consent.analytics, k.consent.offers, k.consent.personalization] for k in kinds]
    spread = np.exp(taste.sensitivity_spread * rng.standard_normal(size))
    busy = rng.gamma(taste.visits_dispersion, 1.0 / taste.visits_dispersion, size)
    affinity, later = (_affinities(rng, taste.concentration, shop, size) for _ in range(2))
    return Shoppers(
        archetype=archetype,
        region=region,
        device=pick(rng, trait(world.devices, "share"), size),
        payment=_payments(rng, world, region),
        gpc=rng.random(size) < world.gpc_share,
        consent=rng.random((size, len(PURPOSES))) < np.array(shared)[archetype],
        sensitivity=trait(world.archetypes, "price_sensitivity")[archetype] * spread,
        visits_per_week=trait(world.archetypes, "visits_per_week")[archetype] * busy,
        affinity=affinity,
        later_affinity=later,
        staples=_staples(rng, affinity, shop, taste.staples),
    )


def _affinities(rng: Generator, concentration: float, shop: Shop, size: int) -> Floats:
    """[N, C] Dirichlet draws around the popularity of the categories."""
    weight = rng.gamma(concentration * shop.category_share, 1.0, (size, len(shop.categories)))
    weight += 1e-12 * shop.category_share  # a gamma of a tiny shape can be 0 everywhere
    shares: npt.NDArray[np.float64] = weight / weight.sum(axis=1, keepdims=True)
    return shares


def _staples(rng: Generator, affinity: Floats, shop: Shop, per_shopper: int) -> Ints:
    rows = np.repeat(np.arange(len(affinity)), per_shopper)
    categories = choose(rng, cumulative(affinity), affinity.shape[1], rows)
    return shop.draw_items(rng, categories).reshape(len(affinity), per_shopper)


def _payments(rng: Generator, world: World, region: Ints) -> Ints:
    payment = np.zeros(len(region), np.int64)
    for code, home in enumerate(world.regions):
        here = region == code
        payment[here] = pick(rng, home.payment_types.values(), int(here.sum()))
    return payment

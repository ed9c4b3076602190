"""How people pay and have things delivered. Shapes: S visits, N shoppers, P payments of all
regions end to end, T shipping tiers."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from training.data.simulate.draws import Floats, Generator, Ints, chance, choose, cumulative, pick
from training.data.simulate.shoppers import Shoppers
from training.data.simulate.visits import Visits
from training.data.simulate.world import World
from training.data.simulate.world_offers import DeliveryWish, PaymentWish, Preferences


@dataclass(frozen=True)
class Choices:
    """What is chosen in each visit, also where it does not come to that."""

    payment: Ints  # [S] position in `payment_names`
    shipping: Ints  # [S] position among the tiers
    payment_weights: Floats  # [S, P] rows add up to 1; 0 in other regions
    shipping_weights: Floats  # [S, T] rows add up to 1


def payment_names(world: World) -> pa.Array:
    """[P] the payment types of every region, one region after the other."""
    return pa.array([name for home in world.regions for name in home.payment_types])


def payments_of(world: World) -> list[slice]:
    """Where each region's own lie in `payment_names`."""
    ends = np.cumsum([0, *(len(home.payment_types) for home in world.regions)]).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def draw_choices(
    rng: Generator,
    offer_rng: Generator,
    world: World,
    shoppers: Shoppers,
    visits: Visits,
    value: Ints,
) -> Choices:
    """Payment and shipping tier of each visit whose cart is worth `value` [S]."""
    payments, tiers = _payment_weights(world, shoppers, visits), _tier_weights(world, shoppers)
    wishes, region = world.preferences, shoppers.region[visits.shopper]
    if wishes is None:
        payment = shoppers.payment[visits.shopper].copy()
        changes = ~chance(rng, world.checkout.payment_loyalty, len(visits))
        for code, home in enumerate(world.regions):
            here = changes & (region == code)
            payment[here] = pick(rng, home.payment_types.values(), int(here.sum()))
        payment += np.array([part.start for part in payments_of(world)])[region]
        shipping = choose(rng, cumulative(tiers), tiers.shape[1], visits.shopper)
        return Choices(payment, shipping, _shares(payments), _shares(tiers)[visits.shopper])
    strength = np.maximum(value, 1) / wishes.reference_value
    payments *= _payment_factors(world, wishes, visits, strength)
    tiers = tiers[visits.shopper]
    tiers *= _delivery_factors(offer_rng, world, wishes, shoppers, visits, strength)
    payments, tiers = _with_favourite(world, shoppers, visits, _shares(payments)), _shares(tiers)
    rows = np.arange(len(visits))
    return Choices(
        choose(offer_rng, cumulative(payments), payments.shape[1], rows),
        choose(offer_rng, cumulative(tiers), tiers.shape[1], rows),
        payments,
        tiers,
    )


def _payment_weights(world: World, shoppers: Shoppers, visits: Visits) -> Floats:
    """[S, P] the shares of the shopper's region, 0 elsewhere."""
    parts = payments_of(world)
    by_region = np.zeros((len(parts), parts[-1].stop))
    for code, (part, home) in enumerate(zip(parts, world.regions, strict=True)):
        by_region[code, part] = list(home.payment_types.values())
    weights: Floats = by_region[shoppers.region[visits.shopper]]
    return weights


def _tier_weights(world: World, shoppers: Shoppers) -> Floats:
    """[N, T] a tier's weight, less for those to whom its price is high."""
    tiers = list(world.checkout.shipping_tiers.values())
    weight = np.array([tier.weight for tier in tiers])
    dearness = world.checkout.shipping_price_weight * np.array([t.price for t in tiers]) / 1000
    wish: Floats = weight * np.exp(-np.outer(shoppers.sensitivity, dearness))
    wish[wish.sum(axis=1) <= 0] = weight  # so sensitive that every price is too high
    return wish


def _payment_factors(world: World, wishes: Preferences, visits: Visits, strength: Floats) -> Floats:
    known = [wishes.payments.get(name, PaymentWish()) for name in payment_names(world).to_pylist()]
    devices = np.array([[w.devices.get(name, 1.0) for w in known] for name in world.devices])
    factors: Floats = devices[visits.device] * _powers(strength, [w.value_slope for w in known])
    return factors


def _delivery_factors(
    rng: Generator,
    world: World,
    wishes: Preferences,
    shoppers: Shoppers,
    visits: Visits,
    strength: Floats,
) -> Floats:
    """[S, T]: hurry is the shopper's own, everything else is of the place, device and cart."""
    known = [
        wishes.deliveries.get(name, DeliveryWish(days=0)) for name in world.checkout.shipping_tiers
    ]
    devices = np.array([[w.devices.get(name, 1.0) for w in known] for name in world.devices])
    regions = np.array([[w.regions.get(r.region, 1.0) for w in known] for r in world.regions])
    hurry = wishes.hurry * np.exp(wishes.hurry_spread * rng.standard_normal(len(shoppers)))
    waiting = np.exp(-np.outer(hurry, [wish.days for wish in known]))[visits.shopper]
    factors = devices[visits.device] * regions[shoppers.region[visits.shopper]] * waiting
    # A tier must stay possible, however long it takes.
    wanted: Floats = np.maximum(factors * _powers(strength, [w.value_slope for w in known]), 1e-12)
    return wanted


def _powers(strength: Floats, slopes: list[float]) -> Floats:
    """[S, K] within a factor of ten either way."""
    powers: Floats = np.clip(strength[:, None] ** np.array(slopes), 0.1, 10.0)
    return powers


def _with_favourite(world: World, shoppers: Shoppers, visits: Visits, shares: Floats) -> Floats:
    """[S, P] mixed with the shopper's favourite at the share of those who stay with it."""
    first = np.array([part.start for part in payments_of(world)])
    favourite = (first[shoppers.region] + shoppers.payment)[visits.shopper]
    loyal = world.checkout.payment_loyalty
    mixed: Floats = (1.0 - loyal) * shares
    mixed[np.arange(len(visits)), favourite] += loyal
    return mixed


def _shares(weights: Floats) -> Floats:
    shares: Floats = weights / weights.sum(axis=1, keepdims=True)
    return shares

"""Randomised offers at the beginning of checkout, and what each would do to each shopper.

Shapes: S visits, A arms; arm 0 is no offer.
"""

from dataclasses import dataclass

import numpy as np

from contract.offers import FreeShipping, reduction
from training.data.simulate.draws import (
    Bools,
    Floats,
    Generator,
    Ints,
    choose,
    cumulative,
    from_log_odds,
    log_odds,
    trait,
)
from training.data.simulate.shoppers import PURPOSES, Shoppers
from training.data.simulate.visits import Visits
from training.data.simulate.world import World
from training.data.simulate.world_offers import Arm, OfferWorld

NOT_ASKED, NO_OFFER = -1, 0
NO_OFFER_NAME = "none"


@dataclass(frozen=True)
class Decisions:
    """What was decided at each checkout."""

    arm: Ints  # [S] NOT_ASKED where nobody may be offered anything, or checkout was not begun
    propensity: Floats  # [S, A] of every arm, rows add up to 1
    probability: Floats  # [S, A] of buying, once at checkout, under every arm
    value: Ints  # [S] of the cart, minor units
    cost: Ints  # [S, A] what an arm takes off, where the shopper buys
    may_ask: Bools  # [S] agreed to offers and to personalisation

    def bought(self, without: Floats) -> Floats:
        """[S] the chance of buying under the arm decided on, else `without` offers."""
        row = np.arange(len(self.arm))
        return np.where(self.arm >= NO_OFFER, self.probability[row, self.arm], without)

    def expected(self, without: Floats) -> Floats:
        """[S] the same before the arm is drawn."""
        over_arms = (self.propensity * self.probability).sum(1)
        return np.where(self.may_ask, over_arms, without)

    def margins(self, margin_rate: float) -> Floats:
        """[S, A] expected margin in minor units under every arm."""
        margins: Floats = self.probability * (margin_rate * self.value[:, None] - self.cost)
        return margins


def arm_names(world: World) -> list[str]:
    """The names of the arms, no offer first."""
    return [NO_OFFER_NAME, *(world.offers.arms if world.offers else {})]


def draw_decisions(
    rng: Generator,
    world: World,
    shoppers: Shoppers,
    visits: Visits,
    *,
    checkout: Bools,
    buys: Floats,
    value: Ints,
) -> Decisions | None:
    """An arm for everybody who is at `checkout` and agreed; None in a world without offers.

    `buys` [S]: the chance of buying without an offer. `value` [S]: of the cart.
    """
    if world.offers is None:
        return None
    agreed = shoppers.consent[:, PURPOSES.index("offers")]
    agreed = agreed & shoppers.consent[:, PURPOSES.index("personalization")]
    may_ask = agreed[visits.shopper]
    propensity = _propensities(world.offers, list(world.devices), visits)
    drawn = choose(rng, cumulative(propensity), propensity.shape[1], np.arange(len(visits)))
    shift = _shifts(world, world.offers, shoppers, visits, value)
    costs = [_costs(world, arm, value) for arm in world.offers.arms.values()]
    return Decisions(
        arm=np.where(may_ask & checkout, drawn, NOT_ASKED),
        propensity=propensity,
        probability=from_log_odds(log_odds(buys)[:, None] + shift),
        value=value,
        cost=np.stack([np.zeros_like(value), *costs], axis=1),
        may_ask=may_ask,
    )


def _propensities(offers: OfferWorld, devices: list[str], visits: Visits) -> Floats:
    arms = offers.arms.values()
    shares = np.array(
        [
            [offers.no_offer_share, *(arm.share * arm.device_share.get(name, 1.0) for arm in arms)]  # type: ignore[call-overload]
            for name in devices
        ]
    )
    shares /= shares.sum(1, keepdims=True)
    chosen: Floats = shares[visits.device]
    return chosen


def _shifts(
    world: World, offers: OfferWorld, shoppers: Shoppers, visits: Visits, value: Ints
) -> Floats:
    """[S, A] what every arm adds to the log-odds of buying."""
    effect, archetype = offers.effect, shoppers.archetype[visits.shopper]
    usual = trait(world.archetypes, "price_sensitivity")[archetype]
    own = shoppers.sensitivity[visits.shopper]
    watchful = np.divide(own, usual, out=np.ones_like(own), where=usual > 0)
    strength = np.ones(len(visits))
    for ratio, slope in (
        (watchful, effect.sensitivity_slope),
        (value / effect.reference_value, effect.value_slope),
    ):
        strength *= np.clip(np.maximum(ratio, 1e-9) ** slope, effect.least, effect.most)
    strength *= np.array([effect.devices.get(name, 1.0) for name in world.devices])[visits.device]
    names = list(world.archetypes)
    odds = np.array(
        [[1.0, *(arm.odds.get(name, 1.0) for arm in offers.arms.values())] for name in names]
    )
    shifts: Floats = np.log(odds)[archetype] * strength[:, None]
    return shifts


def _costs(world: World, arm: Arm, value: Ints) -> Ints:
    """[S] what `arm` takes off: of delivery, the dearest of the tiers that it makes free."""
    shipping = 0
    if isinstance(arm.discount, FreeShipping):
        tiers = world.checkout.shipping_tiers
        shipping = max(tiers[name].price for name in arm.discount.shipping_ids or tuple(tiers))
    return np.array([reduction(arm.discount, cart, shipping) for cart in value.tolist()], np.int64)

"""A world like another one, with its numbers drawn anew around what they are: for trying what is
learned on worlds that nothing was chosen on."""

import math

import numpy as np

from training.data.simulate.draws import Generator
from training.data.simulate.world import Archetype, World
from training.data.simulate.world_offers import OfferWorld

# Standard deviations on the log scale; of what lies between 0 and 1 on that of its odds.
_SHOPPERS, _SENSITIVITY, _OFFERS, _MARGIN = 0.3, 0.5, 0.3, 0.2
_RATES = ("add_to_cart_rate", "remove_rate", "checkout_rate", "purchase_rate")


def varied(world: World, seed: int) -> World:
    """`world` with other archetypes (shares, rates, sensitivities), other effects of its arms and
    another margin, all from `seed`. The catalogue's side, places, devices and consent stay."""
    rng = np.random.default_rng(seed)
    archetypes = {name: _archetype(rng, kind) for name, kind in world.archetypes.items()}
    changed = {
        "name": f"{world.name[:40]}-{seed}",
        "archetypes": archetypes,
        "offers": None if world.offers is None else _offers(rng, world.offers, archetypes),
    }
    return World.model_validate(world.model_copy(update=changed).model_dump())


def _archetype(rng: Generator, kind: Archetype) -> Archetype:
    return kind.model_copy(
        update={
            "share": _times(rng, kind.share, _SHOPPERS),
            "visits_per_week": _times(rng, kind.visits_per_week, _SHOPPERS),
            "views_per_session": min(
                max(_times(rng, kind.views_per_session, _SHOPPERS), 1.0), 500.0
            ),
            "price_sensitivity": _times(rng, kind.price_sensitivity, _SENSITIVITY),
            **{name: _shifted(rng, getattr(kind, name), _SHOPPERS) for name in _RATES},
        }
    )


def _offers(rng: Generator, offers: OfferWorld, archetypes: dict[str, Archetype]) -> OfferWorld:
    arms = {
        name: arm.model_copy(
            update={
                "odds": {kind: _times(rng, arm.odds.get(kind, 1.0), _OFFERS) for kind in archetypes}
            }
        )
        for name, arm in offers.arms.items()
    }
    return offers.model_copy(
        update={"arms": arms, "margin_rate": _shifted(rng, offers.margin_rate, _MARGIN)}
    )


def _times(rng: Generator, value: float, spread: float) -> float:
    return value * math.exp(spread * rng.standard_normal())


def _shifted(rng: Generator, chance: float, spread: float) -> float:
    """A chance with its log-odds shifted; one of 0 or 1 stays."""
    moved = spread * rng.standard_normal()
    if not 0.0 < chance < 1.0:
        return chance
    return 1.0 / (1.0 + math.exp(-(math.log(chance / (1.0 - chance)) + moved)))

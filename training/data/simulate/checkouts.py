"""The log of checkouts that were begun, as a gateway would keep it, and the truth behind it."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from contract.events import EVENT_TYPE
from training.data.columns import utc
from training.data.simulate.choices import payments_of
from training.data.simulate.draws import Bools, Ints
from training.data.simulate.group import Group
from training.data.simulate.offers import NO_OFFER, arm_names
from training.data.simulate.shop import Shop
from training.data.simulate.shoppers import PURPOSES
from training.data.simulate.tables import cart_items, contexts
from training.data.simulate.world import World
from training.data.simulate.world_offers import DeliveryWish
from training.data.storage import CHECKOUTS_SCHEMA

_SHIPPING = CHECKOUTS_SCHEMA.field("shipping_options").type


def checkouts_table(world: World, shop: Shop, group: Group) -> pa.Table:
    """A row of CHECKOUTS_SCHEMA for every visit that began checkout."""
    visits, shoppers, choices = group.visits, group.shoppers, group.choices
    visit, decided_us = _begun(group)
    shopper = visits.shopper[visit]
    region = shoppers.region[shopper]
    personal = shoppers.consent[shopper, PURPOSES.index("personalization")]
    last = group.outcomes.last_step[visit]
    names = [list(home.payment_types) for home in world.regions]
    own = choices.payment[visit] - np.array([part.start for part in payments_of(world)])[region]
    payment = [names[home][at] for home, at in zip(region.tolist(), own.tolist(), strict=True)]
    items, value = cart_items(shop, group, visit)
    rate = world.offers.margin_rate if world.offers else 0.0
    columns = {
        "session_id": group.names.sessions.take(pa.array(visit)),
        "subject_id": group.names.subjects.take(pa.array(shopper)),
        "decided_at": utc(decided_us),
        "context": contexts(world, region, visits.device[visit], personal),
        "items": items,
        "value": pa.array(value),
        "margin": pa.array(np.round(rate * value).astype(np.int64)),
        **_decided(world, group, visit),
        "purchased": pa.array(group.outcomes.purchased[visit]),
        "payment_methods": pa.array(names, pa.list_(pa.string())).take(pa.array(region)),
        "payment_type": pa.array(payment, mask=last < 2),
        "shipping_options": _shipping_options(world, len(visit)),
        "shipping_tier": pa.array(list(world.checkout.shipping_tiers)).take(
            pa.array(choices.shipping[visit], mask=last < 1)
        ),
    }
    return pa.table(columns).select(CHECKOUTS_SCHEMA.names).cast(CHECKOUTS_SCHEMA)


def checkout_truth_table(world: World, group: Group) -> pa.Table:
    """The chances behind the same rows: of buying under every arm, of every way to pay and send."""
    visit, _ = _begun(group)
    payments, region = payments_of(world), group.shoppers.region[group.visits.shopper[visit]]
    weights = group.choices.payment_weights[visit]
    own = [weights[row, payments[home]].tolist() for row, home in enumerate(region.tolist())]
    columns = {
        "session_id": group.names.sessions.take(pa.array(visit)),
        "archetype": pa.array(list(world.archetypes)).take(
            pa.array(group.shoppers.archetype[group.visits.shopper[visit]])
        ),
        "payment_probabilities": pa.array(own, pa.list_(pa.float64())),
        "shipping_probabilities": pa.array(
            list(group.choices.shipping_weights[visit]), pa.list_(pa.float64())
        ),
    }
    if group.decisions is not None:
        bought = list(group.decisions.probability[visit])
        columns["purchase_probabilities"] = pa.array(bought, pa.list_(pa.float64()))
    return pa.table(columns)


def _begun(group: Group) -> tuple[Ints, Ints]:
    """The visits that began checkout, in the order of time, and when."""
    at = np.flatnonzero(group.timeline.event_type == EVENT_TYPE["begin_checkout"])
    return group.timeline.visit[at], group.timeline.occurred_us[at]


def _decided(world: World, group: Group, visit: Ints) -> dict[str, pa.Array]:
    decisions, names = group.decisions, arm_names(world)
    if decisions is None:
        none = np.zeros(len(visit), bool)
        return {
            "arms": _lists([[]] * len(visit), pa.string(), ~none),
            "propensities": _lists([[]] * len(visit), pa.float64(), ~none),
            "reductions": _lists([[]] * len(visit), pa.int64(), ~none),
            "arm": pa.nulls(len(visit), pa.string()),
        }
    arm = decisions.arm[visit]
    asked = arm >= NO_OFFER
    return {
        "arms": _lists([names] * len(visit), pa.string(), asked),
        "propensities": _lists(decisions.propensity[visit].tolist(), pa.float64(), asked),
        "reductions": _lists(decisions.cost[visit].tolist(), pa.int64(), asked),
        "arm": pa.array(names).take(pa.array(arm, mask=~asked)),
    }


def _lists(rows: Sequence[Sequence[object]], of: pa.DataType, present: Bools) -> pa.Array:
    return pa.array(rows, pa.list_(of), mask=~present)


def _shipping_options(world: World, size: int) -> pa.Array:
    wishes = world.preferences.deliveries if world.preferences else {}
    options = [
        {"id": name, "price": tier.price, "days": wishes.get(name, DeliveryWish(days=0)).days}
        for name, tier in world.checkout.shipping_tiers.items()
    ]
    return pa.array([options], _SHIPPING).take(pa.array(np.zeros(size, np.int64)))

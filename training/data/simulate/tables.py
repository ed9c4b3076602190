"""The event columns of one group of shoppers. No column here knows anything of the truth."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.clock import MICROSECONDS
from contract.events import EVENT_NAMES, EVENT_TYPE
from contract.frames import EVENT_SCHEMA
from training.data.columns import event_table, utc
from training.data.simulate.choices import payment_names
from training.data.simulate.draws import (
    Bools,
    Generator,
    Ints,
    chance,
    milliseconds,
)
from training.data.simulate.group import Group
from training.data.simulate.names import uuids
from training.data.simulate.offers import NO_OFFER, arm_names
from training.data.simulate.shop import Shop
from training.data.simulate.shoppers import PURPOSES
from training.data.simulate.timeline import Pool, Timeline
from training.data.simulate.world import World

_VALUED = np.array(
    [
        EVENT_TYPE[name]
        for name in (
            "view_item",
            "add_to_cart",
            "remove_from_cart",
            "view_cart",
            "begin_checkout",
            "add_shipping_info",
            "add_payment_info",
            "purchase",
        )
    ]
)
_ITEM = EVENT_SCHEMA.field("items").type.value_type


def events_of(rng: Generator, world: World, shop: Shop, group: Group) -> pa.Table:
    """The group's timeline as a table of `EVENT_SCHEMA`, in its order."""
    shoppers, visits, timeline, names = group.shoppers, group.visits, group.timeline, group.names
    size = len(timeline.visit)
    shopper = visits.shopper[timeline.visit]
    personal = shoppers.consent[shopper, PURPOSES.index("personalization")]
    kind = timeline.event_type
    items, value = _items(shop, timeline, group.pool)
    valued = np.isin(kind, _VALUED)
    choices = group.choices
    buying = kind == EVENT_TYPE["purchase"]
    searching = kind == EVENT_TYPE["search"]
    term = np.zeros(size, np.int64)
    term[searching] = shop.draw_terms(rng, group.views.item[timeline.view[searching]])
    paying = buying | (kind == EVENT_TYPE["add_payment_info"])
    sending = buying | (kind == EVENT_TYPE["add_shipping_info"])
    columns = {
        "event_id": uuids(rng, size),
        "event_name": pa.array(("", *EVENT_NAMES)).take(pa.array(kind)),
        "occurred_at": utc(timeline.occurred_us),
        "received_at": utc(timeline.occurred_us + _delays_us(rng, world, size)),
        "subject_id": names.subjects.take(pa.array(shopper)),
        "session_id": names.sessions.take(pa.array(timeline.visit)),
        "purposes": _purposes().take(pa.array(shoppers.consent[shopper] @ np.array([1, 2, 4]))),
        "items": items,
        "value": pa.array(value, mask=~valued),
        "currency": _where(pa.array([shop.currency]), np.zeros(size, np.int64), valued),
        "payment_type": _where(payment_names(world), choices.payment[timeline.visit], paying),
        "shipping_tier": _where(
            pa.array(list(world.checkout.shipping_tiers)), choices.shipping[timeline.visit], sending
        ),
        **_coupons(world, group, buying),
        "transaction_id": _where(names.transactions, timeline.visit, buying),
        "search_term": _where(pa.array(shop.search_terms), term, searching),
        "engagement_ms": pa.array(timeline.engagement_ms, mask=timeline.engagement_ms < 0),
        "context": contexts(
            world, shoppers.region[shopper], visits.device[timeline.visit], personal
        ),
    }
    return event_table(columns, synthetic=True).filter(pa.array(~searching | personal))


def _coupons(world: World, group: Group, buying: Bools) -> dict[str, pa.Array]:
    """What was offered stands on the purchase that it was used for."""
    if group.decisions is None:
        return {}
    arm = group.decisions.arm[group.timeline.visit]
    return {"coupon": _where(pa.array(arm_names(world)), arm, buying & (arm > NO_OFFER))}


def _where(choices: pa.Array, position: Ints, chosen: Bools) -> pa.Array:
    """`choices[position]` where `chosen`, else null."""
    return choices.take(pa.array(position, mask=~chosen))


def _items(shop: Shop, timeline: Timeline, pool: Pool) -> tuple[pa.Array, Ints]:
    """The `items` column and the sum of price times quantity of each event."""
    return _listed(shop, pool, timeline.shown, timeline.num_shown, timeline.index)


def _listed(
    shop: Shop, pool: Pool, start: Ints, length: Ints, index: Ints
) -> tuple[pa.Array, Ints]:
    """Runs of the pool as lists of items (the first one's place is `index`, -1 for none), and
    what each is worth."""
    offsets = np.concatenate([[0], np.cumsum(length)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], length)
    entry = np.repeat(start, length) + within
    item, quantity = pool.item[entry], pool.quantity[entry]
    price = shop.price[item]
    first_index = np.repeat(index, length)
    columns = [
        shop.item_ids.take(pa.array(item)),
        pa.array(quantity),
        pa.array(price),
        pa.array(first_index + within, mask=first_index < 0),
        shop.item_categories.take(pa.array(item)),
    ]
    entries = pa.StructArray.from_arrays(columns, fields=list(_ITEM))
    running = np.concatenate([[0], np.cumsum(price * quantity)])
    value = running[offsets[1:]] - running[offsets[:-1]]
    return pa.ListArray.from_arrays(offsets.astype(np.int32), entries), value


def _delays_us(rng: Generator, world: World, size: int) -> Ints:
    """How long each event took to arrive."""
    travel = milliseconds(rng, world.delivery.delay, size) * (MICROSECONDS / 1000)
    late = chance(rng, world.delivery.late_share, size) * rng.random(size)
    delays: npt.NDArray[np.int64] = (
        travel + late * world.delivery.late_hours * 3600 * MICROSECONDS
    ).astype(np.int64)
    return delays


def _purposes() -> pa.Array:
    """[8] every set of purposes, at the sum of the bits of its members."""
    sets = [
        [purpose for bit, purpose in enumerate(PURPOSES) if code >> bit & 1] for code in range(8)
    ]
    return pa.array(sets, EVENT_SCHEMA.field("purposes").type)


def cart_items(shop: Shop, group: Group, visit: Ints) -> tuple[pa.Array, Ints]:
    """The `items` column and the value of what stayed in the cart of each of `visit`."""
    outcomes, size = group.outcomes, len(group.visits)
    kept = ~outcomes.line_removed
    length = np.bincount(outcomes.line_visit[kept], minlength=size)
    first = np.cumsum(length) - length
    lines = Pool(outcomes.line_item[kept], outcomes.line_quantity[kept])
    return _listed(shop, lines, first[visit], length[visit], np.full(len(visit), -1))


def contexts(world: World, region: Ints, device: Ints, personal: Bools) -> pa.Array:
    """Without `personalization` the region is left out, as `contract.consent.redact` does."""
    combinations = [
        {
            "device": name,
            "country": home.country,
            "region": home.region if shown else None,
            "timezone": home.timezone,
        }
        for home in world.regions
        for name in world.devices
        for shown in (False, True)
    ]
    contexts = pa.array(combinations, EVENT_SCHEMA.field("context").type)
    return contexts.take(pa.array((region * len(world.devices) + device) * 2 + personal))

"""In which order and when: visits, views and outcomes as one stream of events.

Shapes: E events, S visits, V views, L cart lines, P entries of the pool. What an event shows is a
run of the pool, which holds the views one by one, then the whole shop (for lists), then three carts
per visit: all that was added, what stayed, what was removed.
"""

from dataclasses import dataclass

import numpy as np

from contract.clock import MICROSECONDS
from contract.events import EVENT_TYPE
from training.data.simulate.draws import Bools, Generator, Ints, chance, milliseconds, trait
from training.data.simulate.outcomes import Outcomes
from training.data.simulate.shop import Shop
from training.data.simulate.views import Views
from training.data.simulate.visits import Visits
from training.data.simulate.world import World

_VIEW_STEPS = (
    "search",
    "view_item_list",
    "scroll",
    "hover",
    "click",
    "select_item",
    "view_item",
    "scroll",
    "page_dwell",
    "add_to_cart",
)
_END_STEPS = (
    "view_cart",
    "remove_from_cart",
    "begin_checkout",
    "add_shipping_info",
    "add_payment_info",
    "purchase",
)
_LIST_STEP, _HOVER_STEP, _SELECT_STEP, _ADD_STEP = 1, 3, 5, 9
_STEPS_PER_STAGE = 16


@dataclass(frozen=True)
class Pool:
    """Item and quantity of everything that an event can show."""

    item: Ints  # [P]
    quantity: Ints  # [P]


@dataclass(frozen=True)
class Timeline:
    """Events in the order of time."""

    visit: Ints  # [E]
    event_type: Ints  # [E] contract.events.EVENT_TYPE
    occurred_us: Ints  # [E]
    engagement_ms: Ints  # [E] -1 where it says nothing
    view: Ints  # [E] the view that it belongs to, -1 for none
    shown: Ints  # [E] first entry of the pool
    num_shown: Ints  # [E]
    index: Ints  # [E] place in the list of the first item shown, -1 for none


@dataclass(frozen=True)
class _Steps:
    """Some events before they have a time; `order` is their rank within the visit."""

    visit: Ints
    order: Ints
    event_type: Ints
    view: Ints
    shown: Ints
    num_shown: Ints
    index: Ints


def lay_out(
    rng: Generator, world: World, shop: Shop, visits: Visits, views: Views, outcomes: Outcomes
) -> tuple[Timeline, Pool]:
    """The events of all visits with their times, and the pool that their items are runs of."""
    carts, pool = _pool(shop, views, outcomes, len(visits))
    blocks = [
        _landing(len(visits)),
        _viewing(rng, world, shop, visits, views),
        _ending(rng, world, visits, outcomes, carts),
    ]
    steps = _Steps(
        **{
            name: np.concatenate([getattr(block, name) for block in blocks])
            for name in _Steps.__annotations__
        }
    )
    rank = np.lexsort((steps.order, steps.visit))
    steps = _Steps(**{name: column[rank] for name, column in vars(steps).items()})
    engagement_ms, gap_us = _durations(rng, world, visits, steps)
    occurred_us = _times(visits, steps.visit, gap_us)
    by_time = np.argsort(occurred_us, kind="stable")
    columns = {name: column for name, column in vars(steps).items() if name != "order"}
    columns |= {"occurred_us": occurred_us, "engagement_ms": engagement_ms}
    return Timeline(**{name: column[by_time] for name, column in columns.items()}), pool


def _landing(num_visits: int) -> _Steps:
    """A `page_view` opens every visit."""
    none = np.full(num_visits, -1)
    zero = np.zeros(num_visits, np.int64)
    code = np.full(num_visits, EVENT_TYPE["page_view"])
    return _Steps(np.arange(num_visits), zero, code, none, zero, zero, none)


def _viewing(rng: Generator, world: World, shop: Shop, visits: Visits, views: Views) -> _Steps:
    """Everything around a view, in the order of `_VIEW_STEPS`."""
    happens = _view_steps_taken(rng, world, visits, views)
    view, step = np.nonzero(happens)
    item = views.item[view]
    page, page_length = shop.page_of(item)
    whole_shop = len(views.visit)  # where the shop begins in the pool
    neighbour = page + (rng.random(len(view)) * page_length).astype(np.int64)
    event_type = np.array([EVENT_TYPE[name] for name in _VIEW_STEPS])[step]
    listing, hovering = step == _LIST_STEP, step == _HOVER_STEP
    shows_nothing = (event_type == EVENT_TYPE["search"]) | (event_type == EVENT_TYPE["scroll"])
    shown = np.where(step == _ADD_STEP, view, whole_shop + item)
    shown = np.where(listing, whole_shop + page, shown)
    shown = np.where(hovering, whole_shop + neighbour, shown)
    num_shown = np.where(listing, page_length, np.where(shows_nothing, 0, 1))
    index = np.where(listing, 0, np.where(step == _SELECT_STEP, item - page, -1))
    index = np.where(hovering, neighbour - page, index)
    order = (1 + view) * _STEPS_PER_STAGE + step  # views are numbered visit by visit
    return _Steps(views.visit[view], order, event_type, view, shown, num_shown, index)


def _view_steps_taken(rng: Generator, world: World, visits: Visits, views: Views) -> Bools:
    """[V, 10]: which of `_VIEW_STEPS` happen."""
    small, size = world.engagement, len(views.visit)
    hovers = trait(world.devices, "hover")
    hover = small.hover_probability * hovers[visits.device[views.visit]]
    return np.stack(
        [
            views.searched,
            views.listed,
            views.listed & chance(rng, small.list_scroll_probability, size),
            views.listed & chance(rng, hover, size),
            views.listed & chance(rng, small.click_probability, size),
            views.listed,
            np.ones(size, bool),
            chance(rng, small.page_scroll_probability, size),
            chance(rng, small.dwell_probability, size),
            views.added,
        ],
        axis=1,
    )


def _ending(
    rng: Generator, world: World, visits: Visits, outcomes: Outcomes, carts: "_Carts"
) -> _Steps:
    """Cart and checkout, in the order of `_END_STEPS`."""
    num_visits = len(visits)
    some = np.bincount(outcomes.line_visit, minlength=num_visits) > 0
    removed = np.bincount(outcomes.line_visit, outcomes.line_removed, num_visits) > 0
    looks = some & chance(rng, world.engagement.view_cart_probability, num_visits)
    began, last = outcomes.checkout, outcomes.last_step
    happens = np.stack(
        [
            looks | removed | began,
            removed,
            began,
            began & (last >= 1),
            began & (last >= 2),
            outcomes.purchased,
        ],
        axis=1,
    )
    visit, step = np.nonzero(happens)
    cart = np.array([0, 2, 1, 1, 1, 1])[step]  # all, removed, kept
    return _Steps(
        visit=visit,
        order=np.iinfo(np.int64).max - _STEPS_PER_STAGE + step,
        event_type=np.array([EVENT_TYPE[name] for name in _END_STEPS])[step],
        view=np.full(len(visit), -1),
        shown=carts.start[cart, visit],
        num_shown=carts.length[cart, visit],
        index=np.full(len(visit), -1),
    )


@dataclass(frozen=True)
class _Carts:
    start: Ints  # [3, S] first entry in the pool of the added, the kept and the removed items
    length: Ints  # [3, S]


def _pool(shop: Shop, views: Views, outcomes: Outcomes, num_visits: int) -> tuple[_Carts, Pool]:
    num_items = len(shop.category)
    items, quantities = [views.item, np.arange(num_items)], [views.quantity, np.ones(num_items)]
    starts, lengths, end = [], [], len(views.item) + num_items
    whole = np.ones(len(outcomes.line_visit), bool)
    for chosen in (whole, ~outcomes.line_removed, outcomes.line_removed):
        items.append(outcomes.line_item[chosen])
        quantities.append(outcomes.line_quantity[chosen])
        length = np.bincount(outcomes.line_visit[chosen], minlength=num_visits)
        starts.append(end + np.cumsum(length) - length)
        lengths.append(length)
        end += int(length.sum())
    pool = Pool(np.concatenate(items), np.concatenate(quantities).astype(np.int64))
    return _Carts(np.stack(starts), np.stack(lengths)), pool


def _durations(rng: Generator, world: World, visits: Visits, steps: _Steps) -> tuple[Ints, Ints]:
    """[E] `engagement_ms` (-1 for none) and the microseconds since the event before."""
    size = len(steps.visit)
    gap_ms = milliseconds(rng, world.engagement.step, size)
    hovering = steps.event_type == EVENT_TYPE["hover"]
    dwelling = steps.event_type == EVENT_TYPE["page_dwell"]
    slow = trait(world.devices, "dwell")
    slow = slow[visits.device[steps.visit[dwelling]]]
    gap_ms[hovering] = milliseconds(rng, world.engagement.hover, int(hovering.sum()))
    dwell = milliseconds(rng, world.engagement.dwell, int(dwelling.sum()))
    gap_ms[dwelling] = np.minimum(dwell * slow, 1_800_000.0)
    gap_ms = np.floor(gap_ms).astype(np.int64)
    engagement_ms = np.where(hovering | dwelling, gap_ms, -1)
    return engagement_ms, np.maximum(gap_ms, 1) * (MICROSECONDS // 1000)


def _times(visits: Visits, visit: Ints, gap_us: Ints) -> Ints:
    """[E] UTC microseconds; a visit opens at its start and only moves forward."""
    running = np.cumsum(gap_us)
    opening = np.ones(len(visit), bool)
    opening[1:] = visit[1:] != visit[:-1]
    first = np.maximum.accumulate(np.where(opening, np.arange(len(visit)), 0))
    return visits.start_us[visit] + running - running[first]

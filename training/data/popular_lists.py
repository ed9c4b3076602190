"""The popular items of each segment and region, counted from the baskets of the last weeks. Which
segments a shopper was in is judged at each basket, from what was known before it, by the function
that judges a live checkout. A list must earn its place: counted without the last week, it has to
name more of what the cell bought in that week than the list it would take the place of."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import sparse

from contract.clock import DAY_US
from contract.encoding import FIRST_ITEM, Situation
from contract.items import Indices
from contract.popular import MAX_ITEMS, MAX_LISTS, PRECEDENCE, Cell, PopularLists
from training.data.baskets import Baskets, Numbers, Timelines

# A cell that buys less has no list. Above that, its counts are joined by PRIOR_BASKETS baskets that
# buy like the cell's region, or like everybody: what a cell has seldom seen is ranked as others buy
# it, and what it has seen often as the cell buys it.
MIN_BASKETS = 200
PRIOR_BASKETS = 500.0
# The last days are what a list must be better on, by this many standard errors, within its first
# places.
CHECK_DAYS = 7
CONVINCING = 2.0
PLACES = 10

Mask = npt.NDArray[np.bool_]
Rates = npt.NDArray[np.float64]


def by_cell(
    overall: Indices,
    baskets: Baskets,
    timelines: Timelines,
    numbers: Numbers,
    held: sparse.csr_array,
) -> PopularLists:
    """`overall` and the lists that cells have earned, counted from the baskets `numbers`, of which
    `held` [len(numbers), N] says what is in them; at most MAX_LISTS, of the busiest cells."""
    situations = [_situation(baskets, timelines, number) for number in numbers.tolist()]
    if not situations:
        return PopularLists(overall)
    times = baskets.occurred_us[numbers]
    early = times < times[-1] - CHECK_DAYS * DAY_US
    everybody = (_rates(held, early, None), _rates(held, np.ones(len(numbers), bool), None))
    regional: dict[str | None, tuple[Rates, Rates]] = {None: everybody}
    found: dict[Cell, tuple[int, Rates]] = {}
    for cell, mask in _cells(situations):
        count = int(mask.sum())
        if count < MIN_BASKETS:
            continue
        usual = everybody if cell[0] is None else regional.get(cell[1], everybody)
        own = (_rates(held, mask & early, usual[0]), _rates(held, mask, usual[1]))
        if _convinces(own[0], usual[0], held[np.flatnonzero(mask & ~early)]):
            found[cell] = count, own[1]
            if cell[0] is None:
                regional[cell[1]] = own
    busiest = sorted(found, key=lambda cell: -found[cell][0])[:MAX_LISTS]
    return PopularLists(overall, {cell: _best(found[cell][1], MAX_ITEMS) for cell in busiest})


def _situation(baskets: Baskets, timelines: Timelines, number: int) -> Situation:
    """The shopper just before the basket."""
    now_us = int(baskets.occurred_us[number])
    view = timelines.view(baskets.subjects[int(baskets.subject[number])], now_us, now_us)
    return Situation(view, (), now_us, baskets.contexts[number], rules=timelines.rules)


def _cells(situations: list[Situation]) -> Iterator[tuple[Cell, Mask]]:
    """Every cell and which baskets are in it; a region before the segments within it."""
    member = np.stack([one.segments for one in situations]) > 0
    regions = [one.context.region if one.context is not None else None for one in situations]
    named = np.array(["" if one is None else one for one in regions])
    places: list[str | None] = [None, *sorted({one for one in regions if one is not None})]
    for place in places:
        here = np.ones(len(named), bool) if place is None else named == place
        if place is not None:
            yield (None, place), here
        for column, segment in enumerate(situations[0].rules.names):
            if segment in PRECEDENCE:  # the others choose no list
                yield (segment, place), here & member[:, column]


def _rates(held: sparse.csr_array, mask: Mask, prior: Rates | None) -> Rates:
    """The share of the baskets `mask` with each item, [N], drawn towards `prior` where there is
    one."""
    counts = np.asarray(held[np.flatnonzero(mask)].sum(axis=0)).ravel().astype(np.float64)
    baskets = float(mask.sum())
    if prior is None:
        return counts / max(baskets, 1.0)
    return (counts + PRIOR_BASKETS * prior) / (baskets + PRIOR_BASKETS)


def _convinces(own: Rates, usual: Rates, later: sparse.csr_array) -> bool:
    """Whether the list of `own` names more of the baskets `later` than that of `usual`: purchases
    that only the one names against those that only the other names, as in McNemar's test."""
    bought = np.asarray(later.sum(axis=0)).ravel()
    mine, theirs = _best(own, PLACES), _best(usual, PLACES)
    won = float(bought[np.setdiff1d(mine, theirs)].sum())
    lost = float(bought[np.setdiff1d(theirs, mine)].sum())
    return bool(won - lost > CONVINCING * np.sqrt(won + lost))


def _best(rates: Rates, limit: int) -> Indices:
    order = np.argsort(-rates, kind="stable")
    return order[(order >= FIRST_ITEM) & (rates[order] > 0)][:limit]

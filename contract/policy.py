"""Which offer to show, if any: expected margin against cost, under budget, margin floor and caps.

For a fixed budget the best plan is known to be a price on spending (the multiplier of the budget's
constraint): every decision takes the arm with the most expected gain less that price times its
expected cost, and the price is the least at which the rest of the day costs no more than what is
left. So a decision is one argmax, and the price is solved anew every few minutes from decisions
like those to come, what was spent and reserved, and how many decisions are still expected.

At one price decisions that are alike are all decided alike, and a budget that is enough for half of
them would go to nobody. So each has a price of its own, drawn evenly from within `PRICE_SPREAD` of
that price: a solution always exists, what changes hands near it is worth as much either way, and
the chances of both arms go on record.

Pure; amounts are minor units. Shapes: A arms, 0 is no offer; M decisions of a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from contract.compiled import FLOAT, MASK, array, compiled
from contract.offers import DEFAULT_HOLDOUT

Floats = npt.NDArray[np.float64]
Allowed = npt.NDArray[np.bool_]
Arms = npt.NDArray[np.int64]
_FLOATS = array(FLOAT)
By = Literal["policy", "holdout", "explore"]
_BY: Final[tuple[By, ...]] = ("policy", "holdout", "explore")
NO_OFFER: Final = 0
# Of the budget, for the last hour: so it cannot be gone before, and what may be left of it unspent
# is below the 2 % that pacing may miss by.
KEPT_FOR_LAST_HOUR: Final = 0.01
# Of the decisions that are expected, those that are planned for. A price too low now is made up for
# by a higher one later; what was not spent when the day ends is not, and reservations that lapse
# at its end come back too late (docs/lab.md has what other shares came to).
PLANNED_FOR: Final = 0.6
PRICE_SPREAD: Final = 0.02  # of the price, either way
# Multiples of it leave (0, 1) evenly covered, however many there are.
_GOLDEN = 0.6180339887498949
_AS_DEAR = 1e-9  # minor units: no difference in cost
_HALVINGS = 40
# Decisions' worth of trust in the usual traffic against today's.
_USUAL_COUNTS_FOR = 100.0


@dataclass(frozen=True)
class Choice:
    """What was chosen, and with which chance each arm would have been."""

    arm: int
    by: By
    propensities: tuple[float, ...]  # [A] exact, they add up to 1

    @property
    def propensity(self) -> float:
        """Of the arm that was chosen."""
        return self.propensities[self.arm]


def choose(
    gain: Floats | Sequence[float],
    cost: Floats | Sequence[float],
    allowed: Allowed | Sequence[bool],
    price: float,
    draw: float,
    *,
    holdout_share: float = DEFAULT_HOLDOUT,
    explore_share: float = 0.0,
) -> Choice:
    """The arm with the most `gain` [A] (expected margin over no offer, its cost already taken off)
    less `price` times `cost` [A] (expected spend); no offer where nothing is above 0.

    `draw` in [0, 1) decides by chance: below `holdout_share` nothing is offered, so that what
    offers bring can be measured; the next `explore_share` get any allowed arm alike, so that the
    next model has something to learn from; for the rest it says which price is theirs. No offer is
    always allowed.
    """
    arm, by, chances = _chosen(
        *(_floats(gain), _floats(cost), np.ascontiguousarray(allowed, np.bool_)),
        *(price, draw, holdout_share, explore_share),
    )
    return Choice(int(arm), _BY[by], tuple(chances.tolist()))


def _floats(values: Floats | Sequence[float]) -> Floats:
    return np.ascontiguousarray(values, np.float64)


@compiled(_FLOATS, _FLOATS, FLOAT)
def _best_by_price(gain: Floats, cost: Floats, price: float) -> tuple[Arms, Floats]:
    """The arms that are best at some price within the spread of `price`, the lowest price first,
    and for which share of these prices each is. Along the prices only cheaper arms take over."""
    low, high = price * (1.0 - PRICE_SPREAD), price * (1.0 + PRICE_SPREAD)
    best, at = int((gain - low * cost).argmax()), low
    places, shares = np.empty(len(gain), np.int64), np.empty(len(gain))
    count, told = 0, 0.0
    while at < high:
        until = np.inf
        for arm in range(len(gain)):
            if cost[arm] < cost[best] - _AS_DEAR:
                until = min(until, (gain[best] - gain[arm]) / (cost[best] - cost[arm]))
        until = max(until, at)
        if until >= high:
            break
        if until > at:
            places[count], shares[count] = best, (until - at) / (high - low)
            told += shares[count]
            count += 1
        least = -1
        for arm in range(len(gain)):
            if cost[arm] >= cost[best] - _AS_DEAR:
                continue
            if (gain[best] - gain[arm]) / (cost[best] - cost[arm]) > until:
                continue
            if least < 0 or cost[arm] < cost[least]:
                least = arm
        if least < 0:  # of what is no number there is none
            break
        best, at = least, until
    places[count], shares[count] = best, 1.0 - told
    return places[: count + 1], shares[: count + 1]


@compiled(_FLOATS, _FLOATS, MASK, FLOAT, FLOAT, FLOAT, FLOAT)
def _chosen(
    gain: Floats,
    cost: Floats,
    allowed: Allowed,
    price: float,
    draw: float,
    holdout_share: float,
    explore_share: float,
) -> tuple[int, int, Floats]:
    """The arm, who chose it as a place in `_BY`, and the chances of all."""
    arms = np.empty(len(gain), np.int64)
    count = 0
    for one in range(len(gain)):
        if one == NO_OFFER or allowed[one]:
            arms[count], count = one, count + 1
    arms = arms[:count]
    net, spent = gain[arms], cost[arms]
    net[0] = spent[0] = 0.0
    places, shares = _best_by_price(net, spent, price)
    by_policy = 1.0 - holdout_share - explore_share
    chances = np.zeros(len(gain))
    for arm in arms:
        chances[arm] = explore_share / count
    chances[NO_OFFER] += holdout_share
    for at in range(len(places)):
        chances[arms[places[at]]] += by_policy * shares[at]
    if draw < holdout_share:
        return NO_OFFER, 1, chances
    if draw < holdout_share + explore_share:
        place = int((draw - holdout_share) / explore_share * count)
        return arms[min(place, count - 1)], 2, chances
    rest = (draw - holdout_share - explore_share) / by_policy
    for at in range(len(places)):
        if rest < shares[at]:
            return arms[places[at]], 0, chances
        rest -= shares[at]
    return arms[places[-1]], 0, chances


def permitted(
    reductions: Floats, value: float, margin: float, left: float, floor: float | None
) -> Allowed:
    """[A] which arms may be shown: what is left of the margin after the reduction is at least
    `floor` of the goods' `value`, and the reduction is within what is `left` of the budget."""
    within = reductions <= left
    if floor is not None:
        within &= margin - reductions >= floor * value
    within[NO_OFFER] = True
    return within


@dataclass(frozen=True)
class Budget:
    """A day's budget; what is reserved counts as spent until it is released."""

    amount: int
    spent: int = 0
    reserved: int = 0

    @property
    def left(self) -> int:
        """Never negative, whatever was refunded or overdrawn elsewhere."""
        return max(self.amount - self.spent - self.reserved, 0)

    def usable(self, last_hour: bool) -> int:
        """What may be reserved now: before the last hour a part is kept back for it."""
        kept = 0 if last_hour else int(np.ceil(KEPT_FOR_LAST_HOUR * self.amount))
        return max(self.left - kept, 0)


def decisions_to_come(usual: float, passed: float, seen: float) -> float:
    """How many decisions of the rest of the day to plan for: `usual` of a whole day, the share of
    it that has `passed` by this time of day, and how many were `seen` today."""
    ratio = (seen + _USUAL_COUNTS_FOR) / (usual * passed + _USUAL_COUNTS_FOR)
    return PLANNED_FOR * usual * (1.0 - passed) * ratio


def shadow_price(
    gain: Floats,
    cost: Floats,
    allowed: Allowed,
    to_come: float,
    left: float,
    spread: float = PRICE_SPREAD,
) -> float:
    """The least price of spending at which `to_come` decisions like those of the sample ([M, A]
    each), whose own prices are within `spread` of it, are expected to spend no more than `left`; 0
    where the budget does not bind."""
    net = np.where(allowed, gain, -np.inf)
    net[:, NO_OFFER] = 0.0
    row = np.arange(len(net))
    own = 1.0 + spread * (2.0 * (_GOLDEN * (row + 0.5) % 1.0) - 1.0)

    def spend(price: float) -> float:
        chosen = (net - price * own[:, None] * cost).argmax(1)
        return float(cost[row, chosen].mean()) * to_come

    if not len(net) or spend(0.0) <= left:
        return 0.0
    worth = np.where(allowed & (cost > 0), gain / np.maximum(cost, 1e-9), 0.0)
    low, high = 0.0, float(max(worth.max(), 0.0)) / (1.0 - spread) + 1e-9
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if spend(middle) <= left else (middle, high)
    return high

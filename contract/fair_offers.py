"""What can be done where offers are uneven, and what it costs.

Two switches, neither of which needs to know who somebody is. A `floor` between places that a
checkout names itself (its region): the groups that are offered least get a bonus on every offer's
expected gain, the least that brings them to a share of the group that is offered most. It takes the
checkouts for which an offer loses least first, so no other rule reaches the same share for less. A
lottery (`explore_share` of the offer book) for groups that nobody knows at a checkout, as age and
income: with that share everybody's chance is the same, so differences shrink by as much.

Pure numpy; money is minor units. Shapes: N decisions, A arms (0 is no offer), G groups.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from contract.policy import NO_OFFER

Floats = npt.NDArray[np.float64]
_ABOVE = 1e-6  # what is offered must bring more than nothing


def best_offers(gain: Floats, cost: Floats, allowed: npt.NDArray[np.bool_], price: float) -> Floats:
    """[N] what the best offer of each decision brings less its price; -inf where none may be."""
    score = np.where(allowed, gain - price * cost, -np.inf)
    score[:, NO_OFFER] = -np.inf
    best: Floats = score.max(1)
    return best


def bonuses(best: Floats, groups: Sequence[str | None], floor: float) -> Mapping[str, float]:
    """What to add to the gain of every offer in each group that is offered something less often
    than `floor` (0..1) of the group that is offered most; groups with nothing to add are left out.

    `best` [N] as `best_offers` has them. A group that may hardly be offered anything at all gets
    the bonus that reaches all who may be.
    """
    if not 0 <= floor <= 1:
        raise ValueError(f"floor is {floor}, not from 0 to 1")
    names = sorted({name for name in groups if name is not None})
    code = np.array([-1 if name is None else names.index(name) for name in groups])
    own = [np.sort(best[code == at])[::-1] for at in range(len(names))]
    highest = max((float((one > 0).mean()) for one in own if len(one)), default=0.0)
    found: dict[str, float] = {}
    for name, one in zip(names, own, strict=True):
        possible = int(np.isfinite(one).sum())
        wanted = min(math.ceil(floor * highest * len(one) - 1e-9), possible)
        if wanted > int((one > 0).sum()):
            found[name] = float(-one[wanted - 1]) + _ABOVE
    return found


def with_bonuses(gain: Floats, groups: Sequence[str | None], bonus: Mapping[str, float]) -> Floats:
    """[N, A] `gain` with each group's `bonus` on every arm but no offer."""
    added = np.array([bonus.get(name, 0.0) if name is not None else 0.0 for name in groups])
    raised: Floats = gain + added[:, None]
    raised[:, NO_OFFER] = gain[:, NO_OFFER]
    return raised

"""Leakage: did anything that is only known after a purchase get into what the models see?

It shows in a release that was fitted on days of the test, in events that foretell a purchase but
were received after it, in one feature that alone finds nearly every purchase, and in figures that
jump beyond what a better model can do.
"""

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import numpy.typing as npt

from training.data.fresh_events import FreshEvents, Part
from training.gates.limits import Limits
from training.gates.verdict import Check, Verdict

Floats = npt.NDArray[np.float64]
FORETOLD_WITHIN_US = 3_600 * 1_000_000
_LATE_US = 60 * 1_000_000  # a page sends what it holds back within seconds


def frozen_before(name: str, trained_until: datetime, window_from: datetime) -> Check:
    """Whether a release knew nothing of the window."""
    passed = trained_until <= window_from
    said = f"the {name} was fitted on days up to {trained_until:%Y-%m-%d}, " + (
        f"before the window begins ({window_from:%Y-%m-%d})"
        if passed
        else f"and the window begins {window_from:%Y-%m-%d}: it has seen the answers"
    )
    late = (trained_until - window_from).total_seconds() / 86_400
    return Check(f"{name} frozen", late, 0.0, passed, said)


def known_afterwards(events: FreshEvents, part: Part, limits: Limits) -> Check:
    """The share of the part's purchases of which some item was foretold by an event of the same
    shopper in the hour before, that was received over a minute after the purchase was: what a
    backfill from orders leaves behind."""
    bought = np.arange(part.lines.start, part.lines.stop)[part.purchased]
    other = np.flatnonzero(~events.purchase[events.line])
    width = int(events.item.max(initial=0)) + 1
    pair = events.subject[events.line] * width + events.item
    order = other[np.lexsort((events.occurred_us[events.line[other]], pair[other]))]
    held, when = pair[order], events.occurred_us[events.line[order]]
    # The latest event of the same shopper and item up to each purchase.
    rank = {"pair": pair[bought], "at": events.occurred_us[events.line[bought]]}
    keys = np.rec.fromarrays([held, when])
    asked = np.rec.fromarrays([rank["pair"], rank["at"]])
    place = np.searchsorted(keys, asked, side="right") - 1
    found = np.zeros(len(bought), bool)
    there = place >= 0
    before = order[place[there]]
    same = pair[before] == rank["pair"][there]
    near = rank["at"][there] - events.occurred_us[events.line[before]] <= FORETOLD_WITHIN_US
    received = events.received_us
    late = received[events.line[before]] - received[events.line[bought[there]]] > _LATE_US
    found[there] = same & near & late
    purchases = np.unique(events.line[bought])
    share = len(np.unique(events.line[bought[found]])) / max(len(purchases), 1)
    limit = limits.known_afterwards
    said = (
        f"{share:.1%} of the purchases were foretold by events that were only received "
        f"after them, at most {limit:.0%} allowed"
    )
    return Check("known afterwards", share, limit, share <= limit, said)


def single_features(auc: Mapping[str, float], limits: Limits) -> Check:
    """`auc`: of each feature alone, for telling the purchased candidates from the others."""
    name, value = max(auc.items(), key=lambda one: max(one[1], 1 - one[1]))
    value, limit = max(value, 1 - value), limits.single_feature_auc
    said = (
        f"the best single feature, {name}, tells purchases from other candidates with an AUC of "
        f"{value:.3f}"
    )
    if value > limit:
        said += f": more than {limit:g} is too good to be true"
    return Check("single feature", value, limit, value <= limit, said)


def jump(champion: float, challenger: float, limits: Limits) -> Check:
    """NDCG@5 of both on the same questions."""
    rise = challenger / champion - 1 if champion > 0 else 0.0
    said = f"NDCG@5 moves by {rise:+.0%} against the champion"
    if rise > limits.jump:
        said += f": a rise of more than {limits.jump:.0%} at once is not plausible"
    return Check("jump", rise, limits.jump, rise <= limits.jump, said)


def leakage(checks: list[Check]) -> Verdict:
    """The gate, from the checks that could be made at its step."""
    return Verdict.of("leakage", checks)


def feature_auc(values: Floats, relevant: npt.NDArray[np.bool_]) -> Floats:
    """The AUC of each column of `values` [C, F] for telling the `relevant` [C] candidates, of which
    there is at least one and one that is not. Ties count half."""
    order = np.sort(values, axis=0)
    positive, count = values[relevant], int((~relevant).sum())
    below = np.empty_like(positive, np.float64)
    for column in range(values.shape[1]):
        left = np.searchsorted(order[:, column], positive[:, column], side="left")
        right = np.searchsorted(order[:, column], positive[:, column], side="right")
        below[:, column] = (left + right) / 2
    # Of the positives among themselves half are below: taken out, so that only others count.
    own = np.sort(positive, axis=0)
    among = np.empty_like(below)
    for column in range(values.shape[1]):
        left = np.searchsorted(own[:, column], positive[:, column], side="left")
        right = np.searchsorted(own[:, column], positive[:, column], side="right")
        among[:, column] = (left + right) / 2
    area: Floats = ((below - among) / count).mean(axis=0)
    return area


def live_jump(frozen: float, live: float, limits: Limits) -> Check:
    """NDCG@5 of one release with histories frozen at the window's begin, and with everything up to
    the moment of each decision. Fresher histories help a little; answers help a lot."""
    rise, limit = (live / frozen - 1 if frozen > 0 else 0.0), 2 * limits.jump
    said = f"with histories up to each decision NDCG@5 is {rise:+.0%} of that with frozen ones"
    if rise > limit:
        said += f": more than {limit:.0%} says that the answers stand in the histories"
    return Check("live histories", rise, limit, rise <= limit, said)

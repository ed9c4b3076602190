"""Drawing examples so that every kind of shopper keeps its share: the sparse ones are few in any
sample, and a plain random draw can lose them.

A stratum is what the shopper's rhythm (`contract.features.RHYTHM`) says at a basket: how many
baskets came before, whether the shopper stayed away for long, and whether the baskets are large. It
has limits of its own, so that a shop's segments do not change what is learned from. Counted over
columns here, because a draw looks at every basket; a test holds both together.
"""

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from training.data.baskets import Baskets

Numbers = npt.NDArray[np.int64]
NUM_STRATA = 16
FREQUENT_BASKETS, LAPSING_DAYS, LARGE_BASKET_ITEMS = 24, 45.0, 15.0
LEAST = 3  # of a stratum that has as many


def strata(baskets: Baskets, numbers: Numbers, frozen_us: int | None) -> Numbers:
    """The stratum 0..15 of each of the baskets `numbers`, as known at the basket, or, for a history
    that ends earlier, at `frozen_us`; [len(numbers)].

    Activity (0 no basket before, 1 one, 2 repeat, 3 frequent) * 4 + lapsing * 2 + large baskets.
    """
    order = np.lexsort((baskets.occurred_us, baskets.subject))
    subject, times = baskets.subject[order], baskets.occurred_us[order]
    size = np.diff(baskets.offsets)[order]
    total = np.concatenate(([0], np.cumsum(size)))
    first = np.searchsorted(subject, np.arange(len(baskets.subjects)))
    # Subject and time as one number to search in: times fit below the stride.
    earliest = int(times.min())
    stride = int(times.max()) - earliest + 2
    key = subject * stride + (times - earliest)
    now = baskets.occurred_us[numbers]
    until = now if frozen_us is None else np.minimum(now, frozen_us)
    own = baskets.subject[numbers]
    place = np.searchsorted(key, own * stride + np.maximum(until - earliest, 0))
    before = place - first[own]
    last = times[np.maximum(place - 1, 0)]
    lapsing = (before > 0) & (now - last >= LAPSING_DAYS * DAY_US)
    mean_size = (total[place] - total[first[own]]) / np.maximum(before, 1)
    large = (before > 0) & (mean_size >= LARGE_BASKET_ITEMS)
    activity = np.digitize(before, (1, 2, FREQUENT_BASKETS))
    codes: Numbers = np.asarray(activity * 4 + lapsing * 2 + large, np.int64)
    return codes


def allotted(counts: Numbers, limit: int) -> Numbers:
    """How many of each stratum are drawn, [strata]: the shares of `counts`, rounded so that they
    sum to `limit` (or to all there are), but never fewer than LEAST of a stratum that has them."""
    total = int(counts.sum())
    if total <= limit:
        return counts.copy()
    exact = counts * (limit / total)
    least = np.minimum(counts, LEAST)
    drawn: Numbers = np.maximum(np.floor(exact).astype(np.int64), least)
    while drawn.sum() != limit:
        short = drawn.sum() < limit
        # The stratum that is furthest from its share gives or takes one.
        gap = np.where(short, exact - drawn, drawn - exact)
        gap[(drawn >= counts) if short else (drawn <= least)] = -np.inf
        if not np.isfinite(gap).any():  # the limit is smaller than what each must have
            break
        drawn[int(gap.argmax())] += 1 if short else -1
    return drawn


def stratified(stratum: Numbers, limit: int, rng: np.random.Generator) -> Numbers:
    """Up to `limit` positions into `stratum`, in random order, with the shares of its values."""
    order = rng.permutation(len(stratum))
    counts = np.bincount(stratum, minlength=NUM_STRATA)
    quota = allotted(counts, limit)
    grouped = order[np.argsort(stratum[order], kind="stable")]
    rank = np.arange(len(grouped)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.zeros(len(stratum), bool)
    kept[grouped[rank < np.repeat(quota, counts)]] = True
    drawn: Numbers = order[kept[order]]
    return drawn

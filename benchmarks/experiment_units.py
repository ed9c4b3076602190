"""Simulated units of an experiment, whose past says something of what they do."""

import numpy as np
from numpy.typing import NDArray

from serving.experiments.statistics import COLUMNS

Rows = NDArray[np.float64]


def shoppers(rng: np.random.Generator, count: int, *, rate: float = 0.3, lift: float = 0.0) -> Rows:
    """Rows [count, K] of COLUMNS. How much somebody buys stays with them; `lift` is the relative
    change of the chance that a checkout ends in an order."""
    rows = np.zeros((count, len(COLUMNS)))
    column = {name: rows[:, place] for place, name in enumerate(COLUMNS)}
    keen = rng.beta(4 * rate, 4 * (1 - rate), count)
    checkouts = 1 + rng.poisson(1, count)
    orders = rng.binomial(checkouts, np.minimum(keen * (1 + lift), 1))
    column["checkouts"][:], column["orders"][:], column["valued"][:] = checkouts, orders, orders
    column["abandoned"][:], column["buyers"][:] = checkouts - orders, orders > 0
    column["revenue"][:] = orders * rng.lognormal(8, 0.5, count)
    column["margin"][:] = 0.3 * column["revenue"]
    column["shown"][:] = 5 * checkouts
    column["taken"][:] = rng.binomial(5 * checkouts, 0.03)
    before = rng.binomial(3, keen)
    column["orders_before"][:], column["buyers_before"][:] = before, before > 0
    column["valued_before"][:] = before
    column["revenue_before"][:] = before * rng.lognormal(8, 0.5, count)
    return rows

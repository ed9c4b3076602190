"""In which order to show the ways to pay, or to have things delivered: those that the caller sent,
every one of them, likeliest first.

What people of the same region choose is the base, shrunk to what everybody chooses where few are
known. Device and order value move it as far as they were seen to, and a shopper's own choices count
as so many more of them. Small tables in JSON: a look-up and a few products for each option.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

OPTION_ORDER: Final = "option_order.json"  # a release may do without
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Shares = dict[str, Positive]


class OrderTable(BaseModel):
    """Counts made into shares.

    `everywhere`: the share of each option. `regions`: the same by region. `devices` and `values`:
    by what factor each option is likelier than usual there; `value_edges` (minor units, ascending)
    part the order values, one more part than edges. `personal`: how many own choices weigh as much
    as the rest together. An option that was never seen counts as `unseen`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    everywhere: Shares
    regions: dict[str, Shares] = Field(default_factory=dict)
    devices: dict[str, Shares] = Field(default_factory=dict)
    value_edges: tuple[float, ...] = ()
    values: tuple[Shares, ...] = ()
    personal: Positive = 5.0
    unseen: Positive = 1e-3


class OptionOrder(BaseModel):
    """The tables of a release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    payment: OrderTable | None = None
    shipping: OrderTable | None = None


def probabilities(
    table: OrderTable,
    options: Sequence[str],
    *,
    region: str | None = None,
    device: str | None = None,
    value: float | None = None,
    own: Mapping[str, int] | None = None,
) -> list[float]:
    """The chance of each of `options`, which add up to 1; empty for none. `value`: of the order,
    minor units. `own`: how often this shopper chose each before."""
    if not options:
        return []
    base = table.regions.get(region or "", table.everywhere)
    factors = [table.devices.get(device or "", {})]
    if value is not None and table.values:
        factors.append(table.values[int(np.searchsorted(table.value_edges, value, side="right"))])
    weights = [
        base.get(option, table.everywhere.get(option, table.unseen))
        * math.prod(factor.get(option, 1.0) for factor in factors)
        for option in options
    ]
    total = sum(weights)
    chances = [weight / total for weight in weights]
    counts = [(own or {}).get(option, 0) for option in options]
    seen = sum(counts)
    return [
        (count + table.personal * chance) / (seen + table.personal)
        for count, chance in zip(counts, chances, strict=True)
    ]


def ordered(options: Sequence[str], chances: Sequence[float]) -> list[str]:
    """`options`, each once as often as given, the likeliest first; equal ones stay as they came."""
    places = sorted(range(len(options)), key=lambda place: -chances[place])
    return [options[place] for place in places]

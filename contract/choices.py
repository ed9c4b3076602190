"""How likely each way to pay, or to have things delivered, is the one that a shopper takes, and the
order that follows. Nothing is added and nothing left out: the options are those of the caller.

What anybody would take in this region, on this device, with a cart of this value is a multinomial
logit (McFadden, 1974) whose weights of a region and a device are drawn towards none, so that a
region of which little is known chooses as all do. What the shopper took before moves it: own
choices count against `pseudo_counts` of that (the posterior mean of a Dirichlet prior).

K known options, R regions, D devices, J knots of value, O options of a checkout.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contract.errors import UserError
from contract.events import EventContext

DEVICES: Final = ("desktop", "mobile", "tablet", "other")
MOST_DAYS: Final = 30
_NEVER_SEEN = -4.0  # of an option that nobody was ever offered, beside a mean of 0

Floats = npt.NDArray[np.float64]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Row = tuple[Finite, ...]


@dataclass(frozen=True)
class Option:
    """An option as the caller sends it; `price` in minor units."""

    id: str
    price: int | None = None
    days: int | None = None


class ChoiceWeights(BaseModel):
    """Weights of one kind of choice, as a release carries them: [K], [R, K], [D, K] and, of the
    hat functions around `knots` (log of the cart's value in minor units, ascending), [J, K].

    `price` is the weight of an option's price as a share of the cart's value, `days` that of ten
    days of waiting.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    regions: tuple[str, ...]
    base: Row
    by_region: tuple[Row, ...]
    by_device: tuple[Row, ...]
    knots: Row
    by_value: tuple[Row, ...]
    price: Finite = 0.0
    days: Finite = 0.0
    pseudo_counts: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted = (
            ("by_region", self.by_region, len(self.regions)),
            ("by_device", self.by_device, len(DEVICES)),
            ("by_value", self.by_value, len(self.knots)),
        )
        for name, rows, count in wanted:
            if len(rows) != count or any(len(row) != len(self.names) for row in rows):
                raise ValueError(f"{name} is not [{count}, {len(self.names)}]")
        if len(self.base) != len(self.names) or len(set(self.names)) != len(self.names):
            raise ValueError("base does not fit the names, or two are the same")
        if list(self.knots) != sorted(set(self.knots)):
            raise ValueError("knots must ascend")
        return self

    @cached_property
    def _place(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def _region(self) -> dict[str, Floats]:
        return dict(zip(self.regions, map(np.array, self.by_region), strict=True))

    @cached_property
    def _tables(self) -> tuple[Floats, Floats, Floats]:
        return np.array(self.base), np.array(self.by_device), np.array(self.by_value)

    @property
    def middle_value(self) -> int:
        """Of a cart whose value is not known."""
        return round(math.exp(self.knots[len(self.knots) // 2])) if self.knots else 1

    def usual(self, options: Sequence[Option], context: EventContext | None, value: int) -> Floats:
        """The share of each option among all shoppers in this situation, [O], adding up to one;
        `value` of the cart in minor units."""
        base, by_device, by_value = self._tables
        weight = base + hats(math.log(max(value, 1)), self.knots) @ by_value
        if context is not None and context.device is not None:
            weight = weight + by_device[DEVICES.index(context.device)]
        if context is not None and (region := self._region.get(context.region or "")) is not None:
            weight = weight + region
        place, scores = self._place, np.empty(len(options))
        for at, option in enumerate(options):
            known = place.get(option.id)
            scores[at] = _NEVER_SEEN if known is None else weight[known]
            scores[at] += self.price * relative_price(option.price, value)
            scores[at] += self.days * waiting(option.days)
        return softmax(scores)

    def likely(
        self,
        options: Sequence[Option],
        context: EventContext | None,
        value: int,
        own: Mapping[str, float],
    ) -> Floats:
        """The same for this shopper, who chose each option `own` times before."""
        counts = np.array([own.get(option.id, 0.0) for option in options])
        usual = self.usual(options, context, value)
        found: Floats = (counts + self.pseudo_counts * usual) / (counts.sum() + self.pseudo_counts)
        return found


class Choices(BaseModel):
    """What a release knows of both kinds; the file `choices.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    payment: ChoiceWeights | None = None
    shipping: ChoiceWeights | None = None

    def as_bytes(self) -> bytes:
        """The one form in which it is written."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes, name: str) -> Self:
        """Raises UserError naming `name`."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{name}: {where}: {first['msg']}") from None


def in_order(options: Sequence[Option], likely: Floats) -> tuple[str, ...]:
    """The ids, the likeliest first; equal ones as the caller has them."""
    return tuple(options[place].id for place in np.argsort(-likely, kind="stable"))


def hats(at: float, knots: Sequence[float]) -> Floats:
    """Weights [J] of the two knots around `at`, adding up to one; beyond the ends the last one."""
    found = np.zeros(len(knots))
    if not len(knots):
        return found
    right = int(np.searchsorted(knots, at))
    if right in (0, len(knots)):
        found[min(right, len(knots) - 1)] = 1.0
        return found
    share = (at - knots[right - 1]) / (knots[right] - knots[right - 1])
    found[right - 1], found[right] = 1.0 - share, share
    return found


def relative_price(price: int | None, value: int) -> float:
    """An option's price as a share of the cart's value, at most one; 0 where it is not said."""
    return 0.0 if price is None else min(max(price, 0) / max(value, 1), 1.0)


def waiting(days: int | None) -> float:
    """Tens of days; 0 where it is not said."""
    return 0.0 if days is None else min(max(days, 0), MOST_DAYS) / 10.0


def softmax(scores: Floats) -> Floats:
    """Shares [O] that add up to one."""
    if not len(scores):
        return scores
    powers = np.exp(scores - scores.max())
    found: Floats = powers / powers.sum()
    return found

"""Bounded exploration of product lists: now and then a last place shows something that would have
stood further down, drawn from a known distribution, so that the next model hears of more than what
the last one showed.

At each of the last places, in order: the usual item is the best that is not shown yet. With the
chance `share` the place shows any of a pool alike, else the usual item. The pool is the usual item
and what follows it, as far as it keeps 1 - `most_loss` of its relevance; so a place loses at most
`share * most_loss` of what it would have held, in the mean. The chance of what is shown, given the
places before, is share / size of the pool, plus (1 - share) for the usual item: exact, on record.

Pure. Shapes: C items in the order in which they would be shown, at least as many as places.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from contract.errors import UserError

POOL: Final = 20  # items that a place may show at most


@dataclass(frozen=True)
class ExploreSettings:
    """`share` 0..1 of the draws at each of the last `slots` places; 0 switches it off."""

    share: float = 0.0
    slots: int = 1
    most_loss: float = 0.5

    def __post_init__(self) -> None:
        for name in ("share", "most_loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"explore_{name} is {getattr(self, name)}, not from 0 to 1")
        if self.slots < 1:
            raise UserError(f"explore_slots is {self.slots}, below 1")

    @property
    def on(self) -> bool:
        """Whether anything is explored."""
        return self.share > 0


@dataclass(frozen=True)
class Slot:
    """A place (from 0) that was drawn: the position in the list of what is shown there, with its
    chance, of what usually is, and of everything that could have been."""

    place: int
    shown: int
    usual: int
    propensity: float
    pool: tuple[int, ...]


def draw_slots(
    relevance: Sequence[float],
    fixed: Sequence[bool],
    num_shown: int,
    settings: ExploreSettings,
    draws: Sequence[tuple[float, float]],
) -> tuple[list[int], list[Slot]]:
    """The positions to show, in order, [num_shown], and the places that were drawn.

    `relevance` [C], not negative. `fixed` [C]: what a rule put there, which neither moves nor is
    drawn. `draws`: for each of the last places two numbers in [0, 1): whether it explores, and
    which of its pool it shows. The first place is never drawn.
    """
    shown = list(range(min(num_shown, len(relevance))))
    first = max(len(shown) - settings.slots, 1)
    slots: list[Slot] = []
    for place, (whether, which) in zip(range(first, len(shown)), draws, strict=False):
        if fixed[shown[place]]:
            continue
        taken = {*shown[:place], *(at for at in shown[place:] if fixed[at])}
        left = [at for at in range(len(relevance)) if at not in taken and not fixed[at]]
        usual = left[0]
        least = (1.0 - settings.most_loss) * relevance[usual]
        pool = tuple(at for at in left if relevance[at] >= least)[:POOL]
        explores = whether < settings.share
        chosen = pool[min(int(which * len(pool)), len(pool) - 1)] if explores else usual
        chance = settings.share / len(pool) + (1.0 - settings.share) * (chosen == usual)
        slots.append(Slot(place, chosen, usual, chance, pool))
        rest = (at for at in left if at != chosen)
        shown[place] = chosen
        for later in range(place + 1, len(shown)):
            if not fixed[shown[later]]:
                shown[later] = next(rest)
    return shown, slots

"""From scores to a list worth showing: what is shown together may be more varied, or leave the shop
more, than the best scores one by one, at a loss of relevance that is bounded.

Diversity is maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) over item vectors.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from contract.compiled import CODES, FLOAT, FLOATS, FLOATS_2D, INT, INTS, compiled
from contract.items import Floats, Indices


@dataclass(frozen=True)
class ListSettings:
    """What is asked of a list beside relevance; each switch is off by default.

    `diversity` 0..1: what likeness to the items before it counts against relevance. `category_cap`:
    at most so many items of one category, 0 for no cap. `margin` 0..1: what relevance, as a share
    of the best, one mean margin more is worth. `most_loss` 0..1 bounds what the first and the last
    may cost, see `choose`.
    """

    diversity: float = 0.0
    category_cap: int = 0
    margin: float = 0.0
    most_loss: float = 0.1

    def __post_init__(self) -> None:
        for name in ("diversity", "margin", "most_loss"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not from 0 to 1")
        if self.category_cap < 0:
            raise ValueError(f"category_cap is {self.category_cap}, below 0")

    @property
    def on(self) -> bool:
        """Whether anything is asked for."""
        return bool(self.diversity or self.category_cap or self.margin)

    @property
    def cap_alone(self) -> "ListSettings":
        """For scores that are no more than an order."""
        return replace(self, diversity=0.0, margin=0.0)


def relevance(scores: Floats) -> Floats:
    """How likely each candidate is compared with the best, 0..1, [C]. `scores` [C] are the ranker's
    whose softmax it was trained as."""
    if not len(scores):
        return scores
    compared: Floats = np.exp(scores - scores.max())
    return compared


def choose(
    relevance: Floats,
    vectors: Floats,
    categories: Indices,
    margins: Floats,
    length: int,
    settings: ListSettings,
) -> Indices:
    """Places of the `length` candidates to show, in order; fewer only if there are fewer.

    For C candidates: `relevance` [C], not negative; their item `vectors` [C, d], read for diversity
    alone; `categories` [C], 0 for none, which no cap concerns; `margins` [C] per unit in money.

    The bound: at every place the item's relevance is at least 1 - `most_loss` of that of the item
    which stands there when only the category cap is obeyed; so is any sum over places with weights
    that are not negative, as in DCG. Why: only items are looked at that have this share of the best
    one that may still be taken, and that one is never below the item of the other list, because
    sets with at most so many items of each category form a matroid: whatever was taken for the
    places before, one of the other list's first items can still follow. The cap itself has no
    bound. Where it would leave places empty, it gives way. A longer list begins with the shorter.
    """
    scale = float(np.abs(margins).mean()) if settings.margin and len(margins) else 0.0
    chosen: Indices = _choose(
        *(relevance, vectors, categories, margins),
        *(length, settings.category_cap, settings.diversity),
        settings.margin / scale if scale > 0 else 0.0,
        1.0 - settings.most_loss if settings.diversity or settings.margin else 1.0,
    )
    return chosen


@compiled(FLOATS, CODES)
def _highest(relevance: Floats, open_: npt.NDArray[np.uint8]) -> int:
    """The place of the most relevant that is open, -1 where none is."""
    best = -1
    for one in range(len(relevance)):
        if open_[one] and (best < 0 or relevance[one] > relevance[best]):
            best = one
    return best


@compiled(FLOATS, FLOATS)
def _cosine(first: Floats, second: Floats) -> float:
    product, one, other = 0.0, 0.0, 0.0
    for d in range(len(first)):
        product += first[d] * second[d]
        one += first[d] * first[d]
        other += second[d] * second[d]
    return product / np.sqrt(one * other) if one > 0 and other > 0 else 0.0


@compiled(FLOATS, FLOATS_2D, INTS, FLOATS, INT, INT, FLOAT, FLOAT, FLOAT)
def _choose(
    relevance: Floats,
    vectors: Floats,
    categories: Indices,
    margins: Floats,
    length: int,
    cap: int,
    diversity: float,
    margin: float,
    least: float,
) -> Indices:
    count = len(relevance)
    chosen = np.empty(min(max(length, 0), count), np.int64)
    open_ = np.ones(count, np.uint8)  # neither taken nor of a category that is full
    taken = np.zeros(count, np.uint8)
    likeness = np.zeros(count)  # to the nearest of the first `compared` that were chosen
    compared = np.zeros(count, np.int64)
    for at in range(len(chosen)):
        best = _highest(relevance, open_)
        if best < 0:  # every category is full: the cap gives way
            cap, open_ = 0, (1 - taken).astype(np.uint8)
            best = _highest(relevance, open_)
        pick, highest = best, -np.inf
        for one in range(count):
            if not open_[one] or relevance[one] < least * relevance[best]:
                continue
            if diversity > 0:
                for before in range(compared[one], at):
                    alike = _cosine(vectors[one], vectors[chosen[before]])
                    likeness[one] = max(likeness[one], alike)
                compared[one] = at
            share = relevance[one] / relevance[best] if relevance[best] > 0 else 1.0
            value = (1 - diversity) * share - diversity * likeness[one] + margin * margins[one]
            # Of equals the more relevant, then the earlier.
            if value > highest or (value == highest and relevance[one] > relevance[pick]):
                pick, highest = one, value
        chosen[at] = pick
        taken[pick] = 1
        open_[pick] = 0
        if cap > 0 and categories[pick] != 0:
            alike_so_far = 0
            for before in range(at + 1):
                alike_so_far += categories[chosen[before]] == categories[pick]
            if alike_so_far >= cap:
                open_[categories == categories[pick]] = 0
    return chosen

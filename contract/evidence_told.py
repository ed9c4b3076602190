"""Which kinds of evidence are told of the items that are shown: those that the evidence bears out
and that may be said, and of these the ones that moved the score most."""

from typing import Final

import numpy as np
import numpy.typing as npt

from contract.attribution import GROUPS
from contract.cart_fit import strongest_of
from contract.compiled import FLOATS_2D, INT, INTS, INTS32_2D, MASK, compiled
from contract.items import Floats, Indices, ItemNeighbours
from contract.pair_features import PAIR_FEATURES

MOST_TOLD: Final = 2
NOTHING: Final = -1
# Places of the kinds in `GROUPS`, which is the order in which they are told where nothing was
# weighed.
BOUGHT, CART, SHOPPERS, TASTE, POPULAR = range(len(GROUPS))
# The pair feature that bears out each of the first four; what is popular is known of the item.
_COLUMNS = np.array(
    [
        PAIR_FEATURES.index(name)
        for name in ("baskets", "cart_similarity", "session_knn", "category_weight")
    ],
    np.int64,
)
_NOT_WEIGHED = np.empty((0, len(GROUPS)), np.float32)


def kinds_told(
    pairs: Floats,
    added: Floats | None,
    index: Indices,
    popular: npt.NDArray[np.bool_],
    neighbours: ItemNeighbours,
    intent: Indices,
    *,
    personal: bool,
) -> list[list[int]]:
    """Of each of the items `index` [S] its `MOST_TOLD` kinds, NOTHING where there are fewer, and
    behind them the place in `intent` [K] of what it goes with best, NOTHING where CART is not told.

    `pairs` [S, F]: what they were ranked with. `added` [S, G]: what each kind added to the score,
    and what lowered one is not told, unless all did; None: nothing was weighed. `popular` [N]: of
    all items. `personal`: whether what only a history says may be told.
    """
    weighed = _NOT_WEIGHED if added is None else added
    told: list[list[int]] = _kinds_told(
        *(pairs, _COLUMNS, weighed, index, popular),
        *(neighbours.neighbours, neighbours.similarity, intent, int(personal)),
    ).tolist()
    return told


@compiled(FLOATS_2D, INTS, FLOATS_2D, INTS, MASK, INTS32_2D, FLOATS_2D, INTS, INT)
def _kinds_told(
    pairs: Floats,
    columns: Indices,
    added: Floats,
    index: Indices,
    popular: npt.NDArray[np.bool_],
    neighbours: Indices,
    similarity: Floats,
    intent: Indices,
    personal: int,
) -> npt.NDArray[np.int64]:
    told = np.full((len(index), MOST_TOLD + 1), NOTHING, np.int64)
    kinds = np.empty(len(columns) + 1, np.int64)
    for row in range(len(index)):
        count = 0
        for kind in range(len(kinds)):
            stands = popular[index[row]] if kind == POPULAR else pairs[row, columns[kind]] > 0
            if not stands or (not personal and kind in (BOUGHT, TASTE)):
                continue
            place = count
            # Behind those that moved the score at least as much.
            while len(added) and place > 0 and added[row, kind] > added[row, kinds[place - 1]]:
                kinds[place] = kinds[place - 1]
                place -= 1
            kinds[place] = kind
            count += 1
        for place in range(min(count, MOST_TOLD)):
            if len(added) and place > 0 and added[row, kinds[place]] < 0:
                break
            told[row, place] = kinds[place]
            if kinds[place] == CART:
                told[row, MOST_TOLD] = strongest_of(neighbours, similarity, intent, index[row])
    return told

"""What follows from a shopper's word about an item: it is not suggested to them for a while."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.clock import DAY_US
from contract.events import EVENT_TYPE
from contract.features import FEEDBACK, PURCHASES, SubjectState

DAYS: Final = 90.0  # for so long by default
_PURCHASE: Final = EVENT_TYPE["purchase"]
Keys = npt.NDArray[np.uint64]


def refused(state: SubjectState, now_us: int, days: float = DAYS) -> tuple[Keys, npt.NDArray[Any]]:
    """The keys of the items that are not to be suggested at `now_us`, ascending, and the latest
    word about each (contract.events.FEEDBACK_CODE).

    A word holds for `days`, or until the shopper buys the item again.
    """
    said = FEEDBACK.value(state.get(FEEDBACK.name, FEEDBACK.nothing), now_us)
    said = said[said["occurred_us"] > now_us - days * DAY_US][::-1]
    keys, latest = np.unique(said["item_key"], return_index=True)
    said = said[latest]
    bought = state.get(PURCHASES.name, PURCHASES.nothing)
    since = (bought["event_type"] == _PURCHASE) & (bought["occurred_us"] <= now_us)
    bought = bought[since & np.isin(bought["item_key"], keys)]
    place = np.searchsorted(keys, bought["item_key"])
    again = place[bought["occurred_us"] > said["occurred_us"][place]]
    kept = np.ones(len(keys), bool)
    kept[again] = False
    return keys[kept], said["feedback"][kept]

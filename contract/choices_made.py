"""How a shopper paid and had things delivered before, counted once a session: the same choice
stands in `add_payment_info` and again in the purchase."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from contract.features import CHOICES, SubjectState
from contract.rows import Rows


@dataclass(frozen=True)
class MadeBefore:
    """How often each option was taken, by the key of its id."""

    payments: Mapping[int, float]
    deliveries: Mapping[int, float]


def made_before(state: SubjectState, now_us: int) -> MadeBefore:
    """The choices in `state` up to `now_us`; of each session the latest counts."""
    rows = CHOICES.value(state.get(CHOICES.name, CHOICES.nothing), now_us)
    return MadeBefore(_counted(rows, "payment_key"), _counted(rows, "shipping_key"))


def _counted(rows: Rows, column: str) -> dict[int, float]:
    said = rows[rows[column] != 0]
    latest = dict(zip(said["session_key"].tolist(), said[column].tolist(), strict=True))
    keys, counts = np.unique(np.array(list(latest.values()), np.uint64), return_counts=True)
    return dict(zip(keys.tolist(), counts.astype(float).tolist(), strict=True))

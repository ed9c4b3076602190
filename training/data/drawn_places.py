"""The places of lists that a gateway drew by chance (`TILLWISE_EXPLORE_SHARE`), from its export:
what was shown, what usually is, how likely both were, and whether it was bought. A training that
counts each by the inverse of its chance learns of what was shown as if everything had been shown
alike, instead of hearing its own echo.

Shape: N drawn places.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.clock import to_us
from contract.errors import UserError
from contract.frames import holds
from training.data.logged_checkouts import LABEL_WINDOW_US
from training.data.returns import WHOLE, returned
from training.data.storage import read_events

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_COLUMNS = (
    *("event_name", "occurred_at", "subject_id", "session_id", "purposes", "items"),
    *("transaction_id", "value", "feedback"),
)
_Bought = dict[str, list[tuple[int, str, frozenset[str]]]]


@dataclass(frozen=True)
class DrawnPlaces:
    """`bought`: in the same session, or within 24 hours of the decision, and kept."""

    item_id: list[str]  # [N]
    place: Ints  # [N] from 0
    usual: npt.NDArray[np.bool_]  # [N] whether it is what would have stood there anyway
    propensity: Floats  # [N] of what was shown
    usual_propensity: Floats  # [N] of what usually is
    pool: Ints  # [N] how many could have been shown
    bought: Floats  # [N] 0 or 1
    person: Ints  # [N]

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def weight(self) -> Floats:
        """[N] the inverse of the chance of what was shown, 1 on average."""
        inverse = 1.0 / self.propensity
        weight: Floats = inverse / inverse.mean()
        return weight


def read_drawn_places(folder: Path) -> DrawnPlaces:
    """From the export in `folder`; decisions so late that nobody can know what came of them are
    left out. UserError where nothing was drawn."""
    events = read_events(folder, [*_COLUMNS, "decision"])
    events = events.filter(pa.array(holds(events["purposes"], "personalization")))
    names = pa.array(["decision", "purchase"])
    kept = events.filter(pc.is_in(events["event_name"], value_set=names))
    back = returned(events)
    bought: _Bought = defaultdict(list)
    decisions: list[dict[str, Any]] = []
    for row in kept.to_pylist():
        if row["event_name"] == "purchase":
            order = row["transaction_id"]
            kept_items = (one["item_id"] for one in row["items"])
            items = frozenset(one for one in kept_items if (order, one) not in back)
            if (order, WHOLE) in back:
                continue
            bought[row["subject_id"]].append((to_us(row["occurred_at"]), row["session_id"], items))
        elif row["decision"] is not None:
            decisions.append(row)
    last = pc.max(events["occurred_at"]).as_py() if len(events) else None
    until_us = 0 if last is None else to_us(last) - LABEL_WINDOW_US
    rows = [
        told
        for row in decisions
        if to_us(row["occurred_at"]) <= until_us
        for told in _places(row, bought)
    ]
    if not rows:
        raise UserError(f"{folder}: no place was drawn by chance; set TILLWISE_EXPLORE_SHARE")
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return DrawnPlaces(
        item_id=columns["item_id"],
        place=np.array(columns["place"], np.int64),
        usual=np.array(columns["usual"], bool),
        propensity=np.array(columns["propensity"], np.float64),
        usual_propensity=np.array(columns["usual_propensity"], np.float64),
        pool=np.array(columns["pool"], np.int64),
        bought=np.array(columns["bought"], np.float64),
        person=np.unique(columns["person"], return_inverse=True)[1].astype(np.int64),
    )


def _places(row: dict[str, Any], bought: _Bought) -> list[dict[str, Any]]:
    said = json.loads(row["decision"])
    drawn = said.get("exploration")
    if drawn is None:
        return []
    at_us, found = to_us(row["occurred_at"]), []
    for slot in drawn["slots"]:
        shown, size = said["shown"][slot["index"]], len(slot["pool"])
        item_id = shown["item_id"]
        came = any(
            item_id in items
            and at_us <= when
            and (session == row["session_id"] or when < at_us + LABEL_WINDOW_US)
            for when, session, items in bought.get(row["subject_id"], ())
        )
        found.append(
            {
                "item_id": item_id,
                "place": slot["index"],
                "usual": item_id == slot["usual"],
                "propensity": shown["propensity"],
                "usual_propensity": drawn["share"] / size + 1.0 - drawn["share"],
                "pool": size,
                "bought": came,
                "person": row["subject_id"],
            }
        )
    return found

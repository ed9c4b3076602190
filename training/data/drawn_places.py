"""The places of lists that a gateway drew by chance (`TILLWISE_EXPLORE_SHARE`), from its export:
what was shown, what usually is, how likely both were, and whether it was bought. A training that
counts each by the inverse of its chance learns of what was shown as if everything had been shown
alike, instead of hearing its own echo.

Shape: N drawn places.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.clock import to_us
from contract.errors import UserError
from contract.events import EventContext
from contract.frames import holds
from contract.off_policy import MOST_WEIGHT
from training.data.logged_checkouts import LABEL_WINDOW_US
from training.data.returns import WHOLE, returned
from training.data.storage import read_events

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_COLUMNS = (
    *("event_name", "occurred_at", "subject_id", "session_id", "purposes", "items", "context"),
    *("transaction_id", "value", "feedback"),
)
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("occurred_us", "place", "bought_us"), np.int64),
    **dict.fromkeys(("propensity", "usual_propensity", "bought"), np.float64),
    "usual": np.bool_,
}
_Bought = dict[str, list[tuple[int, str, frozenset[str]]]]


@dataclass(frozen=True)
class DrawnPlaces:
    """`bought`: in the same session, or within 24 hours of the decision, and kept."""

    subject: list[str]  # [N] subject_id
    occurred_us: Ints  # [N] when it was decided
    cart: list[tuple[str, ...]]  # [N]
    context: list[EventContext | None]  # [N]
    item_id: list[str]  # [N] that was shown
    could_be: list[tuple[str, ...]]  # [N] everything that could have been shown there
    place: Ints  # [N] from 0
    usual: Bools  # [N] whether it is what would have stood there anyway
    propensity: Floats  # [N] of what was shown
    usual_propensity: Floats  # [N] of what usually is
    bought: Floats  # [N] 0 or 1
    bought_us: Ints  # [N] when; of what was not bought: when that was known

    def __len__(self) -> int:
        return len(self.item_id)

    @property
    def pool(self) -> Ints:
        """[N] how many could have been shown."""
        return np.array([len(one) for one in self.could_be], np.int64)

    @property
    def person(self) -> Ints:
        """[N] equal for equal subjects."""
        person: Ints = np.unique(self.subject, return_inverse=True)[1].astype(np.int64)
        return person

    @property
    def weight(self) -> Floats:
        """[N] how much each says of a place that shows anything of its pool alike: the inverse of
        the chance of what was shown, by the size of the pool, no more than MOST_WEIGHT, and 1 on
        average."""
        if not len(self):
            return np.empty(0)
        inverse = np.minimum(1.0 / (self.pool * self.propensity), MOST_WEIGHT)
        weight: Floats = inverse / inverse.mean()
        return weight

    def where(self, kept: Bools) -> "DrawnPlaces":
        """Those that `kept` [N] holds."""
        held: dict[str, Any] = {
            name: column[kept]
            if isinstance(column, np.ndarray)
            else list(compress(column, kept.tolist()))
            for name, column in vars(self).items()
        }
        return DrawnPlaces(**held)

    def of(self, subjects: Collection[str]) -> "DrawnPlaces":
        """Those of the decisions of `subjects`."""
        known = set(subjects)
        return self.where(np.array([one in known for one in self.subject], bool))

    def known_at(self, us: int) -> "DrawnPlaces":
        """Those of which it was known at `us` what came of them."""
        old = self.occurred_us <= us - LABEL_WINDOW_US
        return self.where(old & (self.bought_us < us))


def read_drawn_places(folder: Path) -> DrawnPlaces:
    """From the export in `folder`; decisions so late that nobody can know what came of them are
    left out. UserError where nothing was drawn."""
    found = drawn_places(folder)
    if not len(found):
        raise UserError(f"{folder}: no place was drawn by chance; set TILLWISE_EXPLORE_SHARE")
    return found


def drawn_places(folder: Path) -> DrawnPlaces:
    """The same, with no place where nothing was drawn."""
    events = read_events(folder, [*_COLUMNS, "decision"])
    events = events.filter(pa.array(holds(events["purposes"], "personalization")))
    last = pc.max(events["occurred_at"]).as_py() if len(events) else None
    until_us = 0 if last is None else to_us(last) - LABEL_WINDOW_US
    drawing = pc.fill_null(pc.match_substring(events["decision"], '"exploration"'), False)
    decisions = [
        row for row in events.filter(drawing).to_pylist() if to_us(row["occurred_at"]) <= until_us
    ]
    bought = _bought(events) if decisions else {}
    rows = [told for row in decisions for told in _places(row, bought)]
    columns: dict[str, Any] = {}
    for one in fields(DrawnPlaces):
        values = [row[one.name] for row in rows]
        kind = _KINDS.get(one.name)
        columns[one.name] = values if kind is None else np.array(values, kind)
    return DrawnPlaces(**columns)


def _bought(events: pa.Table) -> _Bought:
    """By subject when, in which session and what was bought and kept."""
    back = returned(events)
    found: _Bought = defaultdict(list)
    for row in events.filter(pc.equal(events["event_name"], "purchase")).to_pylist():
        order = row["transaction_id"]
        items = frozenset(one["item_id"] for one in row["items"])
        if (order, WHOLE) not in back:
            kept = frozenset(one for one in items if (order, one) not in back)
            found[row["subject_id"]].append((to_us(row["occurred_at"]), row["session_id"], kept))
    return found


def _places(row: dict[str, Any], bought: _Bought) -> list[dict[str, Any]]:
    said = json.loads(row["decision"])
    drawn = said.get("exploration")
    if drawn is None:
        return []
    at_us = to_us(row["occurred_at"])
    of_decision = {
        "subject": row["subject_id"],
        "occurred_us": at_us,
        "cart": tuple(said["cart"]),
        "context": _context(row["context"]),
    }
    found = []
    for slot in drawn["slots"]:
        shown, size = said["shown"][slot["index"]], len(slot["pool"])
        item_id = shown["item_id"]
        came = _first(bought.get(row["subject_id"], ()), item_id, at_us, row["session_id"])
        found.append(
            of_decision
            | {
                "item_id": item_id,
                "could_be": tuple(slot["pool"]),
                "place": slot["index"],
                "usual": item_id == slot["usual"],
                "propensity": shown["propensity"],
                "usual_propensity": drawn["share"] / size + 1.0 - drawn["share"],
                "bought": came is not None,
                "bought_us": at_us + LABEL_WINDOW_US if came is None else came,
            }
        )
    return found


def _first(
    bought: Sequence[tuple[int, str, frozenset[str]]], item_id: str, at_us: int, session: str
) -> int | None:
    """When the item was bought first after it was shown, within what counts."""
    return min(
        (
            when
            for when, where, items in bought
            if item_id in items
            and at_us <= when
            and (where == session or when < at_us + LABEL_WINDOW_US)
        ),
        default=None,
    )


def _context(told: dict[str, str | None] | None) -> EventContext | None:
    if told is None:
        return None
    return EventContext.model_validate({k: v for k, v in told.items() if v is not None})

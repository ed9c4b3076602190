"""Events as the columns that the gates on data look at: every line of every event, in time order,
before anything is dropped, encoded or learned. Purposes are not asked here: what is wrong with a
feed is wrong whoever agreed to what."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from training.data.storage import read_catalogue, read_events

Numbers = npt.NDArray[np.int64]
_COLUMNS = ["event_id", "event_name", "occurred_at", "received_at", "subject_id", "items"]


@dataclass(frozen=True)
class FreshEvents:
    """E events in time order, and L lines of items, by event."""

    event: Numbers  # [E] code of the event_id; equal ids are equal
    purchase: npt.NDArray[np.bool_]  # [E]
    occurred_us: Numbers  # [E]
    received_us: Numbers  # [E]
    subject: Numbers  # [E] code
    line: Numbers  # [L] number of its event
    item: Numbers  # [L] code
    known: npt.NDArray[np.bool_]  # [L] whether the catalogue has the item
    price: Numbers  # [L] minor units, -1 where not said
    quantity: Numbers  # [L]
    unknown_example: str  # an id that the catalogue has not, or nothing

    def window(self, start_us: int, end_us: int) -> "Part":
        """The events in [start_us, end_us)."""
        first, last = np.searchsorted(self.occurred_us, (start_us, end_us))
        a, b = np.searchsorted(self.line, (first, last))
        return Part(self, slice(int(first), int(last)), slice(int(a), int(b)), start_us, end_us)


@dataclass(frozen=True)
class Part:
    """A stretch of `of`: its events and its lines as slices."""

    of: FreshEvents
    events: slice
    lines: slice
    start_us: int
    end_us: int

    @property
    def purchased(self) -> npt.NDArray[np.bool_]:
        """Which of the lines are of a purchase."""
        marked: npt.NDArray[np.bool_] = self.of.purchase[self.of.line[self.lines]]
        return marked


def read_fresh_events(folder: Path) -> FreshEvents:
    """The events of an imported or exported folder. UserError where they can not be read."""
    events = read_events(folder, _COLUMNS)
    catalogue = set(read_catalogue(folder)["item_id"].to_pylist())
    return fresh_events(events, catalogue)


def fresh_events(events: pa.Table, catalogue: set[str]) -> FreshEvents:
    """From a table with the columns of `EVENT_SCHEMA` and the ids that the catalogue has."""
    events = events.sort_by([("occurred_at", "ascending"), ("event_id", "ascending")])
    events = events.combine_chunks()
    items = events["items"].combine_chunks()
    flat = pc.list_flatten(items)
    ids = pc.struct_field(flat, "item_id").dictionary_encode()
    distinct = ids.dictionary.to_pylist()
    sold = np.array([one in catalogue for one in distinct], bool)
    item = ids.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    foreign = [one for one, there in zip(distinct, sold, strict=True) if not there]
    return FreshEvents(
        event=_codes(events["event_id"]),
        purchase=np.asarray(pc.equal(events["event_name"], "purchase")),
        occurred_us=np.asarray(events["occurred_at"].cast(pa.int64())),
        received_us=np.asarray(events["received_at"].cast(pa.int64())),
        subject=_codes(events["subject_id"]),
        line=pc.list_parent_indices(items).to_numpy(zero_copy_only=False).astype(np.int64),
        item=item,
        known=sold[item] if len(sold) else np.zeros(len(item), bool),
        price=_filled(flat, "price", -1),
        quantity=_filled(flat, "quantity", 1),
        unknown_example=foreign[0] if foreign else "",
    )


def _codes(column: pa.ChunkedArray) -> Numbers:
    one = column.combine_chunks()
    encoded = one.dictionary_encode()
    codes: Numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _filled(flat: pa.Array, name: str, absent: int) -> Numbers:
    values = pc.fill_null(pc.struct_field(flat, name), absent)
    filled: Numbers = values.to_numpy(zero_copy_only=False).astype(np.int64)
    return filled

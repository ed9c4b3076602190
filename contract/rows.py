"""The rows that feature state is made of: what an event leaves behind, one event at a time
(`from_event`) and a frame at a time (`from_frame`), and how two sets of rows merge."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.clock import to_us
from contract.compiled import BYTES_2D, INT, column_of, compiled
from contract.events import EVENT_TYPE, Event, key_of
from contract.frames import EventFrame
from contract.text import token_numbers

Rows = npt.NDArray[np.void]
Numbers = npt.NDArray[np.int64]

ORDER_OF_ROWS: list[Any] = [("occurred_us", "<i8"), ("event_key", "<u8"), ("position", "<u2")]
TOKENS_PER_SEARCH = 8


# The columns of `ORDER_OF_ROWS` where they lie, between others and not aligned.
_US, _EVENT, _PLACE = map(column_of, ("<i8", "<u8", "<u2"))


@dataclass(frozen=True)
class RowKind:
    """A kind of row. `from_frame` gets the frame and the numbers of the rows in question, and
    returns rows with the subject number of each."""

    name: str
    dtype: np.dtype[Any]
    from_event: Callable[["Seen"], list[tuple[Any, ...]]]
    from_frame: Callable[[EventFrame, Numbers], tuple[Rows, Numbers]]


class Seen:
    """An event as rows are made of it: what several features need, made once."""

    __slots__ = ("_interactions", "_item_keys", "_session_key", "code", "event", "stamp")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.code = EVENT_TYPE[event.event_name]
        # When it was, and its key.
        self.stamp = to_us(event.occurred_at), key_of(str(event.event_id))
        self._item_keys: list[int] | None = None
        self._session_key: int | None = None
        self._interactions: list[tuple[Any, ...]] | None = None

    @property
    def item_keys(self) -> list[int]:
        """The key of each of its items."""
        if self._item_keys is None:
            self._item_keys = [item_key(item.item_id) for item in self.event.items]
        return self._item_keys

    @property
    def session_key(self) -> int:
        """The key of its session."""
        if self._session_key is None:
            self._session_key = key_of(self.event.session_id)
        return self._session_key

    @property
    def interactions(self) -> list[tuple[Any, ...]]:
        """Its `INTERACTION` rows, which more than one feature keeps."""
        if self._interactions is None:
            (occurred, key), code = self.stamp, self.code
            session = self.session_key if self.event.items else 0
            self._interactions = [
                (occurred, key, place, code, item.quantity, item_key, session)
                for place, (item, item_key) in enumerate(
                    zip(self.event.items, self.item_keys, strict=True)
                )
            ]
        return self._interactions


# Of items alone: they are few, and say nothing about anybody.
item_key = lru_cache(1 << 16)(key_of)


def copied(frame: EventFrame, kept: Numbers, dtype: np.dtype[Any]) -> Rows:
    """Rows of `dtype` filled from the columns of the same name."""
    rows = np.zeros(len(kept), dtype)
    for column in dtype.names or ():
        if hasattr(frame, column):
            rows[column] = getattr(frame, column)[kept]
    return rows


def _interaction_rows(seen: Seen) -> list[tuple[Any, ...]]:
    return seen.interactions


def _interactions(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    kept = kept[frame.item_key[kept] != 0]
    return copied(frame, kept, INTERACTION.dtype), frame.subject[kept]


def _visit_row(seen: Seen) -> list[tuple[Any, ...]]:
    items = seen.event.items
    return [(*seen.stamp, 0, len(items))] if items else []


def _visits(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    kept = kept[frame.item_key[kept] != 0]
    keys, first, counts = np.unique(frame.event_key[kept], return_index=True, return_counts=True)
    # An event repeated in the log stands in the frame once per copy.
    at_first = frame.position[kept] == 0
    copies = np.bincount(
        np.searchsorted(keys, frame.event_key[kept][at_first]), minlength=len(keys)
    )
    rows = copied(frame, kept[first], VISIT.dtype)
    rows["position"] = 0
    rows["items"] = counts // np.maximum(copies, 1)
    return rows, frame.subject[kept[first]]


def _search_tokens(term: str) -> tuple[int, ...]:
    tokens = token_numbers(term, TOKENS_PER_SEARCH)
    return tuple(tokens + [0] * (TOKENS_PER_SEARCH - len(tokens)))


def _search_row(seen: Seen) -> list[tuple[Any, ...]]:
    term = seen.event.search_term
    return [] if term is None else [(*seen.stamp, 0, _search_tokens(term))]


def _searches(frame: EventFrame, kept: Numbers) -> tuple[Rows, Numbers]:
    said = np.array([term is not None for term in frame.search_term[kept]], bool)
    kept = kept[said & (frame.position[kept] == 0)]
    rows = copied(frame, kept, SEARCH.dtype)
    if len(kept):
        rows["tokens"] = [_search_tokens(term) for term in frame.search_term[kept]]
    return rows, frame.subject[kept]


INTERACTION = RowKind(
    "interaction",
    np.dtype(
        [
            *ORDER_OF_ROWS,
            ("event_type", "u1"),
            ("quantity", "<i4"),
            ("item_key", "<u8"),
            ("session_key", "<u8"),
        ]
    ),
    _interaction_rows,
    _interactions,
)
VISIT = RowKind("visit", np.dtype([*ORDER_OF_ROWS, ("items", "<i4")]), _visit_row, _visits)
SEARCH = RowKind(
    "search",
    np.dtype([*ORDER_OF_ROWS, ("tokens", "<i8", (TOKENS_PER_SEARCH,))]),
    _search_row,
    _searches,
)


def merge(state: Rows, rows: Rows, capacity: int) -> Rows:
    """The newest `capacity` rows of the union of a state and of rows in any order.

    Commutative, associative and idempotent, because it is a function of the union alone.
    """
    if not len(rows):
        return state
    if not _ascend(*_columns(rows)):
        rows = ordered(rows)
    return union(state, rows, capacity)


def union(left: Rows, right: Rows, capacity: int) -> Rows:
    """The same of two states that are each in the order of `ordered`, in a tenth of the time."""
    if not len(left) or not len(right):
        return (left if len(left) else right)[-capacity:]
    if left["occurred_us"][-1] < right["occurred_us"][0]:  # the usual case
        whole = _joined(left[max(len(left) + len(right) - capacity, 0) :], right)
        return whole[-capacity:]
    packed = _union(*_columns(left), *_columns(right), _bytes(left), _bytes(right), capacity)
    return packed.view(left.dtype)[:, 0]


def _joined(first: Rows, second: Rows) -> Rows:
    # np.concatenate would ask anew each time whether the two types of rows agree, and how.
    whole = np.empty(len(first) + len(second), first.dtype)
    whole[: len(first)], whole[len(first) :] = first, second
    return whole


def _columns(rows: Rows) -> tuple[npt.NDArray[Any], ...]:
    """As the rows hold them; to copy three columns would cost more than going over them."""
    return rows["occurred_us"], rows["event_key"], rows["position"]


@compiled(_US, _EVENT, _PLACE)
def _ascend(
    us: npt.NDArray[np.int64], key: npt.NDArray[np.uint64], place: npt.NDArray[np.uint16]
) -> bool:
    """Whether rows are in the order of states, each once."""
    for row in range(1, len(us)):
        before = row - 1
        if us[before] != us[row]:
            if us[before] > us[row]:
                return False
        elif key[before] != key[row]:
            if key[before] > key[row]:
                return False
        elif place[before] >= place[row]:
            return False
    return True


def _bytes(rows: Rows) -> npt.NDArray[np.uint8]:
    """Rows as the bytes that they are, [rows, bytes of each]: a loop copies them whatever is in
    them, where numpy would go through their columns."""
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), rows.dtype.itemsize)


@compiled(_US, _EVENT, _PLACE, _US, _EVENT, _PLACE, BYTES_2D, BYTES_2D, INT)
def _union(
    left_us: npt.NDArray[np.int64],
    left_key: npt.NDArray[np.uint64],
    left_place: npt.NDArray[np.uint16],
    right_us: npt.NDArray[np.int64],
    right_key: npt.NDArray[np.uint64],
    right_place: npt.NDArray[np.uint16],
    left_bytes: npt.NDArray[np.uint8],
    right_bytes: npt.NDArray[np.uint8],
    capacity: int,
) -> npt.NDArray[np.uint8]:
    """The newest `capacity` rows of the union of two sets of rows, each in its order, as bytes in
    that order; what both hold is taken from the left."""
    lefts, rights = len(left_us), len(right_us)
    kept = np.empty(lefts + rights, np.int64)  # places in the two end to end
    left, right, count = 0, 0, 0
    while left < lefts or right < rights:
        order = 0  # negative: the left row comes first; 0: it is the same row
        if left == lefts:
            order = 1
        elif right == rights:
            order = -1
        elif left_us[left] != right_us[right]:
            order = -1 if left_us[left] < right_us[right] else 1
        elif left_key[left] != right_key[right]:
            order = -1 if left_key[left] < right_key[right] else 1
        elif left_place[left] != right_place[right]:
            order = -1 if left_place[left] < right_place[right] else 1
        kept[count] = left if order <= 0 else lefts + right
        count += 1
        left += order <= 0
        right += order >= 0
    first = max(count - capacity, 0)
    newest = np.empty((count - first, left_bytes.shape[1]), np.uint8)
    for row in range(first, count):
        if kept[row] < lefts:
            newest[row - first] = left_bytes[kept[row]]
        else:
            newest[row - first] = right_bytes[kept[row] - lefts]
    return newest


def ordered(rows: Rows) -> Rows:
    """Rows by (occurred_us, event_key, position), each (event, position) once."""
    rows = rows[np.lexsort((rows["position"], rows["event_key"], rows["occurred_us"]))]
    fresh = np.ones(len(rows), bool)
    fresh[1:] = (
        (rows["event_key"][1:] != rows["event_key"][:-1])
        | (rows["position"][1:] != rows["position"][:-1])
        | (rows["occurred_us"][1:] != rows["occurred_us"][:-1])
    )
    return rows[fresh]


def by_subject(rows: Rows, subject: Numbers, subjects: list[str], capacity: int) -> dict[str, Rows]:
    """The state of every subject that has rows."""
    if not len(rows):
        return {}
    order = np.lexsort((rows["position"], rows["event_key"], rows["occurred_us"], subject))
    rows, subject = rows[order], subject[order]
    present, starts = np.unique(subject, return_index=True)
    ends = np.append(starts[1:], len(rows))
    return {
        subjects[number]: ordered(rows[start:end])[-capacity:]
        for number, start, end in zip(present, starts, ends, strict=True)
    }

"""Events as columns: the Parquet schema of `events/*.parquet` and the exploded frame that features
are replayed from. Arrow stands here for its types only; nothing in this file reads or writes."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contract.events import EVENT_TYPE, FEEDBACK_CODE, MOST_PER_LINE, NO_AMOUNT, Event, key_of

_TIME = pa.timestamp("us", tz="UTC")
_ITEM = pa.struct(
    [
        ("item_id", pa.string()),
        ("quantity", pa.int64()),
        ("price", pa.int64()),
        ("index", pa.int64()),
        ("item_category", pa.string()),
    ]
)
_CONTEXT = pa.struct(
    [
        ("device", pa.string()),
        ("country", pa.string()),
        ("region", pa.string()),
        ("timezone", pa.string()),
    ]
)

EVENT_SCHEMA = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("event_id", pa.string()),
        ("event_name", pa.string()),
        ("occurred_at", _TIME),
        ("received_at", _TIME),
        ("subject_id", pa.string()),
        ("session_id", pa.string()),
        ("purposes", pa.list_(pa.string())),
        ("items", pa.list_(_ITEM)),
        ("value", pa.int64()),
        ("currency", pa.string()),
        ("coupon", pa.string()),
        ("payment_type", pa.string()),
        ("shipping_tier", pa.string()),
        ("transaction_id", pa.string()),
        ("search_term", pa.string()),
        ("engagement_ms", pa.int64()),
        ("percent_scrolled", pa.int64()),
        ("feedback", pa.string()),
        ("context", _CONTEXT),
        ("attribution_token", pa.string()),
        ("synthetic", pa.bool_()),
        ("decision", pa.string()),  # JSON, of a `decision` written under `personalization` alone
    ]
)

# Columns that files of an older schema version lack; a reader takes them as empty.
ADDED_COLUMNS = frozenset({"percent_scrolled", "feedback", "decision"})


def with_added(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """`table` with those of `ADDED_COLUMNS` among `names` that it lacks, empty."""
    for name in names:
        if name in ADDED_COLUMNS and name not in table.column_names:
            field = EVENT_SCHEMA.field(name)
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


@dataclass(frozen=True)
class EventFrame:
    """One row for every item of an event (one for an event without items), in any order.

    Shapes: R rows, S subjects. `item_key` is 0 where the event has no item.
    """

    subjects: list[str]  # [S] subject_id
    subject: npt.NDArray[np.int64]  # [R] position in `subjects`
    event_key: npt.NDArray[np.uint64]  # [R]
    event_type: npt.NDArray[np.uint8]  # [R] contract.events.EVENT_TYPE
    occurred_us: npt.NDArray[np.int64]  # [R]
    session_key: npt.NDArray[np.uint64]  # [R]
    item_key: npt.NDArray[np.uint64]  # [R]
    position: npt.NDArray[np.uint16]  # [R] place of the item in its event
    quantity: npt.NDArray[np.int32]  # [R]
    search_term: npt.NDArray[np.object_]  # [R] text or None
    personal: npt.NDArray[np.bool_]  # [R] written under `personalization`
    category_key: npt.NDArray[np.uint64]  # [R] of the item's category, 0 where it is not said
    # Of the event, the same in each of its rows; a key is 0 where there is nothing.
    amount: npt.NDArray[np.int64]  # [R] contract.events.order_amount
    coupon: npt.NDArray[np.bool_]  # [R] whether there was one
    transaction_key: npt.NDArray[np.uint64]  # [R]
    currency_key: npt.NDArray[np.uint64]  # [R]
    payment_key: npt.NDArray[np.uint64]  # [R]
    shipping_key: npt.NDArray[np.uint64]  # [R]
    feedback: npt.NDArray[np.uint8]  # [R] contract.events.FEEDBACK_CODE, 0 where nothing is said

    def __len__(self) -> int:
        return len(self.subject)


def event_row(event: Event) -> dict[str, Any]:
    """`event` as one row of `EVENT_SCHEMA`. What a decision was made of is there only where models
    may learn from it."""
    row = event.model_dump(mode="python", exclude={"decision"})
    learnable = event.decision is not None and "personalization" in event.purposes
    row["decision"] = json.dumps(event.decision, separators=(",", ":")) if learnable else None
    row["event_id"], row["subject_id"] = str(event.event_id), str(event.subject_id)
    row["purposes"], row["items"] = list(event.purposes), [dict(item) for item in event.items]
    row["context"] = dict(event.context) if event.context else None
    return row


# What features are replayed from; a reader needs no other column.
EXPLODED_COLUMNS: tuple[str, ...] = (
    "event_id",
    "event_name",
    "occurred_at",
    "subject_id",
    "session_id",
    "items",
    "purposes",
    "search_term",
    "value",
    "currency",
    "coupon",
    "transaction_id",
    "payment_type",
    "shipping_tier",
    "feedback",
)


def explode(table: pa.Table) -> EventFrame:
    """The rows of `table` (columns of `EVENT_SCHEMA`) taken apart into an `EventFrame`.

    Raises ValueError naming the columns that are missing, or that lack a value they need.
    """
    missing = [name for name in EXPLODED_COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(f"events lack the columns {', '.join(missing)}")
    table = table.select(list(EXPLODED_COLUMNS)).combine_chunks()
    for column in ("event_id", "event_name", "occurred_at", "subject_id", "session_id"):
        _complete(table[column], column)
    items = _one(table["items"])
    lengths = pc.fill_null(pc.list_value_length(items), 0).to_numpy(zero_copy_only=False)
    rows_per_event = np.maximum(lengths, 1)
    event = np.repeat(np.arange(len(table)), rows_per_event)
    starts = np.cumsum(rows_per_event) - rows_per_event
    place = np.arange(len(event)) - starts[event]
    has_item = lengths[event] > 0
    flat = pc.list_flatten(items)
    item_key = np.zeros(len(event), np.uint64)
    item_key[has_item] = _keys(_complete(pc.struct_field(flat, "item_id"), "items.item_id"))
    category_key = np.zeros(len(event), np.uint64)
    category_key[has_item] = _keys_or_none(pc.struct_field(flat, "item_category"))
    each = pc.fill_null(pc.struct_field(flat, "quantity"), 1).to_numpy(zero_copy_only=False)
    quantity = np.ones(len(event), np.int32)
    quantity[has_item] = each
    price = pc.fill_null(pc.struct_field(flat, "price"), -1).to_numpy(zero_copy_only=False)
    amount = _amounts(_one(table["value"]), price, each, lengths)
    subjects, subject = _codes(_one(table["subject_id"]))
    names, name = _codes(_one(table["event_name"]))
    types = _known(names, EVENT_TYPE, "event names")
    kinds, kind = _codes(pc.fill_null(_one(table["feedback"]), ""))
    feedback = _known(kinds, FEEDBACK_CODE | {"": 0}, "kinds of feedback")
    occurred = (
        _one(table["occurred_at"]).cast(_TIME).cast(pa.int64()).to_numpy(zero_copy_only=False)
    )
    return EventFrame(
        subjects=subjects,
        subject=subject[event],
        event_key=_keys(_one(table["event_id"]))[event],
        event_type=types[name][event] if len(names) else np.empty(0, np.uint8),
        occurred_us=occurred[event],
        session_key=_keys(_one(table["session_id"]))[event],
        item_key=item_key,
        position=place.astype(np.uint16),
        quantity=quantity,
        search_term=_one(table["search_term"]).to_numpy(zero_copy_only=False)[event],
        personal=holds(table["purposes"], "personalization")[event],
        category_key=category_key,
        amount=amount[event],
        coupon=_said(_one(table["coupon"]))[event],
        transaction_key=_keys_or_none(_one(table["transaction_id"]))[event],
        currency_key=_keys_or_none(_one(table["currency"]))[event],
        payment_key=_keys_or_none(_one(table["payment_type"]))[event],
        shipping_key=_keys_or_none(_one(table["shipping_tier"]))[event],
        feedback=feedback[kind][event] if len(kinds) else np.empty(0, np.uint8),
    )


def _known(words: list[str], codes: dict[str, int], what: str) -> npt.NDArray[np.uint8]:
    """The codes of `words`. Raises ValueError naming those that have none."""
    unknown = [word for word in words if word not in codes]
    if unknown:
        raise ValueError(f"unknown {what}: {', '.join(sorted(unknown)[:5])}")
    return np.array([codes[word] for word in words], np.uint8)


def _amounts(
    value: Any,
    price: npt.NDArray[np.int64],
    quantity: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """`order_amount` of every event; `price` (-1: not said) and `quantity` of all lines in order,
    `lengths` of them in each event."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    line = np.minimum(price.clip(0) * quantity.astype(np.int64), MOST_PER_LINE)
    total = np.concatenate(([0], np.cumsum(line)))
    unpriced = np.concatenate(([0], np.cumsum(price < 0)))
    priced = (lengths > 0) & (unpriced[ends] == unpriced[starts])
    counted = np.where(priced, total[ends] - total[starts], NO_AMOUNT)
    said = value.is_valid().to_numpy(zero_copy_only=False)
    given = pc.fill_null(value, 0).to_numpy(zero_copy_only=False)
    return np.where(said, given, counted).astype(np.int64)


def _complete(column: Any, name: str) -> Any:
    """`column`, which must have a value in every row."""
    if column.null_count:
        raise ValueError(f"events lack {column.null_count} values in the column {name}")
    return column


def _one(column: pa.ChunkedArray) -> Any:
    """The single array of a combined column."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _said(column: Any) -> npt.NDArray[np.bool_]:
    """Where a column of strings holds at least one character."""
    longer = pc.greater(pc.utf8_length(column), 0)
    said: npt.NDArray[np.bool_] = pc.fill_null(longer, False).to_numpy(zero_copy_only=False)
    return said


def _codes(column: Any) -> tuple[list[str], npt.NDArray[np.int64]]:
    encoded = pc.dictionary_encode(column)
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(
        np.int64
    )


def _keys(column: Any) -> npt.NDArray[np.uint64]:
    """`key_of` of every string, computed once per distinct one."""
    distinct, code = _codes(column)
    return np.array([key_of(text) for text in distinct], np.uint64)[code]


def _keys_or_none(column: Any) -> npt.NDArray[np.uint64]:
    """The same, 0 where there is no string."""
    keys = _keys(pc.fill_null(column, ""))
    return np.where(column.is_valid().to_numpy(zero_copy_only=False), keys, np.uint64(0))


def holds(lists: pa.ChunkedArray, word: str) -> npt.NDArray[np.bool_]:
    """Which of the `lists` of strings hold `word`, [len(lists)]."""
    column = lists.combine_chunks()
    held = np.zeros(len(column), bool)
    parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    matches = pc.fill_null(pc.equal(pc.list_flatten(column), word), False)
    held[parents[matches.to_numpy(zero_copy_only=False)]] = True
    return held

"""Building event columns: the parts of `EVENT_SCHEMA` that every importer fills alike."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID, uuid5

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contract.events import SCHEMA_VERSION
from contract.frames import EVENT_SCHEMA

# An imported set was collected for modelling: both purposes that a model needs stood at the time.
IMPORTED_PURPOSES = ("analytics", "personalization")
NO_CURRENCY = "XXX"  # ISO 4217 for "no currency": items without prices

_ITEM = EVENT_SCHEMA.field("items").type.value_type


def event_table(columns: Mapping[str, Any], *, synthetic: bool) -> pa.Table:
    """`columns` (equal lengths) as a table of `EVENT_SCHEMA`; what is not given is null."""
    num_events = len(columns["event_id"])
    constant = {
        "schema_version": pa.repeat(pa.scalar(SCHEMA_VERSION, pa.int32()), num_events),
        "synthetic": pa.repeat(synthetic, num_events),
    }
    filled = constant | dict(columns)
    return pa.table(
        {
            field.name: filled[field.name]
            if field.name in filled
            else pa.nulls(num_events, field.type)
            for field in EVENT_SCHEMA
        }
    )


def repeated(value: Any, column: str, num_events: int) -> pa.Array:
    """`value` for every event, in the type of `column`."""
    return pa.repeat(pa.scalar(value, EVENT_SCHEMA.field(column).type), num_events)


def one_item_each(item_ids: Any) -> pa.Array:
    """[E] item ids as [E] lists of one item, quantity 1 and no price."""
    num_events = len(item_ids)
    unknown = pa.nulls(num_events, pa.int64())
    quantity = pa.repeat(1, num_events)
    nameless = pa.nulls(num_events, pa.string())
    entry = pa.StructArray.from_arrays(
        [item_ids, quantity, unknown, unknown, nameless], fields=list(_ITEM)
    )
    return pa.ListArray.from_arrays(np.arange(num_events + 1, dtype=np.int32), entry)


def stable_ids(namespace: UUID, names: Iterable[str]) -> pa.Array:
    """The version 5 UUID of every name within `namespace`, as text."""
    return pa.array([str(uuid5(namespace, name)) for name in names], pa.string())


def utc(microseconds: npt.NDArray[np.int64]) -> pa.Array:
    """Microseconds since 1970 as a column of UTC times."""
    return pa.array(microseconds, pa.int64()).cast(EVENT_SCHEMA.field("occurred_at").type)

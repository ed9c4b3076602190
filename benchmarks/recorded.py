"""Sessions as they were recorded, from the event files of an import or of the simulator."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from contract.errors import UserError

MOST_EVENTS = 50_000
_PAGE = ("value", "currency", "coupon", "payment_type", "shipping_tier", "transaction_id")
SAID = (*_PAGE, "search_term", "engagement_ms")
_COLUMNS = ("subject_id", "session_id", "event_name", "occurred_at", "items", "purposes", "context")


def latest_sessions(folder: Path, most: int = MOST_EVENTS) -> list[list[dict[str, Any]]]:
    """The latest sessions with at most so many events in all, and at least one, oldest first, each
    whole and in the order of time. Raises UserError."""
    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    if not files:
        raise UserError(f"{folder} holds no Parquet files")
    columns = [*_COLUMNS, *SAID]
    table = ds.dataset(files, format="parquet").to_table(columns=columns)
    table = table.filter(pc.not_equal(table["event_name"], "decision"))
    latest = table.filter(pc.is_in(table["session_id"], value_set=_latest(table, most)))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in latest.sort_by([("occurred_at", "ascending")]).to_pylist():
        found.setdefault(row["session_id"], []).append(row)
    return list(found.values())


def _latest(table: pa.Table, most: int) -> pa.Array:
    """The ids of the sessions that ended last."""
    each = table.group_by("session_id").aggregate(
        [("occurred_at", "max"), ("occurred_at", "count")]
    )
    order = [("occurred_at_max", "descending"), ("session_id", "ascending")]
    each = each.sort_by(order)
    through = pc.cumulative_sum(each["occurred_at_count"]).to_numpy()
    fitting = int((through <= most).sum())
    return each["session_id"].slice(0, max(fitting, 1)).combine_chunks()

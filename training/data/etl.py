"""From a log of events to encoded sequences, as Ibis expressions over `EVENT_SCHEMA`.

Nothing here names an engine: every function takes table expressions and returns one, and DuckDB
and Spark give equal frames. `training.data.encoded_sequences` reads a folder through them. On a
cluster, give `encoded_events` the table of an Ibis connection there and write what it returns.

Only what was written under `personalization` is ever seen: models learn from nothing else.
"""

from collections.abc import Sequence
from typing import Any, Literal

import ibis

from contract.encoding import FIRST_ITEM, OOV
from contract.events import EVENT_TYPE

By = Literal["subject", "session"]
PURPOSE = "personalization"
INACTIVITY_MINUTES = 30
UNKNOWN_EVENT = 0  # `event_type` of a name that is not in EVENT_TYPE
# Whose interactions make a sequence. A shop's session is cut where its subject was away for long.
UNIT: dict[By, tuple[str, ...]] = {
    "subject": ("subject_id",),
    "session": ("subject_id", "session_id"),
}
_ORDER = ("occurred_at", "event_id", "place")


def encoded_events(
    events: Any, *, by: By, names: Sequence[str] | None = None, min_item_count: int = 1
) -> Any:
    """All steps in one: `encoded` rows of `events`, in no particular order."""
    rows = interactions(events, units(events, by), by=by, names=names)
    return encoded(rows, sequences(rows), vocabulary(rows, min_item_count))


def permitted(events: Any) -> Any:
    """The events written under `personalization`."""
    return events.filter(events.purposes.contains(PURPOSE))


def units(events: Any, by: By) -> Any:
    """The distinct `UNIT[by]` of the permitted `events`, numbered from 0 in their order as `unit`.

    Everything later joins, sorts and counts by this number, which is far quicker than by text.
    """
    distinct = permitted(events).select(*UNIT[by]).distinct()
    number = ibis.row_number().over(order_by=list(UNIT[by]))
    return distinct.mutate(unit=number.cast("int64"))


def sessionized(events: Any, inactivity_minutes: int = INACTIVITY_MINUTES) -> Any:
    """`events` with `part`: how often, up to each of them, the unit had come back from being away.

    Away: more than `inactivity_minutes` between two of its events.
    """
    within = ibis.window(group_by="unit", order_by="occurred_at")
    before = events.mutate(previous_at=events.occurred_at.lag().over(within))
    away = before.occurred_at > before.previous_at + ibis.interval(minutes=inactivity_minutes)
    back = before.mutate(back=away.fill_null(False).cast("int64"))
    so_far = ibis.cumulative_window(group_by="unit", order_by="occurred_at")
    return back.mutate(part=back.back.sum().over(so_far).cast("int64")).drop("previous_at", "back")


def _activity(events: Any, units: Any, by: By) -> Any:
    """The permitted `events` with their unit and part."""
    rows = permitted(events).inner_join(units, list(UNIT[by]))
    rows = rows.select("unit", "event_id", "event_name", "occurred_at", "items", "search_term")
    return sessionized(rows) if by == "session" else rows.mutate(part=ibis.literal(0, "int64"))


def interactions(events: Any, units: Any, *, by: By, names: Sequence[str] | None = None) -> Any:
    """One row per item of each permitted event, of the events called one of `names` if given.

    Columns: unit, part, event_id, occurred_at, place (of the item in its event), event_type
    (`contract.events.EVENT_TYPE`) and item_id. Every permitted event counts as activity of its
    session, also those that have no item or another name.
    """
    rows = _activity(events, units, by)
    if names is not None:
        rows = rows.filter(rows.event_name.isin(list(names)))
    # Position and id in one list: a join with the unnested positions took five times as long.
    entry = rows["items"].map(lambda one, n: ibis.struct({"place": n, "item_id": one.item_id}))
    rows = rows.mutate(entry=entry.unnest())
    kind = rows.event_name.cases(*EVENT_TYPE.items(), else_=UNKNOWN_EVENT)
    rows = rows.select(
        "unit",
        "part",
        "event_id",
        "occurred_at",
        place=rows.entry.place.cast("int32"),
        event_type=kind.cast("int16"),
        item_id=rows.entry.item_id,
    )
    return rows.filter(rows.item_id.notnull())


def searches(events: Any, units: Any, sequences: Any, *, by: By) -> Any:
    """One row per permitted search of the `sequences`, by their number: sequence, occurred_at,
    event_id and search_term."""
    rows = _activity(events, units, by)
    rows = rows.filter(rows.event_name == "search", rows.search_term.notnull())
    return rows.inner_join(sequences, ["unit", "part"]).select(
        "sequence", "occurred_at", "event_id", "search_term"
    )


def sequences(rows: Any) -> Any:
    """The distinct (unit, part) of `interactions`, numbered from 0 in their order as `sequence`."""
    distinct = rows.select("unit", "part").distinct()
    number = ibis.row_number().over(order_by=["unit", "part"])
    return distinct.mutate(sequence=number.cast("int64"))


def vocabulary(rows: Any, min_item_count: int) -> Any:
    """`item_id`, `count` and index `item` of the items in `min_item_count` sequences or more.

    The most frequent first, equally frequent ones by id, from `FIRST_ITEM`.
    """
    once = rows.select("item_id", "unit", "part").distinct()
    counts = once.group_by("item_id").agg(count=lambda held: held.count())
    kept = counts.filter(counts["count"] >= min_item_count)
    place = ibis.row_number().over(order_by=[kept["count"].desc(), kept.item_id])
    return kept.mutate(item=(place + FIRST_ITEM).cast("int64"))


def encoded(rows: Any, sequences: Any, items: Any) -> Any:
    """`interactions` as sequence, occurred_at, event_id, place, event_type and the vocabulary index
    `item`, OOV where the vocabulary has none."""
    joined = rows.inner_join(sequences, ["unit", "part"])
    known = joined.left_join(items.select("item_id", "item"), "item_id")
    return known.select(
        "sequence", *_ORDER, "event_type", item=known["item"].fill_null(OOV).cast("int64")
    )


def in_order(rows: Any) -> Any:
    """`encoded` rows, sequence after sequence, each by (occurred_at, event_id, place)."""
    return rows.order_by("sequence", *_ORDER)


def placed(rows: Any) -> Any:
    """`encoded` rows with their `position` in the sequence, from 0, and the whole seconds `gap_s`
    since the row before, 0 for the first."""
    within = ibis.window(group_by="sequence", order_by=list(_ORDER))
    seconds = rows.occurred_at.truncate("s").epoch_seconds()  # DuckDB alone keeps the fraction
    return rows.mutate(
        position=ibis.row_number().over(within).cast("int64"),
        gap_s=(seconds - seconds.lag().over(within)).fill_null(0).cast("int64"),
    )


def as_lists(rows: Any) -> Any:
    """One row per sequence of `encoded` rows with the lists items, event_types, occurred_at and
    gaps_s, in order."""
    ordered = placed(rows)
    columns = {"items": "item", "event_types": "event_type", "occurred_at": "occurred_at"}
    columns["gaps_s"] = "gap_s"
    entry = ibis.struct({name: ordered[name] for name in ("position", *columns.values())})
    lists = ordered.group_by("sequence").agg(entries=entry.collect())
    entries = lists.entries.sort()  # by position, their first field
    return lists.select(
        "sequence", **{name: entries.map(lambda one, f=f: one[f]) for name, f in columns.items()}
    )

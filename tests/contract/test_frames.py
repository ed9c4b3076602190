import json
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.events import EVENT_TYPE, Event, key_of
from contract.frames import EVENT_SCHEMA, event_row, explode
from tests.contract.examples import event, frame_of, logs, many, us


def table_of(*events: Event) -> pa.Table:
    return pa.Table.from_pylist([event_row(one) for one in events], EVENT_SCHEMA)


LOG = (
    event(1, "page_view", items=()),
    event(2, "purchase", day=1, items=(("milk", 2), "bread"), subject_id=UUID(int=2)),
    event(3, "search", day=2, items=(), search_term="oat milk", purposes=("analytics",)),
)


def test_schema_holds_all_of_an_event() -> None:
    assert set(EVENT_SCHEMA.names) == set(Event.model_fields)


def test_decisions_are_kept_for_learning_only_where_models_may_learn() -> None:
    made = {"rung": "full", "offers": None, "shares": [0.25]}
    personal = event(1, "decision", items=(), decision=made)
    counted = event(2, "decision", items=(), decision=made, purposes=("analytics",))
    told = table_of(personal, counted, event(3, "page_view", items=()))["decision"].to_pylist()
    assert json.loads(told[0]) == made
    assert told[1:] == [None, None]


def test_one_row_for_every_item_and_one_for_none() -> None:
    frame = frame_of(LOG)
    keys = [key_of(str(one.event_id)) for one in LOG]
    assert len(frame) == 4
    assert frame.subjects == [str(UUID(int=1)), str(UUID(int=2))]
    assert frame.subject.tolist() == [0, 1, 1, 0]
    assert frame.event_key.tolist() == [keys[0], keys[1], keys[1], keys[2]]
    assert frame.event_type.tolist() == [
        EVENT_TYPE[name] for name in ("page_view", "purchase", "purchase", "search")
    ]
    assert frame.occurred_us.tolist() == [us(0), us(1), us(1), us(2)]
    assert frame.session_key.tolist() == [key_of("session-1")] * 4
    assert frame.item_key.tolist() == [0, key_of("milk"), key_of("bread"), 0]
    assert frame.position.tolist() == [0, 0, 1, 0]
    assert frame.quantity.tolist() == [1, 2, 1, 1]
    assert frame.search_term.tolist() == [None, None, None, "oat milk"]
    assert frame.personal.tolist() == [True, True, True, False]


def test_other_zones_are_kept_as_the_same_moment() -> None:
    berlin = timezone(timedelta(hours=1))
    there = event(1, occurred_at=datetime(2017, 11, 20, 1, tzinfo=berlin))
    assert frame_of([there]).occurred_us.tolist() == [us(0)]


@many
@given(logs(max_size=8), st.data())
def test_slices_and_chunks_do_not_matter(log: list[Event], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(log)))
    end = data.draw(st.integers(start, len(log)))
    middle = data.draw(st.integers(start, end))
    whole = table_of(*log)
    parts = [whole.slice(start, middle - start), whole.slice(middle, end - middle)]
    for table in (whole.slice(start, end - start), pa.concat_tables(parts)):
        frame, expected = explode(table), frame_of(log[start:end])
        assert frame.subjects == expected.subjects
        for column in ("subject", "event_key", "item_key", "position", "personal", "search_term"):
            assert getattr(frame, column).tolist() == getattr(expected, column).tolist()


def test_nothing_at_all() -> None:
    frame = explode(EVENT_SCHEMA.empty_table())
    assert len(frame) == 0
    assert frame.subjects == []
    assert explode(table_of(*LOG).slice(3)).event_type.tolist() == []


def test_missing_columns_are_named() -> None:
    with pytest.raises(ValueError, match=r"^events lack the columns items, purposes$"):
        explode(table_of(*LOG).drop_columns(["items", "purposes"]))


def test_unknown_event_names_are_named() -> None:
    row = event_row(LOG[0]) | {"event_name": "buy"}
    with pytest.raises(ValueError, match=r"^unknown event names: buy$"):
        explode(pa.Table.from_pylist([row], EVENT_SCHEMA))


@pytest.mark.parametrize(
    "column", ["event_id", "event_name", "occurred_at", "subject_id", "session_id"]
)
def test_missing_values_are_named(column: str) -> None:
    rows = [event_row(one) for one in LOG]
    rows[1][column] = None
    with pytest.raises(ValueError, match=f"^events lack 1 values in the column {column}$"):
        explode(pa.Table.from_pylist(rows, EVENT_SCHEMA))


def test_item_without_an_id_is_named() -> None:
    row = event_row(LOG[1]) | {"items": [{"item_id": None, "quantity": 1}]}
    with pytest.raises(ValueError, match=r"^events lack 1 values in the column items\.item_id$"):
        explode(pa.Table.from_pylist([row], EVENT_SCHEMA))


def test_nulls_where_they_may_be() -> None:
    row = event_row(LOG[1])
    unsaid = row | {"items": None, "purposes": None}
    half_said = row | {
        "items": [{"item_id": "milk", "quantity": None}],
        "purposes": [None, "personalization"],
    }
    frame = explode(pa.Table.from_pylist([unsaid, half_said], EVENT_SCHEMA))
    assert frame.item_key.tolist() == [0, key_of("milk")]
    assert frame.quantity.tolist() == [1, 1]
    assert frame.personal.tolist() == [False, True]

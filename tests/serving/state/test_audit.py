"""The audit log: any changed, missing, added or reordered line is found, and a cut tail."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.clock import FixedClock
from serving.state.audit import START, Actor, Entry, Head, Line, first_fault, next_line, sealed_head
from serving.state.audit import parsed_line as parsed
from serving.state.control_audit import ABOUT, lines_about
from serving.state.group_writer import StoreError
from serving.state.sql import Sql
from serving.state.sql_control_store import SqlControlStore
from tests.serving.state.control_places import ControlPlace

KEY = b"k" * 32
NOW = datetime(2017, 11, 20, tzinfo=UTC)
BY = Actor("key-1", "admin")


def chain(count: int, key: bytes = KEY) -> tuple[list[Line], Head]:
    lines: list[Line] = []
    for number in range(1, count + 1):
        previous = lines[-1].mac if lines else START
        entry = Entry("consent.recorded", NOW + timedelta(seconds=number), BY, f"name-{number % 3}")
        lines.append(next_line(entry, number, previous, key))
    return lines, sealed_head(0, START, count, lines[-1].mac if lines else START, key)


def test_a_whole_chain_has_no_fault() -> None:
    for count in (0, 1, 2, 20):
        lines, head = chain(count)
        assert first_fault(lines, head, KEY) is None
        assert first_fault([parsed(line.as_json()) for line in lines], head, KEY) is None


@given(st.data())
def test_every_harm_is_found_and_the_line_named(data: st.DataObject) -> None:
    lines, head = chain(12)
    place = data.draw(st.integers(0, 11))
    harm = data.draw(st.sampled_from(["drop", "swap", "repeat", "change", "forge", "cut", "mac"]))
    harmed = list(lines)
    if harm == "drop":
        del harmed[place]
    elif harm == "swap":
        other = data.draw(st.integers(0, 11).filter(lambda one: one != place))
        harmed[place], harmed[other] = harmed[other], harmed[place]
        place = min(place, other)
    elif harm == "repeat":
        harmed.insert(place + 1, lines[place])
    elif harm == "change":
        at = data.draw(st.integers(0, len(lines[place].text) - 1))
        text = lines[place].text
        changed = text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]
        harmed[place] = Line(lines[place].number, changed, lines[place].mac)
    elif harm == "forge":  # whoever has not the key can still compute a chain, of another key
        entry = Entry("key.created", NOW, BY)
        previous = lines[place - 1].mac if place else START
        harmed[place] = next_line(entry, place + 1, previous, b"x" * 32)
    elif harm == "cut":
        harmed = harmed[:place]
    else:
        harmed[place] = Line(lines[place].number, lines[place].text, lines[(place + 1) % 12].mac)
    fault = first_fault(harmed, head, KEY)
    assert fault is not None
    assert f"line {place + 1} " in fault, (harm, fault)


def test_a_cut_tail_is_found_even_with_an_older_head_forged() -> None:
    lines, _ = chain(5)
    without_key = sealed_head(0, START, 3, lines[2].mac, b"x" * 32)
    assert first_fault(lines[:3], without_key, KEY) == "the head was changed"
    assert first_fault(lines[:3], None, KEY) is not None


def test_lines_renumbered_after_a_drop_are_found() -> None:
    lines, head = chain(5)
    moved = [Line(n, line.text, line.mac) for n, line in enumerate(lines[1:], start=1)]
    assert first_fault(moved, head, KEY) is not None


@pytest.fixture
def control(control_place: ControlPlace) -> Iterator[SqlControlStore]:
    """A store of its own."""
    made = control_place.open()
    yield made
    made.close()


def fault_of(control: SqlControlStore) -> str | None:
    lines, head = control.audit_log()
    return first_fault(lines, head, control.service_key("audit"))


HARMS: list[tuple[str, str]] = [
    ("UPDATE audit SET text = replace(text, 'admin', 'owner') WHERE number = 3", "line 3 "),
    ("DELETE FROM audit WHERE number = 4", "line 4 "),
    ("DELETE FROM audit WHERE number > 7", "line 8 "),
    ("UPDATE audit SET number = -number; UPDATE audit SET number = 12 + number", "line 1 "),
    ("DELETE FROM audit WHERE number = 1", "line 1 "),
    ("UPDATE audit_head SET number = 9", "head"),
    ("DELETE FROM audit_head", "head"),
    ("DELETE FROM audit WHERE number > 9; UPDATE audit_head SET number = 9", "head"),
    ("INSERT INTO audit SELECT 12, text, mac FROM audit WHERE number = 11", "line 12 "),
    ("DELETE FROM audit", "line 1 "),
    ("DELETE FROM audit; DELETE FROM audit_head", "head"),
]


@pytest.mark.parametrize(("harm", "named"), HARMS)
async def test_harm_done_to_the_file_is_found(
    control: SqlControlStore, control_place: ControlPlace, harm: str, named: str
) -> None:
    for number in range(10):
        await control.audit(Entry("consent.recorded", NOW, BY, "name", {"number": number}))
    assert fault_of(control) is None
    control_place.run(harm)
    fault = fault_of(control)
    assert fault is not None
    assert named in fault


async def test_a_new_log_begins_with_its_store_and_never_again(
    control: SqlControlStore, control_place: ControlPlace
) -> None:
    (line,), _ = control.audit_log()
    assert json.loads(line.text)["action"] == "log.begun"
    control_place.run("DELETE FROM audit; DELETE FROM audit_head")
    with pytest.raises(StoreError, match="head of the audit log"):
        await control.audit(Entry("key.created", NOW, BY))
    again = control_place.open()
    assert fault_of(again) is not None
    again.close()


async def test_only_the_leading_old_lines_go(control_place: ControlPlace) -> None:
    control = control_place.open(clock=FixedClock(NOW))
    for days in (1, 20, -50, 21):  # once the clock was wrong
        await control.audit(Entry("consent.recorded", NOW + timedelta(days=days), BY))
    assert await control.let_go(NOW + timedelta(days=10), NOW) == (2, 0)
    assert [line.number for line in control.audit_log()[0]] == [3, 4, 5]
    assert fault_of(control) is None
    assert await control.let_go(NOW + timedelta(days=30), NOW) == (3, 0)
    assert fault_of(control) is None
    await control.audit(Entry("consent.recorded", NOW, BY))
    assert [line.number for line in control.audit_log()[0]] == [6]
    assert fault_of(control) is None
    control.close()


async def test_lines_whose_time_is_over_go_and_the_rest_stays_proven(
    control_place: ControlPlace,
) -> None:
    control = control_place.open(clock=FixedClock(NOW))
    for number in range(10):
        await control.audit(Entry("consent.recorded", NOW + timedelta(days=number), BY))
    assert await control.let_go(NOW + timedelta(days=4), NOW) == (5, 0)
    lines, _ = control.audit_log()
    assert [line.number for line in lines] == [6, 7, 8, 9, 10, 11]
    assert fault_of(control) is None
    await control.audit(Entry("consent.recorded", NOW, BY))
    assert fault_of(control) is None
    control_place.run("DELETE FROM audit WHERE number = 6")
    fault = fault_of(control)
    assert fault is not None
    assert "line 6 " in fault
    control.close()


async def test_two_writers_make_one_chain(
    control_place: ControlPlace, control: SqlControlStore
) -> None:
    other = control_place.open()
    writers: list[Callable[[Entry], object]] = [control.audit, other.audit]
    for number in range(20):
        await writers[number % 2](Entry("key.created", NOW, BY, None, {"n": number}))  # type: ignore[misc]
    (_, *lines), _ = control.audit_log()
    assert [json.loads(line.text)["detail"]["n"] for line in lines] == list(range(20))
    assert fault_of(other) is None
    other.close()


async def test_what_is_said_of_one_person_is_found_by_an_index(control_place: ControlPlace) -> None:
    """The log grows for years, and an export must not read all of it."""
    control_place.open().close()
    # As of the version before, which had none.
    control_place.run("DROP INDEX audit_by_end")
    step = 5
    as_before = {"sqlite": f"PRAGMA user_version = {step}"}
    control_place.run(as_before.get(control_place.url, f"UPDATE schema_steps SET number = {step}"))
    store = control_place.open()
    names = [f"{one:032x}" for one in (1, 2)]
    for name in (*names, names[0]):
        await store.audit(Entry("subject.exported", NOW, BY, name))

    def plan(connection: Sql) -> str:
        asked = "EXPLAIN QUERY PLAN" if control_place.url == "sqlite" else "EXPLAIN"
        return str(connection.execute(f"{asked} {ABOUT}", ("end", "name")).fetchall())

    def found(name: str) -> list[int]:
        return [line.number for line in store._read_audit(lambda one: lines_about(one, name))]

    first, second, third = (line.number for line in store.audit_log()[0][-3:])
    assert (found(names[0]), found(names[1])) == ([first, third], [second])
    assert found("f" * 32) == []
    if control_place.url != "sqlite":  # which reads a short log in one go
        line = """'{"subject":"' || md5(one::text) || '"}'"""
        control_place.run(
            f"INSERT INTO audit SELECT one, {line}, '' FROM generate_series(100, 5000) AS one; "
            "ANALYZE audit"
        )
    assert "audit_by_end" in store._read_audit(plan)
    store.close()

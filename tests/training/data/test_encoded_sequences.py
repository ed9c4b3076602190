"""The ETL on DuckDB against plain Python on random logs, and what it refuses."""

from datetime import timedelta
from pathlib import Path
from random import Random

import numpy as np
import pytest

from contract.clock import to_us
from contract.errors import UserError
from tests.training.data.event_logs import START, Event, event, expected, random_events, write
from training.data.encoded_sequences import read_sequences
from training.data.etl import By

CASES: list[tuple[By, tuple[str, ...] | None, int]] = [
    ("subject", None, 1),
    ("subject", ("view_item",), 2),
    ("session", None, 3),
    ("session", ("purchase", "add_to_cart"), 1),
]


@pytest.mark.parametrize(("by", "names", "min_item_count"), CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_as_in_plain_python(
    tmp_path: Path, by: By, names: tuple[str, ...] | None, min_item_count: int, seed: int
) -> None:
    events = random_events(Random(seed), 120)
    found = read_sequences(
        write(tmp_path, events), by=by, events=names, min_item_count=min_item_count
    )
    item_ids, rows = expected(events, by, names, min_item_count)
    assert list(found.vocabulary.item_ids) == item_ids
    assert [tuple(key.values()) for key in found.keys.to_pylist()] == list(rows)
    assert len(found) == len(rows) > 2
    for number, wanted in enumerate(rows.values()):
        place = found.of(number)
        assert found.item[place].tolist() == [row[0] for row in wanted]
        assert found.event_type[place].tolist() == [row[1] for row in wanted]
        assert found.occurred_us[place].tolist() == [to_us(row[2]) for row in wanted]
    for column in (found.item, found.event_type, found.occurred_us, found.offsets):
        assert column.dtype == np.int64
    assert found.offsets[-1] == len(found.item)
    assert set(found.seconds) == {
        "units",
        "interactions",
        "sequences",
        "vocabulary",
        "encoding",
        "searches",
    }


@pytest.mark.parametrize("by", ["subject", "session"])
def test_a_search_belongs_to_the_interaction_that_it_came_after(tmp_path: Path, by: By) -> None:
    def at(minute: int, name: str, *items: str, term: str | None = None, **more: object) -> Event:
        when = START + timedelta(minutes=minute)
        told = {"event_id": f"e{minute}", "event_name": name, "occurred_at": when}
        return single(**told, items=list(items), search_term=term, **more)

    events = [
        at(0, "search", term="too early"),
        at(1, "view_item", "a"),
        at(2, "search", term="red shoes"),
        at(3, "search", term="withheld", purposes=["analytics"]),
        at(4, "purchase", "b", "c"),
        at(5, "search", term="a hat"),
        at(6, "view_item", "d", subject_id="t"),
        at(7, "search", term="gloves", subject_id="t"),
        at(80, "search", term="a visit later", subject_id="t"),
    ]
    found = read_sequences(write(tmp_path, events), by=by)
    item_of = [found.vocabulary.item_id(int(item)) for item in found.item]
    assert item_of == ["a", "b", "c", "d"]
    told = list(zip([item_of[row] for row in found.search_row], found.search_term, strict=True))
    later = [("d", "a visit later")] if by == "subject" else []
    assert told == [("a", "red shoes"), ("c", "a hat"), ("d", "gloves"), *later]


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    events = random_events(Random(3), 60)
    one = read_sequences(write(tmp_path / "a", events), by="session")
    other = read_sequences(write(tmp_path / "b", events[::-1], parts=3), by="session")
    assert one.vocabulary == other.vocabulary
    assert one.keys.equals(other.keys)
    assert (one.item.tolist(), one.occurred_us.tolist()) == (
        other.item.tolist(),
        other.occurred_us.tolist(),
    )


def single(**changed: object) -> Event:
    told = {"event_id": "e", "event_name": "view_item", "occurred_at": START, "subject_id": "s"}
    return event(
        **told | {"session_id": "a", "purposes": ["personalization"], "items": ["x"]} | changed
    )


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_sequences(tmp_path / "nowhere", by="subject")
    with pytest.raises(UserError, match=r"no \*\.parquet files"):
        read_sequences(tmp_path, by="subject")
    folder = write(tmp_path, [single(purposes=["analytics"])], parts=1)
    with pytest.raises(UserError, match="written under personalization"):
        read_sequences(folder, by="subject")
    with pytest.raises(UserError, match="unknown event names: glance"):
        read_sequences(folder, by="subject", events=("view_item", "glance"))
    write(tmp_path, [single(event_name="glance")], parts=1)
    with pytest.raises(UserError, match="event names that this version does not know"):
        read_sequences(folder, by="session")
    write(tmp_path, [single()], parts=1)
    with pytest.raises(
        UserError, match="no item stands in 2 or more sequences of view_item events"
    ):
        read_sequences(folder, by="session", events=("view_item",), min_item_count=2)
    (folder / "events" / "part-0.parquet").write_bytes(b"spoiled")
    with pytest.raises(UserError, match=r"part-0\.parquet: not a readable Parquet file"):
        read_sequences(folder, by="session")

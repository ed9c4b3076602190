"""A small import, in the files and columns of a real one, over the items of the tiny release."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid5

import pyarrow as pa
import pyarrow.parquet as pq

from contract.events import Event, EventItem
from contract.frames import EVENT_SCHEMA, event_row

CUT = datetime(2017, 11, 20, tzinfo=UTC)
SHOPPERS = 12
_SPACE = UUID(int=7)


def subject_of(shopper: int) -> UUID:
    return uuid5(_SPACE, f"household-{shopper}")


def baskets() -> list[Event]:
    """Ten baskets a shopper before the cut and two after it, of ten items each."""
    events = []
    for shopper in range(SHOPPERS):
        for basket in range(12):
            number = shopper * 100 + basket
            at = CUT - timedelta(days=3 * (10 - basket)) + timedelta(hours=shopper + 1)
            items = tuple(
                EventItem(item_id=f"item-{(shopper * 3 + basket + n) % 50}", price=100)
                for n in range(10)
            )
            events.append(
                Event(
                    event_id=UUID(int=number + 1),
                    event_name="purchase",
                    occurred_at=at,
                    received_at=at,
                    session_id=str(30_000 + number),
                    transaction_id=str(30_000 + number),
                    subject_id=subject_of(shopper),
                    purposes=("analytics", "personalization"),
                    items=items,
                    currency="USD",
                )
            )
    return events


def write_import(folder: Path) -> Path:
    """`folder` with events in two files and the table of subjects."""
    (folder / "events").mkdir(parents=True)
    rows = [event_row(event) for event in baskets()]
    for number, part in enumerate((rows[::2], rows[1::2])):
        table = pa.Table.from_pylist(part, EVENT_SCHEMA)
        pq.write_table(table, folder / "events" / f"part-{number:05d}.parquet")
    subjects = {
        "visitor_id": [f"household-{n}" for n in range(SHOPPERS)],
        "subject_id": [str(subject_of(n)) for n in range(SHOPPERS)],
    }
    pq.write_table(pa.table(subjects), folder / "subjects.parquet")
    return folder

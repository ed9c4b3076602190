"""A made-up event log for measuring the ETL: many shoppers, many items, no meaning.

Items are drawn from a Zipf law, sessions have 1 to about 60 events, shoppers 1 to some dozens of
sessions. The same numbers give the same log. Written in parts, so that its size takes no memory.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tqdm import tqdm

from contract.clock import DAY_US, MICROSECONDS
from training.data.columns import IMPORTED_PURPOSES, event_table, one_item_each, repeated, utc
from training.data.storage import events_writer

Ints = npt.NDArray[np.int64]

EPOCH_US = 1_704_067_200_000_000  # 2024-01-01T00:00:00Z
_DAYS = 90
_EVENTS_PER_PART = 250_000
_NAMES = ("view_item", "select_item", "add_to_cart", "purchase", "page_view")
_SHARES = (0.62, 0.15, 0.10, 0.05, 0.08)
_FORBIDDEN = 0.03  # share of events without `personalization`


def session_lengths(chance: np.random.Generator, num_events: int, mean: float) -> Ints:
    """Lengths of sessions, geometric with a long tail, that add up to `num_events`."""
    guess = int(num_events / mean * 1.2) + 100
    lengths = np.minimum(np.ceil(chance.lognormal(np.log(mean) - 0.5, 1.0, guess)), 60.0)
    ends = np.cumsum(lengths.astype(np.int64))
    count = int(np.searchsorted(ends, num_events)) + 1
    kept = lengths[:count].astype(np.int64)
    kept[-1] -= int(ends[count - 1]) - num_events
    return kept


def zipf_items(chance: np.random.Generator, size: int, num_items: int, power: float) -> Ints:
    """`size` items of 0..num_items - 1 with frequencies proportional to 1 / (1 + rank)^power."""
    weights = np.cumsum(1.0 / np.arange(1, num_items + 1) ** power)
    found: Ints = np.searchsorted(weights, chance.random(size) * weights[-1])
    return found


def write_event_log(folder: Path, num_events: int, num_items: int, seed: int) -> None:
    """Write `num_events` events to `folder/events`, sessions one after another in mixed order."""
    label = "making events"
    with (
        events_writer(folder) as writer,
        tqdm(total=num_events, desc=label, unit="event", unit_scale=True, disable=None) as progress,
    ):
        for part in _parts(num_events, num_items, seed):
            writer.write(part)
            progress.update(len(part))


def _parts(num_events: int, num_items: int, seed: int) -> Iterator[pa.Table]:
    shoppers = max(1, num_events // 20)
    first_session = 0
    for number, start in enumerate(range(0, num_events, _EVENTS_PER_PART)):
        chance = np.random.default_rng([seed, number])
        size = min(_EVENTS_PER_PART, num_events - start)
        lengths = session_lengths(chance, size, 6.0)
        yield _part(chance, lengths, first_session, shoppers, num_items)
        first_session += len(lengths)


def _part(
    chance: np.random.Generator, lengths: Ints, first: int, shoppers: int, num_items: int
) -> pa.Table:
    size, sessions = int(lengths.sum()), len(lengths)
    session = np.repeat(np.arange(sessions), lengths)
    begins = chance.integers(0, _DAYS * DAY_US, sessions)
    # Half a minute between events; one in fifty comes after more than half an hour.
    gaps = chance.exponential(30.0, size) + (chance.random(size) < 0.02) * 2400.0
    elapsed = np.cumsum(gaps)
    since = elapsed - elapsed[np.cumsum(lengths) - lengths][session]
    times = utc(EPOCH_US + begins[session] + (since * MICROSECONDS).astype(np.int64))
    numbers = chance.integers(0, 2**48, size).tolist()
    names = pa.array(_NAMES).take(pa.array(chance.choice(len(_NAMES), size, p=_SHARES)))
    items = pa.array([f"item-{n:07d}" for n in range(num_items)])
    chosen = items.take(pa.array(zipf_items(chance, size, num_items, 1.0)))
    purposes = _purposes(chance, size)
    shopper = chance.integers(0, shoppers, sessions)
    columns = {
        "event_id": pa.array([f"{first:08x}-0000-4000-8000-{n:012x}" for n in numbers]),
        "event_name": names,
        "occurred_at": times,
        "received_at": times,
        "subject_id": pa.array([f"{n:08x}-0000-4000-8000-000000000000" for n in shopper[session]]),
        "session_id": pa.array([f"session-{first + n}" for n in session]),
        "purposes": purposes,
        "items": one_item_each(chosen),
    }
    return event_table(columns, synthetic=True).take(pa.array(chance.permutation(size)))


def _purposes(chance: np.random.Generator, size: int) -> pa.Array:
    kinds = pa.concat_arrays(
        [repeated(IMPORTED_PURPOSES, "purposes", 1), repeated(["analytics"], "purposes", 1)]
    )
    return kinds.take(pa.array((chance.random(size) < _FORBIDDEN).astype(np.int64)))

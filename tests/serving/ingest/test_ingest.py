"""The straight line of an event, and impressions behind it."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from contract.clock import FixedClock
from contract.events import ClientEvent, Event
from serving.ingest.accept import Ingest
from serving.ingest.impressions import ImpressionLog
from serving.ingest.subjects import Subjects
from serving.state.event_log import SqliteEventLog
from serving.state.sqlite_writer import StoreError
from tests.serving.conftest import NOON, event, purchase
from tests.serving.state.events import stored_event
from tests.serving.state.stores import SECRETS, Stores


class Line:
    """Everything that an event passes."""

    def __init__(self, folder: Path) -> None:
        self.clock = FixedClock(NOON)
        stores = Stores(folder, clock=self.clock)
        self.control, self.log, self.features = stores.control, stores.log, stores.features
        subjects = Subjects(self.control, SECRETS, self.clock)
        self.ingest = Ingest(subjects, self.log, self.features, self.clock)

    async def accept(self, *sent: dict[str, Any]) -> list[str]:
        events = [ClientEvent.model_validate(one) for one in sent]
        return list(await self.ingest.accept(events, gpc=False))


@pytest.fixture
def line(tmp_path: Path) -> Any:
    """A line of its own for a test."""
    made = Line(tmp_path)
    yield made
    made.log.close()
    made.control.close()


async def test_a_first_word_in_a_batch_counts_for_the_rest_of_it(line: Line) -> None:
    sent = [event(consent=None), event(), event(consent=None), event(consent={"analytics": False})]
    assert await line.accept(*sent) == ["no_consent", "accepted", "accepted", "no_consent"]


async def test_the_position_never_passes_what_was_not_applied(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    await line.accept(event())
    assert line.features.position == 1
    held, absorb = asyncio.Event(), line.features.absorb

    async def slow(stored: Any) -> None:
        if stored[0].session_id == "slow":
            await held.wait()
        await absorb(stored)

    monkeypatch.setattr(line.features, "absorb", slow)
    waiting = asyncio.create_task(line.accept(event(session_id="slow")))
    while line.log.last_position < 2:
        await asyncio.sleep(0)
    await line.accept(event())
    assert line.log.last_position == 3
    assert line.features.position == 1
    held.set()
    await waiting
    await line.accept(event())
    assert line.features.position == 4


async def test_a_caller_that_goes_away_leaves_log_and_features_alike(line: Line) -> None:
    sent = purchase("item-1")
    task = asyncio.create_task(line.accept(sent))
    await asyncio.sleep(0)
    while not line.ingest._writing and not task.done():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await line.ingest.drain()
    ((_, stored),) = line.log.read_from(0)
    state = await line.features.read(str(stored.subject_id))
    assert len(state["purchases"]) == 1


async def agreeing(folder: Path) -> Subjects:
    """The subjects of `stored_event`, who agreed to all that is stored."""
    stores = Stores(folder)
    await stores.add_subjects(1)
    return Subjects(stores.control, SECRETS, FixedClock(NOON))


async def test_impressions_that_do_not_fit_are_lost_and_counted(
    tmp_path: Path,
) -> None:
    lost: list[int] = []
    log = SqliteEventLog(tmp_path / "events.sqlite")
    impressions = ImpressionLog(await agreeing(tmp_path), log, 3, lost.append)
    purposes = frozenset({"analytics"})
    for number in range(1, 6):
        impressions.offer(partial(stored_event, number), purposes)
    assert lost == [1, 1]
    impressions.start()
    await impressions.stop()
    assert [stored.event_id for _, stored in log.read_from(0)] == [UUID(int=n) for n in (1, 2, 3)]
    log.close()


async def test_impressions_without_analytics_are_not_kept(tmp_path: Path) -> None:
    lost: list[int] = []
    log = SqliteEventLog(tmp_path / "events.sqlite")
    impressions = ImpressionLog(await agreeing(tmp_path), log, 3, lost.append)
    impressions.start()
    for purposes in ((), ("personalization",), ("offers",)):
        impressions.offer(partial(stored_event, 1), frozenset(purposes))
    await impressions.stop()
    assert log.last_position == 0
    assert lost == []
    log.close()


async def test_one_that_can_not_be_made_takes_no_other_along(tmp_path: Path) -> None:
    lost: list[int] = []
    log = SqliteEventLog(tmp_path / "events.sqlite")
    impressions = ImpressionLog(await agreeing(tmp_path), log, 10, lost.append)

    def broken() -> Event:
        raise RuntimeError("no such segment")

    impressions.start()
    for make in (broken, partial(stored_event, 1), partial(stored_event, 2)):
        impressions.offer(make, frozenset({"analytics"}))
    await impressions.stop()
    assert (lost, log.last_position) == ([1], 2)
    log.close()


async def test_a_failing_log_costs_impressions_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    log = SqliteEventLog(tmp_path / "events.sqlite")
    impressions = ImpressionLog(await agreeing(tmp_path), log, 10, lost.append)

    async def broken(*_: object) -> None:
        raise StoreError("disk full")

    impressions.start()
    with monkeypatch.context() as patched:
        patched.setattr(log, "append", broken)
        impressions.offer(partial(stored_event, 1), frozenset({"analytics"}))
        await impressions.drain()
    assert lost == [1]
    impressions.offer(partial(stored_event, 2), frozenset({"analytics"}))
    await impressions.stop()
    assert log.last_position == 1
    log.close()

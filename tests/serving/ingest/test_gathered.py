"""Requests that the loop has read together are looked up by one statement, and each is told of its
own shopper."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from contract.clock import FixedClock
from contract.consent import Purpose
from serving.ingest.subjects import Recognised, Subjects
from serving.state.control_records import Identity
from serving.state.control_store import ControlStore
from serving.state.sqlite_writer import StoreError
from tests.serving.conftest import NOON
from tests.serving.state.stores import SECRETS, Stores

AGREED: dict[Purpose, bool] = {"analytics": True, "personalization": True}
VISITORS = [f"visitor-{number}" for number in range(5)]


@pytest.fixture
async def control(tmp_path: Path) -> AsyncIterator[ControlStore]:
    stores = Stores(tmp_path)
    yield stores.control
    stores.close()


@pytest.fixture
async def asked(control: ControlStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were looked up by each statement."""
    numbers: list[int] = []
    look_up_all = control.look_up_all

    def counted(who: Sequence[Any]) -> list[Identity]:
        numbers.append(len(who))
        return look_up_all(who)

    monkeypatch.setattr(control, "look_up_all", counted)
    return numbers


@pytest.fixture
async def subjects(control: ControlStore) -> Subjects:
    """Every other one of VISITORS is known."""
    made = Subjects(control, SECRETS, FixedClock(NOON))
    for visitor in VISITORS[::2]:
        await made.settle(made.recognise(visitor, None, AGREED, gpc=False))
    return made


async def beside(subjects: Subjects, visitor: str, *, others: bool) -> Recognised:
    return await subjects.recognise_beside(visitor, None, AGREED, gpc=False, others=others)


async def test_those_that_come_together_are_asked_about_at_once(
    subjects: Subjects, asked: list[int]
) -> None:
    # The last one has nobody behind it, and joins those that wait.
    waiting = [beside(subjects, one, others=one != VISITORS[-1]) for one in VISITORS]
    found = await asyncio.gather(*waiting)
    assert asked == [len(VISITORS)]
    assert found == [subjects.recognise(one, None, AGREED, gpc=False) for one in VISITORS]
    assert [one.subject_id is None for one in found] == [False, True, False, True, False]


async def test_who_is_alone_does_not_wait(subjects: Subjects, asked: list[int]) -> None:
    with pytest.raises(StopIteration):  # it never gave the loop a turn
        beside(subjects, VISITORS[0], others=False).send(None)
    assert asked == [1]


async def test_one_that_has_gone_away_takes_no_other_along(
    subjects: Subjects, asked: list[int]
) -> None:
    first, second = (
        asyncio.create_task(beside(subjects, one, others=True)) for one in VISITORS[:2]
    )
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).subject_id is None
    assert first.cancelled()
    assert asked == [2]


async def test_a_store_that_fails_is_told_to_all_of_them(
    control: ControlStore, subjects: Subjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> list[Identity]:
        raise StoreError("away")

    with monkeypatch.context() as patched:
        patched.setattr(control, "look_up_all", broken)
        failed = await asyncio.gather(
            *(beside(subjects, one, others=True) for one in VISITORS), return_exceptions=True
        )
    assert [type(one) for one in failed] == [StoreError] * len(VISITORS)
    assert (await beside(subjects, VISITORS[0], others=True)).subject_id is not None

"""A stage ends in time, one way or the other, and only what must come out comes out."""

import asyncio
import logging

import pytest

from contract.errors import UserError
from serving.decision.deadline import Deadline
from serving.inference.breaker import Breaker, BreakerSettings


async def answer() -> str:
    return "answer"


async def hang() -> str:
    await asyncio.Event().wait()
    return "never"


async def fail() -> str:
    raise RuntimeError("visitor raw-visitor is broken")


async def test_a_stage_that_answers() -> None:
    deadline = Deadline(1_000)
    assert await deadline.stage("one", 500, answer, "fallback") == "answer"
    assert deadline.degraded == []
    assert deadline.timings_ms.keys() == {"one"}
    assert 0 < deadline.remaining_ms() < 1_000


async def test_a_stage_that_hangs_gets_its_budget_or_what_remains() -> None:
    deadline = Deadline(80)
    assert await deadline.stage("short", 20, hang, "fallback") == "fallback"
    assert deadline.remaining_ms() > 0
    assert await deadline.stage("long", 10_000, hang, "fallback", reserve_ms=10) == "fallback"
    assert deadline.elapsed_ms() < 5_000
    assert await deadline.stage("late", 10_000, hang, "fallback") == "fallback"
    assert deadline.remaining_ms() == 0
    assert await deadline.stage("too late", 10_000, answer, "fallback") == "fallback"
    assert deadline.degraded == ["short", "long", "late", "too late"]


async def test_the_reserve_is_left_for_what_comes_after() -> None:
    deadline = Deadline(10_000)
    assert await deadline.stage("one", 60_000, hang, "fallback", reserve_ms=9_950) == "fallback"
    assert deadline.remaining_ms() > 1_000
    assert await deadline.stage("two", 5, answer, "fallback", reserve_ms=10_000) == "fallback"
    assert deadline.degraded == ["one", "two"]


async def test_a_stage_that_fails_is_logged_without_what_was_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deadline = Deadline(1_000)
    with caplog.at_level(logging.WARNING):
        assert await deadline.stage("one", 500, fail, "fallback") == "fallback"
        assert deadline.inline("two", lambda: 1 // 0, 7) == 7
    assert deadline.degraded == ["one", "two"]
    assert "stage one failed: RuntimeError in fail" in caplog.text
    assert "raw-visitor" not in caplog.text


async def test_invalid_input_and_cancellation_come_out() -> None:
    async def refuse() -> str:
        raise UserError("no")

    deadline = Deadline(60_000)
    with pytest.raises(UserError):
        await deadline.stage("one", 500, refuse, "fallback")
    task = asyncio.create_task(deadline.stage("two", 50_000, hang, "fallback"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert deadline.degraded == []


async def test_only_a_fair_chance_counts_against_a_model() -> None:
    breaker = Breaker(BreakerSettings(failures=1, fair_ms=20))
    await Deadline(1_000).stage("model", 5, hang, "fallback", breaker=breaker)
    assert not breaker.is_open
    await Deadline(1_000).stage("model", 25, hang, "fallback", breaker=breaker)
    assert breaker.is_open
    deadline = Deadline(1_000)
    assert await deadline.stage("model", 500, answer, "fallback", breaker=breaker) == "fallback"
    assert deadline.degraded == ["model"]


async def test_what_waits_for_nothing_needs_no_timer_and_is_not_begun_late() -> None:
    deadline = Deadline(10_000)
    assert deadline.at_once("one", answer, "fallback") == "answer"
    assert deadline.at_once("two", fail, "fallback") == "fallback"
    assert deadline.at_once("three", hang, "fallback") == "fallback"
    assert deadline.degraded == ["two", "three"]
    assert Deadline(0).at_once("four", answer, "fallback") == "fallback"

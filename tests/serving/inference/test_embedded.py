"""The micro-batcher answers as one call per request would, in order, and survives bad requests."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from contract.candidates import MAX_CANDIDATES
from contract.encoding import Encoded, Situation, Vocabulary, encode, stack
from contract.events import EventContext
from contract.features import UNKNOWN
from contract.manifest import MODELS, QUERY_TOWER, RANKER, SEQUENCE_ENCODER
from contract.pair_features import PAIR_FEATURES
from serving.inference.backend import InferenceFailed, finite
from serving.inference.embedded import EmbeddedBackend, Session
from tests.serving.inference.broken_models import failing, session, usual_session

VOCABULARY = Vocabulary(tuple(f"item-{n}" for n in range(60)))
VECTORS = np.random.default_rng(3).normal(size=(60, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def sessions() -> dict[str, Session]:
    return {name: usual_session(name, VECTORS) for name in MODELS}


@pytest.fixture
def sizes() -> list[int]:
    return []


@pytest.fixture
def backend(sessions: dict[str, Session], sizes: list[int]) -> Iterator[EmbeddedBackend]:
    running = EmbeddedBackend(sessions, lambda _, size: sizes.append(size))
    yield running
    running.close()


def encoded(seed: int) -> Encoded:
    random = np.random.default_rng(seed)
    cart = [f"item-{n}" for n in random.integers(0, 70, random.integers(0, 9))]
    return encode(Situation(UNKNOWN, cart, 0, EventContext(device="mobile")), VOCABULARY)


class Blocked(Session):
    """A session that waits for a sign before its first run, so that others pile up behind it."""

    def __init__(self, inner: Session) -> None:
        self.inputs, self.outputs, self._session = inner.inputs, inner.outputs, inner._session
        self.go = threading.Event()
        self.seen: list[Any] = []

    def infer(self, batch: Encoded) -> dict[str, Any]:
        self.go.wait(30)
        self.seen.append(batch["cart_items"][:, 0].tolist())
        return super().infer(batch)


async def test_batched_answers_equal_single_ones(
    backend: EmbeddedBackend, sessions: dict[str, Session], sizes: list[int]
) -> None:
    inputs = [encoded(seed) for seed in range(100)]
    outputs = await asyncio.gather(*(backend.run(QUERY_TOWER, one) for one in inputs))
    for one, output in zip(inputs, outputs, strict=True):
        alone: Any = sessions[QUERY_TOWER].infer(stack([one]))["query_vector"][0]
        assert output["query_vector"].shape == (8,)
        assert np.abs(output["query_vector"] - alone).max() <= 1e-6
    backend.close(wait_s=30)  # a run is told once it was answered
    assert sum(sizes) == 100
    assert max(sizes) <= 8
    assert len(sizes) < 100  # some of them did share a run


async def test_waiting_requests_are_taken_in_order_and_given_up_ones_are_not(
    sessions: dict[str, Session],
) -> None:
    blocked = Blocked(sessions[QUERY_TOWER])
    backend = EmbeddedBackend({**sessions, QUERY_TOWER: blocked})
    numbered = [encoded(1) | {"cart_items": np.full(32, 2 + n)} for n in range(20)]
    tasks = [asyncio.create_task(backend.run(QUERY_TOWER, one)) for one in numbered]
    await asyncio.sleep(0)  # all of them stand in the queue now
    tasks[7].cancel()
    await asyncio.sleep(0)
    blocked.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    order = [number - 2 for batch in blocked.seen for number in batch]
    assert order == [n for n in range(20) if n != 7]
    assert isinstance(answers[7], asyncio.CancelledError)
    backend.close()


async def test_models_take_turns_by_the_age_of_their_oldest_request(
    sessions: dict[str, Session],
) -> None:
    blocked, order = Blocked(sessions[QUERY_TOWER]), list[str]()
    backend = EmbeddedBackend(
        {**sessions, QUERY_TOWER: blocked}, lambda model, _: order.append(model), max_batch=1
    )
    pairs: Encoded = {"pair_features": np.zeros((MAX_CANDIDATES, len(PAIR_FEATURES)), np.float32)}
    wanted = [QUERY_TOWER, RANKER, SEQUENCE_ENCODER, QUERY_TOWER, SEQUENCE_ENCODER, RANKER]
    tasks = [
        asyncio.create_task(backend.run(model, pairs if model == RANKER else encoded(1)))
        for model in wanted
    ]
    await asyncio.sleep(0)
    blocked.go.set()
    await asyncio.gather(*tasks)
    backend.close(wait_s=5)
    assert order == wanted


async def test_one_bad_request_does_not_fail_its_neighbours(
    sessions: dict[str, Session],
) -> None:
    blocked = Blocked(sessions[QUERY_TOWER])
    backend = EmbeddedBackend({**sessions, QUERY_TOWER: blocked})
    inputs = [encoded(n) for n in range(6)]
    inputs[3] = inputs[3] | {"cart_items": np.full(32, 10**6)}  # outside the table
    tasks = [asyncio.create_task(backend.run(QUERY_TOWER, one)) for one in inputs]
    await asyncio.sleep(0)
    blocked.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, InferenceFailed) for one in answers] == [n == 3 for n in range(6)]
    backend.close()


async def test_an_answer_that_is_no_number_fails_alone(sessions: dict[str, Session]) -> None:
    backend = EmbeddedBackend(sessions)
    rows = [np.zeros((MAX_CANDIDATES, len(PAIR_FEATURES)), np.float32) for _ in range(3)]
    rows[1][5, 0] = np.nan
    for found in (
        backend.infer(RANKER, [{"pair_features": row} for row in rows]),
        backend.infer_batch(RANKER, {"pair_features": np.array(rows)}),
    ):
        assert [isinstance(one, InferenceFailed) for one in found] == [False, True, False]
    backend.close()
    assert isinstance(backend.infer_batch(RANKER, {"pair_features": rows[0][None]})[0], Exception)


async def test_failures_come_out_as_inference_failed(sessions: dict[str, Session]) -> None:
    broken = session(QUERY_TOWER, failing(QUERY_TOWER, 8), 8)
    backend = EmbeddedBackend({**sessions, QUERY_TOWER: broken})
    with pytest.raises(InferenceFailed):
        await backend.run(QUERY_TOWER, encoded(1))
    with pytest.raises(InferenceFailed):
        await backend.run("no such model", encoded(1))
    with pytest.raises(InferenceFailed):
        await backend.run(RANKER, {})  # its input is missing
    # and the thread lives on
    pairs = np.zeros((MAX_CANDIDATES, len(PAIR_FEATURES)), np.float32)
    scores = await backend.run(RANKER, {"pair_features": pairs})
    assert scores["scores"].shape == (256,)
    backend.close()


async def test_close_fails_what_still_waits(sessions: dict[str, Session]) -> None:
    blocked = Blocked(sessions[QUERY_TOWER])
    backend = EmbeddedBackend({**sessions, QUERY_TOWER: blocked}, max_batch=1)
    tasks = [asyncio.create_task(backend.run(QUERY_TOWER, encoded(n))) for n in range(3)]
    await asyncio.sleep(0)
    backend.close()
    blocked.go.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(one, InferenceFailed) for one in answers) >= 2
    with pytest.raises(InferenceFailed):
        await backend.run(QUERY_TOWER, encoded(1))


def test_finite() -> None:
    assert finite({"scores": np.ones(3)}, "scores").tolist() == [1, 1, 1]
    with pytest.raises(InferenceFailed):
        finite({"scores": np.array([1.0, np.inf])}, "scores")

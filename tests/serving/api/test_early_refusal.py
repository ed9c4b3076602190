"""What can not be served in time is refused before anything is done for it, to known callers."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.api.arrivals import arrival_of, patient, ready_of, waiting_beside
from serving.api.known_callers import KnownCallers
from serving.commands.port import bind
from serving.decision.admission import Admission, Overloaded
from serving.state.callers_file import CallersFile
from serving.state.control_records import ApiKey
from serving.state.secrets import Secrets
from tests.serving.api.test_auth import page_token
from tests.serving.conftest import NOON, Start

DECIDE = "/v1/checkout/decide"


async def test_a_refusal_does_not_look_at_the_body(start: Start) -> None:
    running = await start(max_full_decisions=1, max_total_decisions=1)
    assert (await running.decide()).status_code == 200  # the key is known from here on
    headers = running.bearer() | {"Content-Type": "application/json"}
    with running.gateway.decider.admission.enter():
        refused = await running.client.post(DECIDE, content=b"{not json", headers=headers)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["title"] == "Too many requests"
    assert (await running.client.post(DECIDE, content=b"{", headers=headers)).status_code == 400
    said = (await running.client.get("/metrics")).text
    assert "tillwise_decisions_rejected_total 1.0" in said


async def test_strangers_are_not_told_that_there_is_no_room(start: Start) -> None:
    running = await start(max_full_decisions=1, max_total_decisions=1)
    unknown = {"Authorization": f"Bearer tw_checkout_{'a' * 43}"}
    with running.gateway.decider.admission.enter():
        for headers in ({}, unknown, {"Authorization": "Bearer nonsense"}):
            assert (await running.client.post(DECIDE, json={}, headers=headers)).status_code == 401


def test_a_pause_of_the_machine_refuses_nobody_who_can_still_be_answered() -> None:
    admission = Admission(max_full=2, max_total=4)
    admission.note_wait(5.0, 100.0)
    assert not admission.is_behind(5.0, 100.0)  # there is room
    places = [admission.enter(), admission.enter()]
    assert not admission.is_behind(0.015, 100.0)  # cheaper rungs are still to be had in time
    assert admission.is_behind(0.05, 100.0)
    places += [admission.enter(), admission.enter()]
    assert admission.is_behind(0.0, 100.0)
    for place in places:
        place.drop()
    assert not admission.is_behind(0.05, 100.0)


def late_for(admission: Admission, seconds: float, waited_s: float, until: float) -> None:
    """Requests that waited so long, one every 20 ms."""
    for step in range(round(seconds / 0.02), -1, -1):
        admission.note_wait(waited_s, until - step * 0.02)


def test_few_that_are_late_on_and_on_get_cheaper_rungs() -> None:
    admission = Admission(max_full=16, max_total=64)
    late_for(admission, 1.0, 0.03, 10.0)
    places = [admission.enter(full=not admission.keeps_late(10.0)) for _ in range(4)]
    assert [place.full for place in places] == [False] * 4
    assert not admission.is_behind(0.03, 10.0)
    assert not admission.is_behind(0.03, 10.0, waiting=3)
    assert admission.is_behind(0.06, 10.0)  # as good as over
    assert not admission.keeps_late(10.2)  # nobody waited for a while: it is over


def test_a_backlog_that_is_late_on_and_on_is_refused() -> None:
    admission = Admission(max_full=16, max_total=64)
    late_for(admission, 0.04, 0.03, 10.0)
    assert not admission.is_behind(0.03, 10.0, waiting=20)  # still the same pause
    late_for(admission, 0.2, 0.03, 10.1)
    assert admission.is_behind(0.03, 10.1, waiting=20)
    assert not admission.is_behind(0.005, 10.1, waiting=20)  # the first of the next turn
    admission.note_wait(0.02, 10.14)  # which does not end the overload
    assert admission.is_behind(0.02, 10.14, waiting=20)
    places = [admission.enter() for _ in range(8)]  # they need not be waiting
    assert admission.is_behind(0.02, 10.14)
    assert len(places) == 8


class Ticking:
    """A clock that stands still until it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def answered(admission: Admission, clock: Ticking, number: int, each_s: float) -> None:
    """So many cheaper answers at once, one after the other."""
    for place in [admission.enter(full=False) for _ in range(number)]:
        clock.now += each_s
        place.drop()


def test_cheaper_answers_are_let_in_by_what_they_take() -> None:
    clock = Ticking()
    admission = Admission(max_full=0, max_total=64, clock=clock)
    for _ in range(20):
        answered(admission, clock, 10, 0.001)
    places = [admission.enter(full=False) for _ in range(25)]  # a quarter of 100 ms, 1 ms each
    assert not admission.is_behind(0.0, clock.now)
    with pytest.raises(Overloaded):
        places += [admission.enter(full=False) for _ in range(10)]
    assert admission.is_behind(0.0, clock.now)


def test_slow_ones_leave_room_for_fewer_and_few_are_never_refused() -> None:
    clock = Ticking()
    admission = Admission(max_full=0, max_total=64, clock=clock)
    for _ in range(20):
        answered(admission, clock, 3, 0.005)
    held = [admission.enter(full=False) for _ in range(5)]
    with pytest.raises(Overloaded):
        admission.enter(full=False, spent_s=0.01)
    for place in held:
        place.drop()
    hung = admission.enter(full=False)
    clock.now += 3_600.0
    hung.drop()  # says how long it hung, not what an answer takes
    assert [admission.enter(full=False).full for _ in range(5)] == [False] * 5


def test_patience_follows_the_usual_deadline() -> None:
    admission = Admission(max_full=16, max_total=64)
    for _ in range(50):
        admission.note_deadline(500)
    late_for(admission, 1.0, 0.04, 10.0)
    assert not admission.keeps_late(10.0)
    late_for(admission, 1.0, 0.06, 20.0)
    assert admission.keeps_late(20.0)
    assert not admission.is_behind(0.2, 20.0, waiting=3)
    assert admission.is_behind(0.3, 20.0)
    for _ in range(50):
        admission.note_deadline(100)
    assert admission.is_behind(0.06, 20.0)


async def test_strangers_do_not_make_a_gateway_late(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await start()
    admission = running.gateway.decider.admission
    monkeypatch.setattr("serving.api.decide.ready_of", lambda _: time.perf_counter() - 0.3)
    unknown = {"Authorization": f"Bearer tw_checkout_{'a' * 43}"}
    began = time.perf_counter()
    while time.perf_counter() - began < 0.3:
        for headers in ({}, unknown, {"Authorization": "Bearer a.b.c"}):
            answer = await running.client.post(DECIDE, json={}, headers=headers)
            assert answer.status_code == 401
    assert not admission.keeps_late(time.perf_counter())
    assert (await running.decide()).json()["rung"] == "full"
    while not admission.keeps_late(time.perf_counter()):  # that key is known from here on
        answer = await running.decide()
    assert answer.status_code in (200, 429)


async def test_page_tokens_are_refused_early_too(start: Start) -> None:
    running = await start(max_full_decisions=1, max_total_decisions=1)
    token = page_token(running, life=timedelta(minutes=1))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    async def sent(body: bytes) -> int:
        return (await running.client.post(DECIDE, content=body, headers=headers)).status_code

    with running.gateway.decider.admission.enter():
        assert await sent(b"{") == 400  # never seen before
    assert await sent(b"{") == 400
    with running.gateway.decider.admission.enter():
        assert await sent(b"{") == 429
        forged = token[:-4] + "AAAA"
        answer = await running.client.post(DECIDE, headers={"Authorization": f"Bearer {forged}"})
        assert answer.status_code == 401
        running.clock.at += timedelta(minutes=1)
        assert await sent(b"{") == 401


def test_tokens_are_remembered_in_bounds_and_end_with_their_key() -> None:
    known = KnownCallers(most_tokens=2)
    key = ApiKey("k", "checkout", NOON, None, b"")
    known.learn(key, "secret")
    for token in ("a", "b", "a", "c"):
        known.learn_token(token, "k", 10.0)
    assert [known.knows_token(one, 9.0) for one in "abc"] == [True, False, True]
    assert not known.knows_token("c", 10.0)
    known.forget(digest="unknown")
    assert known.by_digest("secret") is key
    known.forget(key_id="k")
    assert known.by_digest("secret") is None
    assert known.by_id("k") is None
    assert not known.knows_token("a", 9.0)


def test_callers_outlive_the_process_that_met_them(tmp_path: Path) -> None:
    secrets = Secrets((bytes(32),))
    file = CallersFile(tmp_path / "callers", secrets)
    kept, gone, by_token = (ApiKey(one, "checkout", NOON, None, b"sealed") for one in "kgt")
    before = KnownCallers(file=file)
    before.learn(kept, "digest-k")
    before.learn(gone, "digest-g")
    before.learn(by_token)
    before.check(1, lambda key_id: None if key_id == "g" else kept)
    after = KnownCallers(file=file)
    assert after.by_digest("digest-k") == kept
    assert after.by_id("t") == by_token
    assert after.by_digest("digest-g") is None
    assert after.by_id("g") is None
    assert b"digest-k" not in file.path.read_bytes()
    # Whoever may write there, but has not the master key, adds nobody.
    assert KnownCallers(file=CallersFile(file.path, Secrets((b"1" * 32,)))).by_id("k") is None
    file.path.write_bytes(file.path.read_bytes()[:-1])
    assert KnownCallers(file=file).by_id("k") is None


def test_callers_are_looked_for_again_when_the_store_has_changed() -> None:
    known, asked = KnownCallers(), []
    known.learn(ApiKey("k", "checkout", NOON, None, b""))

    def in_force(key_id: str) -> None:
        asked.append(key_id)

    known.check(7, in_force)
    known.learn(ApiKey("l", "checkout", NOON, None, b""))
    known.check(7, in_force)
    assert asked == ["k"]
    assert known.by_id("k") is None


@asynccontextmanager
async def listening(app: ASGIApp, arrival_s: float = 20.0) -> AsyncIterator[int]:
    """A server of `app`; its port."""
    taken = bind("127.0.0.1", 0)
    config = uvicorn.Config(app, http=patient(arrival_s), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[taken]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield taken.getsockname()[1]
    server.should_exit = True
    await serving
    taken.close()


class Watching:
    """An application that notes, of every request, how long it waited, how long it is there, and
    how many others wait; it answers after `pause`, or keeps the loop busy for `busy_s`."""

    def __init__(self, busy_s: float = 0.0, pause_s: float = 0.0) -> None:
        self.seen: list[tuple[float, float, int]] = []
        self._busy_s, self._pause_s = busy_s, pause_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = time.perf_counter()
        self.seen.append((now - ready_of(scope), now - arrival_of(scope), waiting_beside(scope)))
        time.sleep(self._busy_s)  # what nothing in the gateway may do
        await asyncio.sleep(self._pause_s)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def see(self, number: int) -> None:
        while len(self.seen) < number:
            await asyncio.sleep(0.01)


async def test_the_wait_for_the_loop_is_seen() -> None:
    """The first request keeps the loop busy; those read meanwhile know how long."""
    app = Watching(busy_s=0.05)
    async with listening(app) as port:
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(6)]
        for writer in writers:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.see(6)
        for writer in writers:
            writer.close()
    assert max(waited for waited, _, _ in app.seen) >= 0.05
    assert max(others for _, _, others in app.seen) >= 1
    assert app.seen[-1][2] == 0
    assert arrival_of({"type": "http"}) <= time.perf_counter()
    assert waiting_beside({"type": "http", "path": "/"}) == 0


async def test_what_a_caller_takes_its_time_with_is_no_wait() -> None:
    app = Watching(pause_s=0.2)
    async with listening(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        await asyncio.sleep(0.2)
        writer.write(b"\r\n")
        await app.see(1)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # behind the first one's answer
        await app.see(2)
        writer.close()
    for waited, there, others in app.seen:
        assert waited < 0.1
        assert there >= 0.15
        assert others == 0


async def test_refusals_are_not_logged_one_by_one(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.requests")
    running = await start(max_full_decisions=1, max_total_decisions=1)
    await running.decide()
    with running.gateway.decider.admission.enter():
        answer = await running.decide()
    assert answer.status_code == 429
    assert (await running.client.post(DECIDE, json={})).status_code == 401
    logged = [one for one in caplog.records if one.name == "serving.requests"]
    assert [one.fields["status"] for one in logged] == [401]  # type: ignore[attr-defined]

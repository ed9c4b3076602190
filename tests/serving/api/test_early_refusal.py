"""What can not be served in time is refused before anything is done for it, to known callers."""

import asyncio
import logging
import time

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.api.arrivals import StampingProtocol, arrival_of
from serving.commands.process import bind
from serving.decision.admission import Admission
from tests.serving.conftest import Start

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


def test_late_and_crowded_together_make_a_refusal() -> None:
    admission = Admission(max_full=2, max_total=4)
    assert not admission.is_behind(5.0, 100.0)  # a pause of the machine; there is room
    places = [admission.enter(), admission.enter()]
    assert admission.is_behind(0.05, 200.0)
    assert not admission.is_behind(0.001, 200.0)  # cheaper rungs are still to be had in time
    places += [admission.enter(), admission.enter()]
    assert admission.is_behind(0.0, 200.0)
    for place in places:
        place.drop()
    assert not admission.is_behind(0.05, 300.0)


def test_waiting_on_and_on_is_no_pause() -> None:
    admission = Admission(max_full=2, max_total=4)
    assert not admission.is_behind(0.05, 10.00)
    assert not admission.is_behind(0.05, 10.08)  # still the same pause
    assert admission.is_behind(0.05, 10.15)
    assert not admission.is_behind(0.005, 10.16)  # the first of the next turn is let in
    assert admission.is_behind(0.02, 10.18)  # which does not end the overload
    assert not admission.is_behind(0.02, 10.40)  # nobody waited for a while: it is over


async def test_the_wait_for_the_loop_is_seen() -> None:
    """The first request keeps the loop busy; the second one, read meanwhile, knows how long."""
    waits: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waits.append(time.perf_counter() - arrival_of(scope))
        time.sleep(0.05)  # what nothing in the gateway may do
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    config = uvicorn.Config(app, http=StampingProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(6)]
    for writer in writers:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    while len(waits) < 6:
        await asyncio.sleep(0.01)
    for writer in writers:
        writer.close()
    server.should_exit = True
    await serving
    listening.close()
    assert max(waits) >= 0.05
    assert arrival_of({"type": "http"}) <= time.perf_counter()


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

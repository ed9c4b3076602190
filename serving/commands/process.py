"""The serving process: take the port first, then load everything, then serve until a signal."""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
import uvloop

from contract.clock import Clock
from contract.errors import UserError
from serving.api.arrivals import patient
from serving.api.gateway import Gateway
from serving.app import create_app
from serving.commands.port import bind
from serving.opening import open_gateway
from serving.settings import Settings
from serving.state.state_folder import StateFolder

Application = Any
# What to do once the server answers; the server ends after it when it returns True.
WhenReady = Callable[[Gateway], Awaitable[bool]]


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal after all."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    settings: Settings,
    clock: Clock,
    *,
    release_id: str | None = None,
    extend: Callable[[Application, Gateway], Awaitable[None]] | None = None,
    when_ready: WhenReady | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; running requests finish, the log and a snapshot are written.

    `extend` may add to the application before it starts. Raises UserError before it listens, or
    where not everything could be finished at the end.
    """
    listening = bind(settings.host, settings.port)
    with (
        listening,
        StateFolder(settings.state),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(settings, clock, listening, release_id, extend, when_ready))


async def _serve(
    settings: Settings,
    clock: Clock,
    listening: socket.socket,
    release_id: str | None,
    extend: Callable[[Application, Gateway], Awaitable[None]] | None,
    when_ready: WhenReady | None,
) -> None:
    gateway = await open_gateway(settings, clock, release_id)
    app = create_app(gateway, follow_pointer=release_id is None)
    if extend is not None:
        await extend(app, gateway)
    server = _Server(
        uvicorn.Config(
            app,
            http=patient(settings.arrival_seconds),
            ws="none",  # no route speaks it, and uvicorn would hand it our connections
            log_config=None,
            access_log=False,
            server_header=False,
            forwarded_allow_ips=list(settings.trusted_proxies),
            lifespan="on",
            timeout_graceful_shutdown=settings.shutdown_seconds,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.handle_exit, number, None)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    if when_ready is not None:
        await _started(server, serving)
        if await when_ready(gateway):
            server.should_exit = True
    await serving
    if gateway.left_undone:
        raise UserError(f"not everything could be finished: {', '.join(gateway.left_undone)}")


async def _started(server: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)

"""When a request arrived, and when its turn could have come. Under load the event loop reads many
requests at once and then answers them one by one; without these stamps the wait in between would
belong to nobody. The time a caller takes to send its headers is its own, not that of the loop.

It may not take for ever: a request that has not arrived whole in time is refused, and a connection
that is never used is closed. uvicorn itself limits only the time between two requests.

The protocol also stays HTTP/1.1 whatever a request offers to upgrade to, which RFC 9110 (7.8)
leaves to the server: Java's HttpClient, for one, offers h2c with every first request.
"""

from asyncio import BaseTransport, TimerHandle
from collections import Counter
from time import perf_counter
from typing import Any

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from serving.api.one_write import WHOLE, OneWrite, sends_whole

_ARRIVED = "tillwise.arrived"
_PATIENCE = "tillwise.patience"
_READY = "tillwise.ready"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_WAITING = "tillwise.waiting"  # by path: how many were read whose turn has not come


class StampingProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also notes when each request was first seen and when it was handed
    to the loop, and ignores offers to upgrade."""

    arrival_s = 20.0  # for a request to arrive whole
    _again = False  # the head of a request is read a second time, without its offer
    _head_done = _whole = True  # of the request that is arriving, or of the last one
    _patience: TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self.send_400_response("Invalid HTTP request received.")
        # Between two requests as well: blank lines are no request, and end uvicorn's own wait.
        if self._patience is None and not (self._whole and self._answering()):
            self._wait()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._patience = self.loop.call_later(self.arrival_s, self._out_of_patience)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _out_of_patience(self) -> None:
        self._patience = None
        if self.transport.is_closing():
            return
        if self._answering():
            # Who reads a body limits it as well and answers 408; this is for a body that nobody
            # reads, and for what comes behind a request whose answer is still to be written.
            self._wait()
            return
        if not self._head_done:
            self.transport.write(_TOO_SLOW)
        self.transport.close()

    def _feed(self, data: bytes) -> bytes:
        """Read `data` up to the end of a head that offers to upgrade; what is to be read next."""
        try:
            self.parser.feed_data(data)
            return b""
        except httptools.HttpParserUpgrade as upgrade:
            if self.parser.get_method() == b"CONNECT":  # no offer, and we are no proxy
                raise httptools.HttpParserError("CONNECT") from None
            # The parser takes everything after such a head for another protocol. So does no server
            # that declines: a new parser gets the same head without the offer, and then the rest.
            head = self._head()
            rest = data[upgrade.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._again = True
        self.parser.feed_data(head)
        return rest

    def _head(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        arrived = self.scope["state"][_ARRIVED] if self._again else perf_counter()
        self._again = self._head_done = self._whole = False
        super().on_message_begin()
        self.scope["state"][_ARRIVED] = arrived
        self.scope["state"][_PATIENCE] = self.arrival_s

    def on_headers_complete(self) -> None:
        self._head_done = True
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._whole = True
            self._stop_waiting()
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        # Here and not when the headers are complete: what was sent behind another request on the
        # same connection waits for its answer, however idle the loop is.
        path = cycle.scope["path"]
        waiting: Counter[str] = self.app_state.setdefault(_WAITING, Counter())
        waiting[path] += 1
        state = cycle.scope["state"]
        state[_READY], state[_WAITING] = perf_counter(), waiting
        if cycle.scope["method"] != "HEAD":  # that has no body to wait for
            state[WHOLE] = True
            cycle.transport = OneWrite(cycle)

        async def begin(scope: Scope, receive: Receive, send: Send) -> None:
            waiting[path] -= 1
            if not waiting[path]:
                del waiting[path]
            if not cycle.more_body:  # nobody has to limit how long it takes to arrive
                scope["state"][_PATIENCE] = None
            await app(scope, receive, sends_whole(cycle))

        super()._start_asgi_task(cycle, begin)  # type: ignore[arg-type]


def patient(arrival_s: float) -> type[StampingProtocol]:
    """The protocol, with so many seconds for each request to arrive."""

    class Patient(StampingProtocol):
        pass

    Patient.arrival_s = arrival_s
    return Patient


def arrival_of(scope: Scope) -> float:
    """The perf_counter at which the request of `scope` was first seen; now, where its server does
    not say."""
    return _stamp(scope, _ARRIVED)


def ready_of(scope: Scope) -> float:
    """The perf_counter from which on it waited for nothing but its turn; now, where its server
    does not say."""
    return _stamp(scope, _READY)


def patience_of(scope: Scope) -> float | None:
    """How many seconds the body of `scope` may take; None where its server sets no limit, or had
    all of it before its turn came."""
    seconds: float | None = scope.get("state", {}).get(_PATIENCE)
    return seconds


def waiting_beside(scope: Scope) -> int:
    """How many requests with the path of `scope` have been read whose turn has not come."""
    waiting = scope.get("state", {}).get(_WAITING)
    return 0 if waiting is None else int(waiting[scope["path"]])


def _stamp(scope: Scope, name: str) -> float:
    at: Any = scope.get("state", {}).get(name)
    return at if isinstance(at, float) else perf_counter()

"""The process beside the gateway: it reads the event log and keeps what is made of it, duty by duty
in one thread, so that nothing of it takes the gateway's time. What fails is logged, counted and
tried again when it is due next; what was done is in the duties' own files, so it may be killed at
any moment."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Thread
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, make_wsgi_app

from contract.errors import UserError

log = logging.getLogger(__name__)

LOCK: Final = "worker.lock"  # in the state folder: one worker at a time writes its files
_LATE_ROUNDS, _LATE_S = 5, 120.0  # overdue by so much it is not well


@dataclass
class Duty:
    """Something to do every `every_s` seconds, with how it goes."""

    name: str
    every_s: float
    act: Callable[[], object]
    due: float = 0.0  # by time.monotonic; at once
    done_at: float = field(default_factory=time.monotonic)  # when it last went well

    @property
    def overdue(self) -> bool:
        """Whether it has not gone well for so long that a person, or a restart, is needed."""
        return time.monotonic() - self.done_at > max(_LATE_ROUNDS * self.every_s, _LATE_S)


class Worker:
    """Does its duties until `stop` is set."""

    def __init__(self, duties: Sequence[Duty], registry: CollectorRegistry, stop: Flag) -> None:
        self._duties = tuple(duties)
        self._stop = stop
        self.registry = registry
        labels = ["duty"]
        self._failed = Counter(
            "tillwise_worker_failures", "Duties that failed", labels, registry=registry
        )
        self._seconds = Gauge(
            "tillwise_worker_seconds", "How long a duty took last", labels, registry=registry
        )
        self._well_at = Gauge(
            *("tillwise_worker_last_success_timestamp_seconds", "When it last went well", labels),
            registry=registry,
        )
        for duty in self._duties:
            self._failed.labels(duty.name)

    @property
    def overdue(self) -> list[str]:
        """The duties that are not done as they should be."""
        return [duty.name for duty in self._duties if duty.overdue]

    def run(self) -> None:
        """Until it is told to stop; a duty under way is finished."""
        while not self._stop.is_set():
            for duty in self._duties:
                if duty.due <= time.monotonic() and not self._stop.is_set():
                    self.do(duty)
            wait = min(duty.due for duty in self._duties) - time.monotonic()
            self._stop.wait(max(wait, 0.01))

    def do(self, duty: Duty) -> None:
        """One duty, once."""
        began = time.monotonic()
        try:
            duty.act()
        except Exception as error:  # must not end: the others are still to be done
            self._failed.labels(duty.name).inc()
            log.exception("%s failed: %s", duty.name, type(error).__name__)
        else:
            duty.done_at = time.monotonic()
            self._well_at.labels(duty.name).set(time.time())
        spent = time.monotonic() - began
        self._seconds.labels(duty.name).set(spent)
        duty.due = time.monotonic() + duty.every_s


class StatusServer:
    """`/metrics` for Prometheus and `/healthz` for whoever restarts it, on a thread of its own."""

    def __init__(self, worker: Worker, host: str, port: int) -> None:
        """Raises UserError where the port can not be had."""
        metrics = make_wsgi_app(worker.registry)

        def answer(environ: dict[str, Any], start: Any) -> Any:
            if environ.get("PATH_INFO") == "/metrics":
                return metrics(environ, start)
            if environ.get("PATH_INFO") != "/healthz":
                start("404 Not Found", [("Content-Type", "text/plain")])
                return [b"/metrics and /healthz\n"]
            overdue = worker.overdue
            status = "503 Service Unavailable" if overdue else "200 OK"
            start(status, [("Content-Type", "text/plain")])
            return [f"overdue: {', '.join(overdue)}\n".encode() if overdue else b"ok\n"]

        try:
            self._server = make_server(host, port, answer, WSGIServer, _Quiet)
        except OSError as error:
            raise UserError(f"{host}:{port} can not be listened on: {error.strerror}") from None
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: probes come every few seconds."""

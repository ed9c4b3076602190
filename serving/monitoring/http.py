"""Counters of what passes over HTTP, and the log in which the process speaks: JSON lines, without
a raw id anywhere because request paths are named by their route."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import IO

from prometheus_client import CollectorRegistry, Counter

from serving.monitoring.tally import Counts, Tally

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class HttpMetrics:
    """The metrics of one gateway process, in `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counts(
            *("tillwise_http_requests", "Requests answered", ("method", "route", "status")),
            *((), registry),
        )
        self._seconds = Tally(
            *("tillwise_http_request_seconds", "Time to answer", "route", (), _BUCKETS, registry)
        )
        self.events = Counter(
            "tillwise_events",
            "Events received, by what became of them",
            ["outcome"],
            registry=registry,
        )
        self.unlinked = Counter(
            "tillwise_decisions_without_analytics",
            "Decisions of which nothing but this number was kept",
            registry=registry,
        )
        self.identity_degraded = Counter(
            "tillwise_identity_degraded",
            "Decisions for which the control store was late or failing",
            registry=registry,
        )

    def observe(self, method: str, route: str | None, status: int, seconds: float) -> None:
        """Count one answer; label values are bounded, whatever a caller sends."""
        route = route or "unmatched"
        if route not in self._seconds:
            self._seconds.announce(route)
        self._requests.add(method if method in _METHODS else "other", route, str(status))
        self._seconds.observe(route, seconds)


class JsonLines(logging.Formatter):
    """One JSON object a line; `extra` fields given as `fields` join it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = _frames(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True, default=str)


def _frames(error: BaseException | None) -> str:
    """Where an error came from and its kind, without its text: that may quote a request."""
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"


def configure_logging(level: str, stream: IO[str] = sys.stderr) -> None:
    """Send the process's log to `stream` as JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # five lines a start

"""A trace per decision with a span per stage, through OpenTelemetry; off unless asked for, and then
its SDK is not even imported. Spans carry no id of a visitor, a user, a session or an item, and no
exception messages, which could quote what a caller sent."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

Attributes = Mapping[str, str | int | float | bool]


class Span(Protocol):
    """What can be said about a piece of work while it runs."""

    def set_attributes(self, attributes: Attributes) -> None:
        """Describe it."""
        ...


class _NoSpan:
    def set_attributes(self, attributes: Attributes) -> None:
        return None


class Tracing:
    """Makes spans, or does nothing when made without a provider."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("tillwise") if provider is not None else None
        self._off: AbstractContextManager[Span] = nullcontext(_NoSpan())

    @property
    def on(self) -> bool:
        """Whether spans go anywhere."""
        return self._tracer is not None

    def span(self, name: str) -> AbstractContextManager[Span]:
        """A span around a block; spans opened within it are its children."""
        return self._off if self._tracer is None else self._started(name)

    def past(self, name: str, began: float, ended: float, wrong: str | None) -> None:
        """A span between two perf_counters that lie behind; `wrong` names the exception that
        ended it."""
        if self._tracer is None:
            return
        from opentelemetry.trace import Status, StatusCode

        start_ns = time.time_ns() - round((time.perf_counter() - began) * 1e9)
        span = self._tracer.start_span(name, start_time=start_ns)
        if wrong is not None:
            span.set_attribute("error.type", wrong)
            span.set_status(Status(StatusCode.ERROR))
        span.end(start_ns + round((ended - began) * 1e9))

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()

    @contextmanager
    def _started(self, name: str) -> Iterator[Span]:
        from opentelemetry.trace import Status, StatusCode

        assert self._tracer is not None
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise


def open_tracing(endpoint: str | None = None, *, exporter: "SpanExporter | None" = None) -> Tracing:
    """Tracing to an OTLP/HTTP `endpoint` (the whole URL, usually ending in /v1/traces) or into
    `exporter`; with neither it is off."""
    if endpoint is None and exporter is None:
        return Tracing()
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "tillwise"}))
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
    return Tracing(provider)

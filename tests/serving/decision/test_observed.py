"""Metrics and traces tell what happened, in bounded words and without ids."""

import asyncio
import gzip
import subprocess
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from contract.features import SubjectState
from contract.manifest import RANKER
from serving.decision.decide import Decider
from serving.inference.release import Release
from serving.inference.releases import LiveRelease
from serving.monitoring.decisions import DecisionMetrics
from serving.monitoring.tracing import open_tracing
from serving.state.feature_store import MemoryFeatureStore
from tests.serving.decision.setting import (
    CLOCK,
    KNOWN,
    SIGNER,
    Forbidden,
    deciding,
    known,
    nobody,
    request,
    with_models,
)
from tests.serving.inference.broken_models import failing
from tests.serving.release_factory import Factory


async def test_metrics_count_rungs_stages_and_batches(
    release: Release, factory: Factory, store: MemoryFeatureStore
) -> None:
    metrics = DecisionMetrics(CollectorRegistry())
    with deciding(
        with_models(release, factory, {RANKER: failing(RANKER, 8)}), store, metrics=metrics
    ) as decider:
        for _ in range(3):
            await decider.decide(request("item-1"), known())
    value = metrics.registry.get_sample_value
    assert value("tillwise_decisions_total", {"rung": "no_ranker"}) == 3
    assert value("tillwise_decisions_total", {"rung": "full"}) == 0
    assert value("tillwise_degraded_stages_total", {"stage": "ranker"}) == 3
    assert value("tillwise_stage_seconds_count", {"stage": "retrieval"}) == 3
    assert value("tillwise_decision_seconds_count") == 3


async def test_a_loaded_release_reports_its_batches(factory: Factory) -> None:
    metrics = DecisionMetrics(CollectorRegistry())
    live = LiveRelease(factory.releases_dir, factory.models_dir, on_batch=metrics.batch)
    await live.load_or_keep("tiny-1")
    with deciding(live.current, Forbidden(), metrics=metrics) as decider:
        await asyncio.gather(*(decider.decide(request("item-1"), nobody()) for _ in range(4)))
    total = metrics.registry.get_sample_value(
        "tillwise_inference_batch_size_sum", {"model": "query_tower"}
    )
    assert total == 4
    live.close()


def test_label_values_are_bounded() -> None:
    metrics = DecisionMetrics(CollectorRegistry())
    lines = generate_latest(metrics.registry).count(b"\n")
    metrics.stages({"raw-visitor": 100.0})
    metrics.batch("raw-visitor", 3)
    metrics.decided("full", 0.1, ["raw-visitor"])
    text = generate_latest(metrics.registry)
    assert b"raw-visitor" not in text
    assert text.count(b"\n") == lines


async def test_a_trace_per_decision_with_a_span_per_stage(
    release: Release, factory: Factory, store: MemoryFeatureStore
) -> None:
    exporter = InMemorySpanExporter()
    tracing = open_tracing(exporter=exporter)
    broken = with_models(release, factory, {RANKER: failing(RANKER, 8)})
    with deciding(broken, store, tracing=tracing) as decider:
        asked = request("item-1", search_terms=["private words"], recent_items=["item-3"])
        await decider.decide(asked, known())
    spans = exporter.get_finished_spans()
    root = next(span for span in spans if span.name == "decision")
    names = {span.name for span in spans}
    assert {"features", "encode", "query_tower", "retrieval", "ranker", "reasons"} <= names
    assert root.context is not None
    assert all(
        span.parent is not None and span.parent.span_id == root.context.span_id
        for span in spans
        if span is not root
    )
    assert root.attributes is not None
    assert root.attributes["tillwise.rung"] == "no_ranker"
    assert root.attributes["tillwise.degraded"] == "ranker"
    failed = next(span for span in spans if span.name == "ranker")
    assert failed.attributes == {"error.type": "InferenceFailed"}
    said = " ".join(span.to_json() for span in spans)
    for word in ("raw-visitor", "raw-user", "session-1", KNOWN, "item-", "private words"):
        assert word not in said
    tracing.close()


async def test_a_span_of_a_failure_does_not_quote_it(release: Release) -> None:
    class Quoting:
        async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
            raise ConnectionError(f"no answer about {subject_ids} raw-visitor")

    exporter = InMemorySpanExporter()
    tracing = open_tracing(exporter=exporter)
    with deciding(release, Quoting(), tracing=tracing) as decider:
        await decider.decide(request("item-1"), known())
    span = next(one for one in exporter.get_finished_spans() if one.name == "features")
    assert span.attributes == {"error.type": "ConnectionError"}
    assert not span.events
    assert KNOWN not in span.to_json()
    tracing.close()


class Collector(BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    def do_POST(self) -> None:
        self.server.received.append(  # type: ignore[attr-defined]
            (self.path, self.rfile.read(int(self.headers["Content-Length"])))
        )
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return None


async def test_traces_reach_a_collector(release: Release) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    received: list[tuple[str, bytes]] = []
    server.received = received  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    tracing = open_tracing(f"http://127.0.0.1:{server.server_port}/v1/traces")
    with deciding(release, Forbidden(), tracing=tracing) as decider:
        await decider.decide(request("item-1"), nobody())
    await asyncio.to_thread(tracing.close)
    await asyncio.to_thread(server.shutdown)
    server.server_close()
    assert {path for path, _ in received} == {"/v1/traces"}
    body = b"".join(gzip.decompress(one) if one[:2] == b"\x1f\x8b" else one for _, one in received)
    assert b"retrieval" in body
    assert b"tillwise" in body
    assert b"raw-visitor" not in body


def test_off_means_not_even_imported() -> None:
    tracing = open_tracing()
    assert not tracing.on
    with tracing.span("decision") as span:
        span.set_attributes({"tillwise.rung": "full"})
    code = (
        "import sys, serving.decision.decide, serving.monitoring.tracing as t; t.open_tracing();"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'torch'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0)


async def test_a_decision_ends_with_the_release_that_it_began_with(
    factory: Factory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Factory(tmp_path_factory.mktemp("swap"))
    other.write("tiny-1")
    other.write("tiny-2", version=2)
    live = LiveRelease(other.releases_dir, other.models_dir)
    await live.load_or_keep("tiny-1")
    go, reading = asyncio.Event(), asyncio.Event()

    class Waiting:
        async def read_many(self, subject_ids: Sequence[str]) -> list[SubjectState]:
            reading.set()
            await go.wait()
            return [{} for _ in subject_ids]

    decider = Decider(live, Waiting(), CLOCK, SIGNER)
    task = asyncio.create_task(decider.decide(request("item-1"), known()))
    await reading.wait()
    swap = asyncio.create_task(live.load_or_keep("tiny-2"))
    while live.current.release_id == "tiny-1" and not swap.done():
        await asyncio.sleep(0.001)
    go.set()
    first = await task
    await swap
    second = await decider.decide(request("item-1"), nobody())
    decider.close()
    live.close()
    assert (first.response.release_id, second.response.release_id) == ("tiny-1", "tiny-2")
    assert (first.rung, second.rung) == ("full", "full")

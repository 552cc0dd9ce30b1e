"""Senders that we did not write deliver into the sink, under each fault as OTLP specifies."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support import peers
from support.faulty import SPANS, FaultySink, raised, request


@pytest.fixture(scope="module")
def sink() -> Iterator[FaultySink]:
    with FaultySink() as sink:
        yield sink


def spans(count: int) -> Sequence[ReadableSpan]:
    """Fresh ones."""
    memory, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer("test")
    for _ in range(count):
        tracer.start_span("span").end()
    return memory.get_finished_spans()


def exporter(kind: str, sink: FaultySink) -> SpanExporter:
    if kind == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=sink.sink.endpoint, insecure=True, timeout=8)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    return OverHttp(f"{sink.sink.http_endpoint}/v1/traces", timeout=8)


OK, LOST = SpanExportResult.SUCCESS, SpanExportResult.FAILURE

# Of ten spans: what the exporter says, how many the sink counts, and how many of them twice. What
# is retryable (https://opentelemetry.io/docs/specs/otlp/#failures) is sent again and arrives; what
# is not, is not; and where only the answer was lost, a retry delivers twice.
SDK = [
    ("grpc", "delay=20ms", OK, 10, 0),
    ("grpc", "freeze=100ms", OK, 10, 0),
    ("grpc", "slow-read=50ms", OK, 10, 0),
    ("grpc", "goaway", OK, 10, 0),
    ("grpc", "partial=50%", OK, 5, 0),
    ("grpc", "status=UNAVAILABLE,retry=50ms,at=0s", OK, 10, 0),
    ("grpc", "status=RESOURCE_EXHAUSTED,retry=50ms,at=0s", OK, 10, 0),
    ("grpc", "status=DATA_LOSS,at=0s", OK, 10, 0),
    ("grpc", "http=503,at=0s", OK, 10, 0),
    ("grpc", "rst=REFUSED_STREAM,at=0s", OK, 10, 0),
    ("grpc", "reset,at=0s", OK, 20, 10),
    ("grpc", "half-close,at=0s", OK, 20, 10),
    ("grpc", "status=INVALID_ARGUMENT", LOST, 0, 0),
    ("grpc", "status=PERMISSION_DENIED", LOST, 0, 0),
    ("grpc", "http=400", LOST, 0, 0),
    ("grpc", "rst=PROTOCOL_ERROR", LOST, 0, 0),
    ("grpc", "content-type", LOST, 0, 0),
    ("grpc", "garbage", LOST, 10, 0),
    ("http", "delay=20ms", OK, 10, 0),
    ("http", "freeze=100ms", OK, 10, 0),
    ("http", "slow-read=50ms", OK, 10, 0),
    ("http", "partial=50%", OK, 5, 0),
    ("http", "http=503,at=0s", OK, 10, 0),
    ("http", "http=502,at=0s", OK, 10, 0),
    ("http", "http=503,retry-after=1s,at=0s", OK, 10, 0),
    ("http", "reset,at=0s", OK, 20, 10),
    ("http", "half-close,at=0s", OK, 20, 10),
    ("http", "http=400", LOST, 0, 0),
    ("http", "http=403", LOST, 0, 0),
    ("http", "garbage", OK, 10, 0),
    ("http", "content-type", OK, 10, 0),
    ("http", "oversize=100KB", OK, 10, 0),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "fault", "said", "counted", "twice"), SDK, ids=[f"{k}-{f}" for k, f, *_ in SDK]
)
def test_the_sdk_delivers_as_otlp_specifies(
    sink: FaultySink, kind: str, fault: str, said: SpanExportResult, counted: int, twice: int
) -> None:
    sink.fault([fault])
    before, sender = sink.settled(), exporter(kind, sink)
    try:
        assert sender.export(spans(10)) is said
    finally:
        sender.shutdown()
    after = sink.settled()
    assert sink.met() == [1]
    assert (after.spans - before.spans, after.duplicates - before.duplicates) == (counted, twice)


@pytest.mark.parametrize(("encoding", "compression"), [("proto", "gzip"), ("json", "none")])
def test_the_collectors_http_exporter_delivers_to_the_span(
    collector_binary: Path, encoding: str, compression: str
) -> None:
    """With a 503 on the way, which it sends again."""
    with FaultySink(fault=["http=503,retry-after=1s,at=0s"]) as sink:
        settings: dict[str, Any] = {
            "endpoint": sink.sink.http_endpoint,
            "encoding": encoding,
            "compression": compression,
            "retry_on_failure": {"initial_interval": "100ms"},
        }
        more = {
            "exporters": {"otlp_http": settings},
            "service": {"pipelines": {"traces": {"exporters": ["otlp_http"]}}},
        }
        with peers.collector(collector_binary, overrides=more) as collector:
            sender = FaultySink.connected(
                "grpc", f"http://127.0.0.1:{collector.grpc_port}", 5.0, *raised()
            )
            batches = [request(i) for i in range(20)]
            begin = np.zeros(20, np.int64)
            sender.send(_chunk(begin, batches), 1 << 62)
            sender.drain(1 << 62)
            sender.close()
            until = time.monotonic() + 20
            while sink.sink.counts().spans < 20 * SPANS and time.monotonic() < until:
                time.sleep(0.05)
            counts = sink.sink.settled_counts()
        assert sink.met() == [1]
    assert (counts.spans, counts.duplicates, counts.malformed) == (20 * SPANS, 0, 0)


def _chunk(scheduled: Any, batches: list[bytes]) -> Any:
    from blaster.transport.base import Chunk

    return Chunk.of(batches, scheduled, np.full(len(batches), SPANS, np.int64))

"""The sink's OTLP/HTTP port: what it takes, what it refuses, and what it outlives."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import grpc
import psutil
import pytest
import zstandard
from google.protobuf.json_format import MessageToDict
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from support import sinks

from blaster.otlp import response
from blaster.otlp.response import PartialSuccess
from blaster.otlp.rules import RULES
from blaster.sink.process import EmbeddedSink

PROTOBUF, JSON = "application/x-protobuf", "application/json"
RECEIVERS = ("wire", "grpc")


@pytest.fixture(scope="module", params=RECEIVERS)
def shared(request: pytest.FixtureRequest) -> Iterator[EmbeddedSink]:
    with sinks.started(receiver=request.param) as sink:
        yield sink


@pytest.fixture
def sink(shared: EmbeddedSink) -> EmbeddedSink:
    return shared


_next = iter(range(1, 1 << 60))


def message(spans: int = 3, name: str = "s") -> ExportTraceServiceRequest:
    """Spans that were never sent before, each breaking all three rules."""
    message = ExportTraceServiceRequest()
    added = message.resource_spans.add().scope_spans.add().spans
    for _ in range(spans):
        span = added.add(trace_id=b"\1" * 16, span_id=next(_next).to_bytes(8, "big"), name=name)
        span.end_time_unix_nano = 600_000_000
        span.attributes.add(key="http.route").value.string_value = "/"
        span.status.code = 2
    return message


def as_json(message: ExportTraceServiceRequest) -> bytes:
    document = MessageToDict(message, use_integers_for_enums=True)
    for resource in document["resourceSpans"]:
        for span in resource["scopeSpans"][0]["spans"]:
            for name in ("traceId", "spanId"):
                span[name] = base64.b64decode(span[name]).hex().upper()
    return json.dumps(document).encode()


def connect(sink: EmbeddedSink) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", urlsplit(sink.http_endpoint).port, timeout=10)


def post(
    sink: EmbeddedSink,
    body: bytes,
    kind: str = PROTOBUF,
    path: str = "/v1/traces",
    method: str = "POST",
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    connection = connect(sink)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Content-Type": kind, **named})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


ENCODED = {
    "identity": lambda data: data,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_both_forms_and_every_encoding_are_taken_to_the_span(
    sink: EmbeddedSink, kind: str, encoding: str
) -> None:
    before = sink.counts()
    asked = message(5)
    data = asked.SerializeToString() if kind == PROTOBUF else as_json(asked)
    status, headers, body = post(sink, ENCODED[encoding](data), kind, Content_Encoding=encoding)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert body == (b"" if kind == PROTOBUF else b"{}")
    after = sink.counts()
    assert (after.requests, after.spans) == (before.requests + 1, before.spans + 5)
    assert after.bytes == before.bytes + len(data)
    assert after.violations_by_rule == {r: before.violations_by_rule[r] + 5 for r in RULES}
    assert (after.duplicates, after.invalid, after.malformed) == (
        *(before.duplicates, before.invalid, before.malformed),
    )


def test_a_span_that_came_over_grpc_is_a_duplicate_over_http(sink: EmbeddedSink) -> None:
    before, data = sink.counts(), message(4).SerializeToString()
    with grpc.insecure_channel(sink.endpoint.removeprefix("http://")) as channel:
        export = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        channel.unary_unary(export)(data, timeout=10)
    assert post(sink, data)[0] == 200
    assert sink.counts().duplicates == before.duplicates + 4
    assert sink.counts().spans == before.spans + 8


BOMB = gzip.compress(bytes(64 << 20))
ZSTD_BOMB = zstandard.ZstdCompressor().compress(bytes(64 << 20))

REFUSED = [
    (404, {"path": "/v1/metrics"}),
    (404, {"path": "/", "method": "GET"}),
    (405, {"method": "GET"}),
    (405, {"method": "PUT"}),
    (415, {"kind": "text/plain"}),
    (415, {"Content_Encoding": "br"}),
    (400, {"body": b"\x0a"}),
    (400, {"Content_Encoding": "gzip"}),
    (400, {"Content_Encoding": "zstd"}),
    (400, {"Content_Encoding": "gzip", "body": gzip.compress(b"abc")[:-1]}),
    (400, {"kind": JSON}),
    (400, {"kind": JSON, "body": b'{"resourceSpans": 5}'}),
    (400, {"kind": JSON, "body": b"[]"}),
    (
        400,
        {"kind": JSON, "body": b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"x"}]}]}]}'},
    ),
    (400, {"kind": JSON, "body": b"[" * 100_000}),
    (400, {"kind": JSON, "body": b'{"a":' * 100_000}),
    (413, {"body": bytes(5 << 20)}),
    (413, {"body": BOMB, "Content_Encoding": "gzip"}),
    (413, {"body": ZSTD_BOMB, "Content_Encoding": "zstd"}),
    (413, {"body": BOMB, "Content_Encoding": "gzip", "kind": JSON}),
    (431, {"X": "y" * 70_000}),
]


@pytest.mark.parametrize(("status", "asked"), REFUSED, ids=[str(s) for s, _ in REFUSED])
def test_what_is_refused_is_refused_with_a_status_and_counts_no_span(
    sink: EmbeddedSink, status: int, asked: dict[str, str]
) -> None:
    before = sink.counts()
    got, headers, body = post(sink, **{"body": b"\xff\xff", **asked})  # type: ignore[arg-type]
    assert got == status
    kind = JSON if asked.get("kind") == JSON else PROTOBUF
    assert headers["Content-Type"] == kind
    if kind == JSON:
        said = json.loads(body)
        assert said["code"] and said["message"]
    else:
        parsed = Status.FromString(body)
        assert parsed.code and parsed.message
    assert sink.counts().spans == before.spans
    assert psutil.Process(sink.pid).memory_info().rss < 200_000_000


def test_a_connection_is_kept_alive_past_what_was_refused(sink: EmbeddedSink) -> None:
    connection = connect(sink)
    with contextlib.closing(connection):
        for path, status in [("/v1/traces", 200), ("/no", 404), ("/v1/traces?x", 200)]:
            body = message(1).SerializeToString()
            connection.request("POST", path, body, {"Content-Type": PROTOBUF + "; x=y"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            assert connection.sock is not None, "the sink closed it"


def test_chunked_bodies_pipelines_and_expect_are_understood(sink: EmbeddedSink) -> None:
    before, data = sink.counts(), [message(2).SerializeToString() for _ in range(3)]
    head = b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(data[0]) + data[0]
    middle = len(data[1]) // 2
    pieces = [data[1][:middle], data[1][middle:], b""]
    whole += head + b"Transfer-Encoding: chunked\r\n\r\n"
    whole += b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    whole += head + b"Connection: close\r\nExpect: 100-continue\r\n"
    whole += b"Content-Length: %d\r\n\r\n" % len(data[2]) + data[2]
    address = ("127.0.0.1", urlsplit(sink.http_endpoint).port)
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(whole)
        got = b""
        while more := client.recv(65536):
            got += more
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert got.count(b"HTTP/1.1 100 Continue") == 1
    assert sink.counts().spans == before.spans + 6


def test_clients_beyond_the_most_are_closed_and_the_rest_is_served(sink: EmbeddedSink) -> None:
    address = ("127.0.0.1", urlsplit(sink.http_endpoint).port)
    with contextlib.ExitStack() as stack:
        for _ in range(1023):
            stack.enter_context(socket.create_connection(address, timeout=10))
        assert post(sink, message().SerializeToString())[0] == 200
        time.sleep(0.05)
        stack.enter_context(socket.create_connection(address, timeout=10))
        late = stack.enter_context(socket.create_connection(address, timeout=10))
        with contextlib.suppress(ConnectionResetError):
            assert late.recv(1) == b""


def test_beyond_its_capacity_it_says_429() -> None:
    with sinks.started(capacity=1000) as sink:
        # Each takes it a second, however slow this machine is to send the next.
        statuses = [post(sink, message(1000).SerializeToString())[0] for _ in range(4)]
        assert 429 in statuses
        assert sink.counts().spans == 1000 * statuses.count(200)


def test_the_answer_takes_its_service_time_and_a_freeze_stops_it() -> None:
    with sinks.started(service_time="100ms") as sink:
        begun = time.monotonic()
        assert post(sink, message().SerializeToString())[0] == 200
        assert time.monotonic() - begun >= 0.1
        api = http.client.HTTPConnection("127.0.0.1", sink.api_port, timeout=10)
        api.request("POST", "/v1/freeze?seconds=0.5")
        assert api.getresponse().status == 200
        api.close()
        assert post(sink, message().SerializeToString())[0] == 200
        assert time.monotonic() - begun >= 0.6


def test_the_opentelemetry_sdk_delivers_into_it(sink: EmbeddedSink) -> None:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    before = sink.counts()
    for compression in (Compression.NoCompression, Compression.Gzip):
        provider = TracerProvider()
        exporter = OTLPSpanExporter(f"{sink.http_endpoint}/v1/traces", compression=compression)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("test")
        for i in range(100):
            with tracer.start_as_current_span("s", attributes={"http.route": "/", "n": i}):
                pass
        provider.shutdown()
    after = sink.counts()
    assert after.spans == before.spans + 200
    assert (after.duplicates, after.malformed) == (before.duplicates, before.malformed)


def test_the_response_message_is_the_schemas() -> None:
    said = ExportTraceServiceResponse.FromString(response.encode(PartialSuccess(300, "why")))
    assert said.partial_success.rejected_spans == 300
    assert said.partial_success.error_message == "why"

"""The embedded sink, end to end: its process, its gRPC port and its API."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from support import cli

from blaster.errors import BlasterError, UsageError
from blaster.otlp.rules import RULES
from blaster.sink.counts import SinkCounts
from blaster.sink.options import SinkOptions
from blaster.sink.process import EmbeddedSink
from blaster.sink.settings import SinkSettings, resolve
from tests.support.scanner_twin import ScannerTwin

SERVICE = "/opentelemetry.proto.collector.trace.v1.TraceService"
SINK = [*cli.COMMAND, "sink"]


@pytest.fixture
def sink() -> Iterator[EmbeddedSink]:
    with EmbeddedSink() as sink:
        yield sink


def export(sink: EmbeddedSink, data: bytes, method: str = f"{SERVICE}/Export") -> bytes:
    with grpc.insecure_channel(sink.endpoint.removeprefix("http://")) as channel:
        answer: bytes = channel.unary_unary(method)(data, timeout=20)
        return answer


def status_of(sink: EmbeddedSink, data: bytes, method: str = f"{SERVICE}/Export") -> str:
    with pytest.raises(grpc.RpcError) as caught:
        export(sink, data, method)
    return str(caught.value.code().name)  # type: ignore[attr-defined]


def request(first: int = 1, spans: int = 3, name: str = "s") -> bytes:
    """Each span breaks all three rules."""
    message = ExportTraceServiceRequest()
    added = message.resource_spans.add().scope_spans.add().spans
    for i in range(first, first + spans):
        span = added.add(trace_id=b"\1" * 16, span_id=i.to_bytes(8, "big"), name=name)
        span.end_time_unix_nano = 600_000_000
        span.attributes.add(key="http.route").value.string_value = "/"
        span.status.code = 2
    return message.SerializeToString()


def ask(sink: EmbeddedSink, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", sink.api_port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read().decode()


def test_what_is_sent_is_counted_as_the_twin_counts_it(sink: EmbeddedSink) -> None:
    twin = ScannerTwin()
    for data in (request(1), request(3), request(0, 1), b""):
        answer = export(sink, data)
        assert ExportTraceServiceResponse.FromString(answer) == ExportTraceServiceResponse()
        twin.request(data)
    assert sink.counts() == SinkCounts.from_scan(twin.counts())
    assert sink.counts().duplicates == 1
    assert sink.counts().invalid == 1
    assert sink.counts().violations_by_rule == dict.fromkeys(RULES, 7)
    assert sink.settled_counts(quiet_s=0.01) == sink.counts()


def test_what_is_refused(sink: EmbeddedSink) -> None:
    assert status_of(sink, request() + b"\x0a") == "INVALID_ARGUMENT"
    assert status_of(sink, request(), f"{SERVICE}/Import") == "UNIMPLEMENTED"
    assert status_of(sink, request(), "/other.Service/Export") == "UNIMPLEMENTED"
    counts = sink.counts()
    assert (counts.requests, counts.malformed, counts.spans) == (0, 1, 0)


def test_a_message_may_have_4_mib(sink: EmbeddedSink) -> None:
    limit = 4 << 20
    pad = limit - len(request(1, 1, "x" * limit)) + limit
    data = request(1, 1, "x" * pad)
    assert len(data) == limit
    export(sink, data)
    assert status_of(sink, request(2, 1, "x" * (pad + 1))) == "RESOURCE_EXHAUSTED"
    assert sink.counts().spans == 1


def test_the_message_limit_is_an_option() -> None:
    with EmbeddedSink(SinkSettings(max_message_bytes=1000)) as sink:
        export(sink, request(1, 1))
        assert status_of(sink, request(1, 1, "x" * 1000)) == "RESOURCE_EXHAUSTED"


def test_how_many_ids_are_remembered_is_an_option() -> None:
    with EmbeddedSink(SinkSettings(remember=1024)) as sink:
        export(sink, request(1, 5000))
        assert sink.counts().sampling == 8
        assert sink.counts().duplicates == 0


def test_the_opentelemetry_sdk_delivers_into_it(sink: EmbeddedSink) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import Status, StatusCode

    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=sink.endpoint, insecure=True)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for i in range(100):
        with tracer.start_as_current_span("s", attributes={"http.route": "/", "n": i}) as span:
            span.add_event("e", {"list": [1, 2], "text": "x" * 300})
            if i % 2:
                span.set_status(Status(StatusCode.ERROR, "m"))
    provider.shutdown()
    counts = sink.counts()
    assert (counts.spans, counts.duplicates, counts.invalid, counts.malformed) == (100, 0, 0, 0)
    assert counts.violations_by_rule == dict(zip(RULES, (0, 50, 100), strict=True))


def test_the_api(sink: EmbeddedSink) -> None:
    export(sink, request())
    counts = {
        "requests": 1,
        "malformed": 0,
        "bytes": len(request()),
        "spans": 3,
        "duplicates": 0,
        "invalid": 0,
        "sampling": 1,
        "violations_by_rule": dict.fromkeys(RULES, 3),
    }
    for path in ("/", "/v1/counts", "/v1/counts?pretty"):
        status, headers, body = ask(sink, path)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert json.loads(body) == counts
    status, headers, body = ask(sink, "/v1/violations")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(body) == {"violations": [], "totalCount": 0}  # there were no rules
    status, headers, body = ask(sink, "/healthz")
    assert (status, headers["Content-Type"], body) == (200, "text/plain; charset=utf-8", "ok\n")
    assert ask(sink, "/v1/nothing")[0] == 404
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        status, headers, _ = ask(sink, "/v1/counts", method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, body = ask(sink, "/v1/counts", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 0


def test_the_metrics_say_what_the_counts_say(sink: EmbeddedSink) -> None:
    export(sink, request(1, 2))
    export(sink, request(2, 3))
    with pytest.raises(grpc.RpcError):
        export(sink, b"\x0a")
    status, headers, body = ask(sink, "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples, types = {}, {}
    for line in body.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            types[name] = kind
        elif not line.startswith("# HELP "):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
            assert name.partition("{")[0] in types
    counts = sink.counts()
    assert samples["blaster_sink_requests_total"] == counts.requests == 2
    assert samples["blaster_sink_malformed_requests_total"] == counts.malformed == 1
    assert samples["blaster_sink_bytes_total"] == counts.bytes
    assert samples["blaster_sink_spans_total"] == counts.spans == 5
    assert samples["blaster_sink_duplicate_spans_total"] == counts.duplicates == 1
    assert samples["blaster_sink_invalid_spans_total"] == counts.invalid == 0
    assert samples["blaster_sink_duplicate_sampling_ratio"] == 1
    for rule, n in counts.violations_by_rule.items():
        assert samples[f'blaster_sink_violations_total{{rule="{rule}"}}'] == n
    for name, kind in types.items():
        assert kind == ("counter" if name.endswith("_total") else "gauge")


def test_the_api_outlives_rude_clients(sink: EmbeddedSink) -> None:
    address = ("127.0.0.1", sink.api_port)
    with contextlib.ExitStack() as stack:
        for _ in range(60):  # that say nothing
            stack.enter_context(socket.create_connection(address, timeout=10))
        for rude in (b"\r\n\r\n", b"\xff" * 100_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500):
            client = stack.enter_context(socket.create_connection(address, timeout=10))
            with contextlib.suppress(OSError):
                client.sendall(rude)
        assert ask(sink, "/healthz")[0] == 200


def test_an_idle_sink_is_small(sink: EmbeddedSink) -> None:
    assert psutil.Process(sink.pid).memory_info().rss < 60_000_000


def test_ctrl_c_leaves_it_to_be_asked(sink: EmbeddedSink) -> None:
    os.kill(sink.pid, signal.SIGINT)
    export(sink, request())
    assert sink.counts().spans == 3
    assert os.getpgid(sink.pid) != os.getpgid(0)


def gone(pid: int, within_s: float = 5.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


def test_it_ends_when_closed() -> None:
    with EmbeddedSink() as sink:
        pid = sink.pid
    assert gone(pid, 0.0) or not psutil.pid_exists(pid)
    with pytest.raises(BlasterError, match="does not say its counts"):
        sink.counts(timeout_s=0.5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_parent(number: signal.Signals) -> None:
    code = (
        "import time; from blaster.sink.process import EmbeddedSink\n"
        "sink = EmbeddedSink(); print(sink.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(number)
        parent.wait()
        assert gone(pid)


def test_the_end_of_its_standard_input_ends_it() -> None:
    command = [sys.executable, "-m", "blaster.sink", "{}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert "grpc_port" in json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_on_its_own_it_ends_on_a_signal(number: signal.Signals) -> None:
    command = [*SINK, "--grpc-port", "0", "--http-port", "0", "--api-port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = json.loads(process.stdout.readline())
        assert set(ready) == {"grpc_port", "http_port", "api_port", "pid"}
        assert ready["pid"] == process.pid
        process.send_signal(number)
        assert process.wait(5) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("option", ["--grpc-port", "--http-port", "--api-port"])
def test_a_port_in_use_is_said_in_one_line(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--grpc-port": "0", "--http-port": "0", "--api-port": "0", option: str(port)}
        command = [*SINK, *(word for pair in ports.items() for word in pair)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == UsageError.exit_status == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"{option} {port}: can't listen on 127.0.0.1:{port}: Address already in use" in (
        done.stderr
    )


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (SinkOptions(grpc_port=70000), "--grpc-port 70000: must be 0 to 65535"),
        (SinkOptions(http_port=70000), "--http-port 70000: must be 0 to 65535"),
        (SinkOptions(api_port=-1), "--api-port -1: must be 0 to 65535"),
        (SinkOptions(remember=0), "--remember 0: must be 1 to"),
        (SinkOptions(capacity=-1), "--capacity -1: must be 0 to"),
        (SinkOptions(overload="panic"), "--overload 'panic': must be refuse, queue"),
        (SinkOptions(service_time="soon"), "--service-time 'soon': "),
    ],
)
def test_bad_options_are_named(options: SinkOptions, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        resolve(options)


def test_an_embedded_sink_that_cannot_start_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            BlasterError, match=rf"did not start: .*--api-port {port}: can't listen"
        ):
            EmbeddedSink(SinkSettings(api_port=port))


def test_the_parent_does_not_import_grpcio() -> None:
    code = "import sys; from blaster.sink import process, server; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

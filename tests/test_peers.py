"""The peers of the tests count what is sent to them, to the span."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from support import http_peer, peers
from support.certificates import Authority

SIZES = (1, 7, 100)


def request(spans: int, code: Status.StatusCode.ValueType = Status.STATUS_CODE_UNSET) -> bytes:
    """An ExportTraceServiceRequest with so many spans, of one trace."""
    made = [
        Span(
            trace_id=bytes([spans] * 16),
            span_id=(1 + number).to_bytes(8),
            name="hand-built",
            start_time_unix_nano=time.time_ns() - 1_000,
            end_time_unix_nano=time.time_ns(),
            status=Status(code=code),
        )
        for number in range(spans)
    ]
    resource = ResourceSpans(scope_spans=[ScopeSpans(spans=made)])
    return ExportTraceServiceRequest(resource_spans=[resource]).SerializeToString()


def channel_to(peer: peers.Peer, ca: str | None = None) -> grpc.Channel:
    """A channel of grpcio; with TLS where there is a CA bundle."""
    target = f"127.0.0.1:{peer.grpc_port}"
    if ca is None:
        return grpc.insecure_channel(target)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(Path(ca).read_bytes()))


def export(peer: peers.Peer, *payloads: bytes, ca: str | None = None) -> list[bytes]:
    """Send the payloads one after the other and return the answers."""
    with channel_to(peer, ca) as channel:
        call = channel.unary_unary(peers.TRACES, None, None)
        return [call(payload, timeout=10) for payload in payloads]


def test_collector_counts_every_span(collector_binary: Path) -> None:
    with peers.collector(collector_binary) as peer:
        export(peer, b"", *map(request, SIZES))
        counted = peer.wait_for("otelcol_receiver_accepted_spans", sum(SIZES))
    assert counted["otelcol_receiver_accepted_spans"] == sum(SIZES)
    assert counted["otelcol_receiver_refused_spans"] == 0


def test_collector_hands_every_span_on(collector_binary: Path, tmp_path: Path) -> None:
    file = tmp_path / "spans.jsonl"
    with (
        peers.counting_receiver() as receiver,
        peers.collector(
            collector_binary, exporter_endpoint=receiver.endpoint, queue_size=10, file=file
        ) as peer,
    ):
        export(peer, *map(request, SIZES))
        # Both exporters count: the one to the receiver and the one to the file.
        counted = peer.wait_for("otelcol_exporter_sent_spans", 2 * sum(SIZES))
        assert counted["otelcol_exporter_sent_spans"] == 2 * sum(SIZES)
        assert receiver.metrics() == {"requests": 3, "spans": sum(SIZES)}
    assert file.read_text().count('"spanId"') == sum(SIZES)


def test_collector_out_of_memory_refuses_every_span(collector_binary: Path) -> None:
    with peers.collector(collector_binary, memory_limit_mib=1) as peer:
        code, taken = None, -7
        while code is None and taken < 700:  # the limiter looks at its memory every 100 ms
            taken += 7
            time.sleep(0.1)
            try:
                export(peer, request(7))
            except grpc.RpcError as refused:
                code = refused.code()
        assert code is grpc.StatusCode.UNAVAILABLE
        counted = peer.wait_for("otelcol_receiver_refused_spans", 7)
    assert counted["otelcol_receiver_refused_spans"] == 7
    assert counted["otelcol_receiver_accepted_spans"] == taken


def test_collector_samples_by_status(collector_binary: Path) -> None:
    policy = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
    sampling = {"decision_wait": "1s", "policies": [policy]}
    with (
        peers.counting_receiver() as receiver,
        peers.collector(
            collector_binary, exporter_endpoint=receiver.endpoint, tail_sampling=sampling
        ) as peer,
    ):
        export(peer, request(7), request(5, Status.STATUS_CODE_ERROR))
        receiver.wait_for("spans", 5)
        counted = peer.wait_for("otelcol_processor_tail_sampling_count_traces_sampled", 2)
        assert counted["otelcol_receiver_accepted_spans"] == 12
        assert {span.trace_id for span in receiver.spans()} == {bytes([5] * 16)}


def test_rotel_counts_every_span(rotel_binary: Path) -> None:
    with peers.rotel(rotel_binary) as peer:
        export(peer, b"", *map(request, SIZES))
        peer.stop()
        assert peer.metrics()["rotel_receiver_accepted_spans"] == sum(SIZES)


def test_rotel_hands_every_span_on(rotel_binary: Path) -> None:
    with (
        peers.counting_receiver() as receiver,
        peers.rotel(rotel_binary, exporter_endpoint=receiver.endpoint) as peer,
    ):
        export(peer, *map(request, SIZES))
        receiver.wait_for("spans", sum(SIZES))
        peer.stop()
        assert peer.metrics()["rotel_exporter_sent_spans"] == sum(SIZES)
        assert len(receiver.spans()) == sum(SIZES)


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "tls"])
def test_nginx_passes_every_call_on(nginx_binary: Path, authority: Authority, secure: bool) -> None:
    """Connections end after five calls each; grpcio sends what was not taken on the next one."""
    pair = authority.issue("proxy") if secure else None
    with (
        peers.counting_receiver() as receiver,
        peers.nginx(
            nginx_binary, grpc_upstream=receiver.grpc_port, tls=pair, keepalive_requests=5
        ) as proxy,
    ):
        export(proxy, *[request(7)] * 20, ca=authority.file if secure else None)
        assert receiver.metrics() == {"requests": 20, "spans": 140}


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "tls"])
def test_haproxy_passes_every_call_on(
    haproxy_binary: Path, authority: Authority, secure: bool
) -> None:
    """Reloaded in the midst of them."""
    pair = authority.issue("proxy") if secure else None
    with (
        peers.counting_receiver() as receiver,
        peers.haproxy(haproxy_binary, grpc_upstream=receiver.grpc_port, tls=pair) as proxy,
        channel_to(proxy, authority.file if secure else None) as channel,
    ):
        call = channel.unary_unary(peers.TRACES, None, None)
        for number in range(20):
            if number == 10:
                before = proxy.pid
                proxy.reload()
                proxy.wait_until_ready()
            call(request(7), timeout=10)
        assert receiver.metrics() == {"requests": 20, "spans": 140}
        gone, _ = psutil.wait_procs([psutil.Process(before)], timeout=10)
        assert gone


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_proxies_end_http_connections_as_asked(name: str, request: pytest.FixtureRequest) -> None:
    run = {"nginx": peers.nginx, "haproxy": peers.haproxy}[name]
    binary = request.getfixturevalue(f"{name}_binary")
    with (
        http_peer.peer(http_peer.says(http_peer.OK)) as upstream,
        run(binary, http_upstream=upstream.port, keepalive_requests=3) as proxy,
    ):
        connection = http.client.HTTPConnection("127.0.0.1", proxy.http_port)
        ends = []
        for _ in range(3):
            connection.request("POST", "/v1/traces", b"spans")
            with connection.getresponse() as answer:
                assert answer.status == 200
                ends.append(answer.will_close)
    assert ends == [False, False, True]


def test_receiver_keeps_the_bytes() -> None:
    payloads = [request(size) for size in SIZES]
    with peers.counting_receiver(response=b"\n\0") as receiver:
        answers = export(receiver, *payloads)
        assert receiver.payloads() == payloads
        assert receiver.metrics() == {"requests": 3, "spans": sum(SIZES)}
    assert ExportTraceServiceResponse.FromString(answers[0]).HasField("partial_success")


def test_receiver_refuses_as_asked() -> None:
    with peers.counting_receiver(status=8) as receiver:
        with pytest.raises(grpc.RpcError) as refused:
            export(receiver, request(7))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(receiver.spans()) == 7


def test_peer_that_cannot_start_says_why(collector_binary: Path) -> None:
    with (
        pytest.raises(peers.PeerFailed, match="no_such_exporter"),
        peers.collector(collector_binary, overrides={"exporters": {"no_such_exporter": {}}}),
    ):
        pass


def test_peer_does_not_outlive_killed_tests(tmp_path: Path) -> None:
    script = """
import signal
from support import peers
from support.certificates import Authority
from support import http_peer
with peers.counting_receiver() as peer:
    print(peer.pid, flush=True)
    signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        peer = psutil.Process(pid)
        os.kill(parent.pid, signal.SIGKILL)
    gone, alive = psutil.wait_procs([peer], timeout=5)
    assert not alive
    assert gone

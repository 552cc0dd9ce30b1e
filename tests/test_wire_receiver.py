"""The native receiver: every correct client is served, and no other client does harm.

The sanitizers run these too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from support import hostile_client as h2
from support import peers
from support.hostile_client import END_HEADERS, END_STREAM, GOOD, SPAN, START, HostileClient, Row

if os.environ.get("CI"):
    import blaster._wire as wire
else:
    wire = pytest.importorskip("blaster._wire", reason="blaster._wire is not built")

ROWS = [*h2.ROWS, *(h2.ZSTD_ROWS if wire.ZSTD else [])]

pytestmark = pytest.mark.native

SETTLE_S = 10.0


@contextmanager
def receiving(**options: Any) -> Iterator[Any]:
    """A receiver that runs in a thread of its own."""
    receiver = wire.Receiver(**options)
    stop = array("q", [0])
    thread = threading.Thread(target=receiver.run, args=(stop,))
    thread.start()
    try:
        yield receiver
    finally:
        stop[0] = 1
        thread.join()
        receiver.close()


def until(condition: Callable[[], bool]) -> bool:
    """Waits until the condition holds; whether it came to that."""
    end = time.monotonic() + SETTLE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def spans(receiver: Any) -> int:
    return int(receiver.counts()["spans"])


def heard(client: HostileClient, sent: bytes) -> h2.Heard:
    """Sends, and hears what comes before the answer to a ping."""
    mark = random.randbytes(8)
    client.send(sent + h2.frame(h2.PING, 0, 0, mark))
    return client.listen(time.monotonic() + SETTLE_S, ping=mark)


def serves(receiver: Any) -> None:
    """A good client is served, and its spans count."""
    before = spans(receiver)
    with HostileClient(receiver.port) as client:
        client.send(START)
        assert heard(client, h2.call(1, h2.message(SPAN * 3))).statuses == {1: 0}
    assert spans(receiver) == before + 3


@pytest.fixture(scope="module")
def receiver() -> Iterator[Any]:
    with receiving(max_message=h2.MAX_MESSAGE, max_streams=h2.MAX_STREAMS) as one:
        yield one


# ---- one client after the other, by the table ----


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(receiver: Any, row: Row) -> None:
    before = spans(receiver)
    got = h2.behave(receiver.port, row).heard
    assert got.statuses == row.statuses
    assert got.goaway == row.goaway
    if row.goaway is None:
        assert got.resets == row.resets
    assert spans(receiver) == before + row.spans
    serves(receiver)


@pytest.mark.parametrize("row", [r for r in ROWS if len(r.sent) < 2000], ids=lambda r: r.name)
def test_the_same_byte_by_byte(receiver: Any, row: Row) -> None:
    before = spans(receiver)
    with HostileClient(receiver.port) as client:
        sent = row.sent if row.raw else START + row.sent
        for byte in sent:
            client.send(bytes([byte]))
        client.send(h2.frame(h2.PING, 0, 0, b"the end."))
        got = client.listen(time.monotonic() + SETTLE_S, ping=b"the end.")
    assert (got.statuses, got.goaway) == (row.statuses, row.goaway)
    assert spans(receiver) == before + row.spans


def test_cut_anywhere(receiver: Any) -> None:
    """The pieces in which bytes arrive change nothing."""
    dice = random.Random(1)
    bodies = [SPAN * dice.choice([1, 3, 100, 3000, 9000]) for _ in range(60)]
    sent = b"".join(
        h2.call(2 * i + 1, h2.message(body), cut=dice.choice([16384, 999, 1 << 22]))
        for i, body in enumerate(bodies)
    )
    before = receiver.counts()
    with HostileClient(receiver.port) as client:
        client.send(START)
        at = 0
        while at < len(sent):
            piece = dice.choice([1, 9, 100, 20000, 70000, 300000])
            client.send(sent[at : at + piece])
            at += piece
            if dice.random() < 0.3:
                time.sleep(0.001)
        got = heard(client, b"")
    assert got.statuses == {2 * i + 1: 0 for i in range(len(bodies))}
    after = receiver.counts()
    assert after["bytes"] - before["bytes"] == sum(map(len, bodies))
    assert after["spans"] - before["spans"] == sum(map(len, bodies)) // len(SPAN)
    assert after["requests"] - before["requests"] == len(bodies)


def test_gone_in_mid_call(receiver: Any) -> None:
    """A client that disappears counts as far as its calls were complete, and leaves nothing."""
    session = START + h2.call(1, GOOD) + h2.call(3, h2.message(SPAN * 2), cut=50)
    ends = [len(START + h2.call(1, GOOD)), len(session)]
    for cut in range(len(session) + 1):
        before, accepted = spans(receiver), receiver.traffic()["accepted"]
        with HostileClient(receiver.port) as client:
            client.send(session[:cut])
            if cut % 2:
                client.socket.shutdown(socket.SHUT_WR)
                client.listen(time.monotonic() + SETTLE_S)
            else:  # a reset
                linger = struct.pack("ii", 1, 0)
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert until(lambda: receiver.traffic()["accepted"] == accepted + 1)  # noqa: B023
        assert until(lambda: receiver.traffic()["connections"] == 0)
        counted = spans(receiver) - before
        whole = (cut >= ends[0]) + 2 * (cut >= ends[1])
        assert counted == whole if cut % 2 else counted <= whole
    serves(receiver)


def test_half_closed(receiver: Any) -> None:
    """A client that has closed its side still gets its answers."""
    with HostileClient(receiver.port) as client:
        client.send(START + h2.call(1, GOOD))
        client.socket.shutdown(socket.SHUT_WR)
        got = client.listen(time.monotonic() + SETTLE_S)
    assert got.statuses == {1: 0}
    assert got.goaway == "closed"


def test_what_a_client_is_told(receiver: Any) -> None:
    with HostileClient(receiver.port) as client:
        client.send(START)
        got = heard(
            client,
            h2.call(1, GOOD)
            + h2.call(3, GOOD, head=h2.block(path="/a/B"))
            + h2.call(5, GOOD, head=h2.block(kind="text/html"))
            + h2.call(7, b"\0\0\0\0\1\xff"),
        )
    assert got.settings == {
        3: h2.MAX_STREAMS,
        4: h2.MAX_MESSAGE + 65540,
        5: h2.MAX_MESSAGE + 5,
        6: 65536,
    }
    good = {":status": "200", "content-type": "application/grpc", "grpc-status": "0"}
    assert got.fields[1] == good
    assert ExportTraceServiceResponse.FromString(got.data[1][5:]) == ExportTraceServiceResponse()
    assert got.data[1][:5] == bytes(5)
    assert got.fields[3]["grpc-accept-encoding"] == "identity,gzip" + ",zstd" * wire.ZSTD
    assert got.fields[5][":status"] == "415"
    assert "ExportTraceServiceRequest" in got.messages[7]


def test_http1_gets_a_word(receiver: Any) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), SETTLE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 505 ")
    assert f"Content-Length: {len(body)}".encode() in head


# ---- bounds ----


@pytest.mark.memory
def test_answers_nobody_reads(receiver: Any) -> None:
    """Of a client that never reads, no more is read than there is room for answers."""
    process = psutil.Process()
    before = process.memory_info().rss
    with HostileClient(receiver.port, timeout_s=0.5) as client:
        client.send(START)
        sent, first = 0, 1
        try:
            while sent < 100 << 20:
                ids = range(first, first + 2000, 2)
                calls = b"".join(
                    h2.frame(h2.HEADERS, END_HEADERS | END_STREAM, i, h2.block()) for i in ids
                )
                client.socket.sendall(calls)
                first += 2000
                sent += len(calls)
            pytest.fail("everything was read")
        except TimeoutError:
            pass
        assert sent > 100_000
        serves(receiver)
        assert process.memory_info().rss - before < 32 << 20
        # It reads after all: every whole call has its answer.
        late = time.monotonic() + SETTLE_S
        while len(client.heard.statuses) < first // 2 and time.monotonic() < late:
            client.listen(time.monotonic() + 0.1)
        assert len(client.heard.statuses) >= first // 2
        assert set(client.heard.statuses.values()) == {h2.UNIMPLEMENTED}


def test_buffered_bytes_are_bounded() -> None:
    with receiving(max_buffered=8 << 20) as receiver, contextlib.ExitStack() as stack:
        # What is announced costs next to nothing.
        for _ in range(4):
            client = stack.enter_context(HostileClient(receiver.port))
            announced = h2.message(b"x", length=4 << 20)
            got = heard(
                client, START + b"".join(h2.call(i, announced, end=False) for i in range(1, 200, 2))
            )
            assert got.statuses == {}
        assert receiver.traffic()["buffered"] <= 4 * 100 * 4096
        # What is sent counts.
        greedy = stack.enter_context(HostileClient(receiver.port))
        greedy.send(START)
        most = h2.message(bytes(3 << 20), length=4 << 20)
        got = heard(greedy, b"".join(h2.call(i, most, end=False) for i in range(1, 20, 2)))
        assert set(got.statuses.values()) == {h2.RESOURCE_EXHAUSTED}
        assert 5 <= len(got.statuses) <= 9
        assert receiver.traffic()["buffered"] <= 8 << 20
        serves(receiver)  # whole messages need no buffer
        stack.close()
        assert until(lambda: receiver.traffic()["connections"] == 0)
        with HostileClient(receiver.port) as client:
            client.send(START)
            assert heard(client, h2.call(1, h2.message(SPAN * 9999), cut=999)).statuses == {1: 0}
        assert until(lambda: receiver.traffic()["buffered"] == 0)  # kept for a while, then freed


def test_what_is_only_announced_is_bounded() -> None:
    """However many messages have only begun, they take no more than max_buffered."""
    most = 100 * 4096
    with receiving(max_buffered=most) as receiver, HostileClient(receiver.port) as client:
        announced = h2.message(b"x", length=4 << 20)
        calls = b"".join(h2.call(i, announced, end=False) for i in range(1, 400, 2))
        got = heard(client, START + calls)
        assert receiver.traffic()["buffered"] <= most
        assert list(got.statuses.values()) == [h2.RESOURCE_EXHAUSTED] * 100


def test_an_answer_that_is_put_off_is_no_late_call() -> None:
    """A call whose answer takes longer than a call may take to arrive is answered all the same."""
    with (
        receiving(request_timeout_s=1.0, service_time_s=2.5) as receiver,
        HostileClient(receiver.port) as client,
    ):
        client.send(START + h2.call(1, GOOD))
        late = time.monotonic() + SETTLE_S
        while not client.heard.statuses and time.monotonic() < late:
            client.listen(time.monotonic() + 0.1)
        assert client.heard.statuses == {1: 0}
        assert spans(receiver) == 1


def test_connections_are_bounded() -> None:
    with receiving(max_connections=3) as receiver, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(HostileClient(receiver.port)) for _ in range(3)]
        for client in clients:
            assert heard(client, START + h2.call(1, GOOD)).statuses == {1: 0}
        with HostileClient(receiver.port) as fourth:
            assert fourth.listen(time.monotonic() + SETTLE_S).goaway == "closed"
        assert receiver.traffic()["turned_away"] == 1
        clients[0].socket.close()
        assert until(lambda: receiver.traffic()["connections"] == 2)
        serves(receiver)


def test_timeouts() -> None:
    """Neither a handshake nor a frame nor a call may take for ever; waiting for a call may."""
    with (
        receiving(handshake_timeout_s=0.5, request_timeout_s=1.0, idle_timeout_s=4.0) as receiver,
        contextlib.ExitStack() as stack,
    ):
        opened = time.monotonic()

        def client(sent: bytes) -> HostileClient:
            one = stack.enter_context(HostileClient(receiver.port))
            one.send(sent)
            return one

        silent = client(b"")
        half = client(h2.PREFACE[:10])
        unset = client(h2.PREFACE)
        frame = client(START + b"\0\0")
        payload = client(START + h2.frame(h2.PING, 0, 0, bytes(8))[:-1])
        block = client(START + h2.frame(h2.HEADERS, 0, 1, h2.block()))
        data = client(START + h2.call(1, GOOD, end=False))
        message = client(START + h2.call(1, h2.message(SPAN, length=9999), end=False))
        window = client(START + h2.frame(h2.SETTINGS, 0, 0, b"\0\4\0\0\0\0") + h2.call(1, GOOD))
        idle = client(START + h2.call(1, GOOD))
        dripping = client(START + h2.frame(h2.HEADERS, END_HEADERS, 1, h2.block()))

        def drip() -> None:
            for byte in h2.frame(h2.DATA, 0, 1, h2.message(bytes(999))):
                dripping.send(bytes([byte]))
                time.sleep(0.05)
                if receiver.traffic()["refused"] == 3:
                    return

        slow = threading.Thread(target=drip)
        slow.start()
        late = time.monotonic() + SETTLE_S
        for one in (silent, half, unset):
            assert one.listen(late).goaway in ("closed", h2.NO_ERROR)
        for one in (frame, payload, block):
            assert one.listen(late).goaway == h2.CALM
        slow.join()
        for one in (data, message, dripping):
            assert one.listen(late).statuses == {1: h2.DEADLINE_EXCEEDED}
        assert window.listen(late).resets == {1: 8}  # CANCEL
        assert idle.listen(late).goaway == h2.NO_ERROR
        assert time.monotonic() - opened >= 4  # not before its own limit
        assert receiver.counts()["spans"] == 2  # window's and idle's
        serves(receiver)


def test_a_storm_of_connections(receiver: Any) -> None:
    """Many hostile clients at once, and good ones among them."""
    rows = [row for row in ROWS if len(row.sent) < 5000]
    before = spans(receiver)
    expected = [0] * 4
    errors: list[BaseException] = []

    def client(seat: int) -> None:
        dice = random.Random(seat)
        try:
            for _ in range(100):
                row = dice.choice(rows)
                got = h2.behave(receiver.port, row).heard
                assert got.statuses == row.statuses
                expected[seat] += row.spans
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=(seat,)) for seat in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert spans(receiver) == before + sum(expected)


@pytest.mark.memory
def test_nothing_leaks() -> None:
    rows = [row for row in ROWS if len(row.sent) < 200_000]
    with receiving(max_message=h2.MAX_MESSAGE, max_streams=h2.MAX_STREAMS) as receiver:

        def rounds(count: int) -> int:
            for _ in range(count):
                for row in rows:
                    h2.behave(receiver.port, row)
            gc.collect()
            return int(psutil.Process().memory_info().rss)

        before = rounds(3)
        assert rounds(10) - before < 4 << 20
        assert until(lambda: receiver.traffic()["connections"] == 0)
        assert receiver.traffic()["buffered"] <= 64 << 20


# ---- clients that nobody here wrote ----


def grpc_call(channel: Any, path: str = h2.EXPORT) -> Any:
    return channel.unary_unary(path)


def test_grpcio(receiver: Any) -> None:
    before = spans(receiver)
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}", options) as channel:
        export = grpc_call(channel)
        for count in (0, 1, 100, 5000, 15000):
            assert export(SPAN * count, timeout=SETTLE_S) == b""
            assert export(SPAN * count, compression=grpc.Compression.Gzip, timeout=SETTLE_S) == b""
        calls = [export.future(SPAN * 10, timeout=SETTLE_S) for _ in range(3000)]
        assert all(call.result() == b"" for call in calls)

        def refused(body: bytes, path: str = h2.EXPORT, **how: Any) -> tuple[Any, str]:
            with pytest.raises(grpc.RpcError) as caught:
                grpc_call(channel, path)(body, timeout=SETTLE_S, **how)
            error: Any = caught.value
            return error.code(), error.details()

        code = grpc.StatusCode
        assert refused(b"\xff")[0] is code.INVALID_ARGUMENT
        assert refused(SPAN, "/a/B")[0] is code.UNIMPLEMENTED
        too_large = bytes(h2.MAX_MESSAGE + 1)
        assert refused(too_large)[0] is code.RESOURCE_EXHAUSTED
        zipped = refused(too_large, compression=grpc.Compression.Gzip)
        assert zipped[0] is code.RESOURCE_EXHAUSTED
        assert "decompressed" in zipped[1]
        assert refused(SPAN, compression=grpc.Compression.Deflate)[0] is code.UNIMPLEMENTED
        assert export(SPAN, timeout=SETTLE_S) == b""
    assert spans(receiver) == before + 2 * (1 + 100 + 5000 + 15000) + 30000 + 1


def test_grpcio_streaming_is_one_message_too_many(receiver: Any) -> None:
    before = spans(receiver)
    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
        as_it_is = {"request_serializer": None, "response_deserializer": None}
        stream: Any = channel.stream_unary(h2.EXPORT, **as_it_is)
        assert stream(iter([SPAN]), timeout=SETTLE_S) == b""
        for bodies in ([], [SPAN, SPAN]):
            with pytest.raises(grpc.RpcError) as caught:
                stream(iter(bodies), timeout=SETTLE_S)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert spans(receiver) == before + 1


def test_grpc_aio(receiver: Any) -> None:
    async def send() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
            export = grpc_call(channel)
            await asyncio.gather(*(export(SPAN * 7, timeout=SETTLE_S) for _ in range(500)))

    before = spans(receiver)
    asyncio.run(send())
    assert spans(receiver) == before + 3500


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_sdk_exporter(receiver: Any, compression: grpc.Compression) -> None:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    before = receiver.counts()
    endpoint = f"http://127.0.0.1:{receiver.port}"
    exporter = OTLPSpanExporter(endpoint, insecure=True, compression=compression)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=20))
    tracer = provider.get_tracer("test")
    for _ in range(1000):
        with tracer.start_as_current_span("span", attributes={"http.route": "/"}):
            pass
    provider.force_flush()
    provider.shutdown()
    after = receiver.counts()
    assert after["spans"] - before["spans"] == 1000
    assert after["duplicates"] == before["duplicates"]
    assert after["invalid"] == before["invalid"]
    assert after["violations"][2] - before["violations"][2] == 1000


@pytest.mark.parametrize("count", [1, 100, 8000])
def test_h2load(receiver: Any, tmp_path: Path, count: int) -> None:
    h2load = shutil.which("h2load")
    if h2load is None:
        reason = "h2load is not installed (Debian: nghttp2-client)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    body = tmp_path / "body"
    body.write_bytes(h2.message(SPAN * count))
    before = spans(receiver)
    requests = 500
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://127.0.0.1:{receiver.port}{h2.EXPORT}"
    load = ["-n", str(requests), "-c", "5", "-m", "50", "-d", str(body)]
    done = subprocess.run(
        [h2load, *load, *headers, url], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"{requests} succeeded" in done.stdout
    assert spans(receiver) == before + requests * count


@pytest.mark.parametrize("compression", ["gzip", "none", "zstd"])
def test_collector_exporter(
    receiver: Any, collector_binary: Path, tmp_path: Path, compression: str
) -> None:
    overrides = {
        "exporters": {
            "otlp_grpc": {"compression": compression, "retry_on_failure": {"enabled": False}}
        }
    }
    endpoint = f"http://127.0.0.1:{receiver.port}"
    before = receiver.counts()
    with peers.collector(
        collector_binary, exporter_endpoint=endpoint, overrides=overrides
    ) as collector:
        with grpc.insecure_channel(f"127.0.0.1:{collector.grpc_port}") as channel:
            for _ in range(200):
                grpc_call(channel)(SPAN * 50, timeout=SETTLE_S)
        sent = "otelcol_exporter_sent_spans"
        failed = "otelcol_exporter_send_failed_spans"
        refused = compression == "zstd" and not wire.ZSTD
        name = failed if refused else sent
        assert collector.wait_for(name, 10_000)[name] == 10_000
    expected = 0 if refused else 10_000
    assert receiver.counts()["spans"] - before["spans"] == expected


# ---- counting ----


def test_accepted_is_counted(receiver: Any) -> None:
    """Whoever was told that his spans are accepted finds them counted, at once."""
    with grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
        export = grpc_call(channel)
        before = spans(receiver)
        for i in range(1, 500):
            export(SPAN * 3, timeout=SETTLE_S)
            assert spans(receiver) == before + 3 * i


def test_counts_while_it_runs(receiver: Any) -> None:
    """The counts agree with each other at every moment."""
    done = threading.Event()
    torn: list[Any] = []
    first = receiver.counts()

    def look() -> None:
        last = first
        while not done.is_set():
            counts = receiver.counts()
            gained = counts["spans"] - first["spans"]
            if (
                gained * len(SPAN) != counts["bytes"] - first["bytes"]
                or counts["spans"] < last["spans"]
            ):
                torn.append((last, counts))
            last = counts

    looker = threading.Thread(target=look)
    looker.start()
    with HostileClient(receiver.port) as client:
        client.send(START)
        for i in range(200):
            heard(client, b"".join(h2.call(j, GOOD) for j in range(40 * i + 1, 40 * i + 41, 2)))
    done.set()
    looker.join()
    assert torn == []
    assert receiver.counts()["spans"] == first["spans"] + 4000


def test_unscanned() -> None:
    with receiving(scan=False) as receiver:
        with HostileClient(receiver.port) as client:
            client.send(START)
            assert heard(client, h2.call(1, GOOD) + h2.call(3, b"\0\0\0\0\1\xff")).statuses == {
                1: 0,
                3: 0,
            }
        counts = receiver.counts()
        assert (counts["requests"], counts["bytes"], counts["spans"]) == (2, len(SPAN) + 1, 0)


@pytest.mark.parametrize("kind", ["auto", "wire", "grpc"])
def test_in_the_sink(kind: str) -> None:
    """The sink takes the native receiver where it is built, and counts alike with both."""
    from support import sinks

    with sinks.started(receiver=kind) as sink:
        with grpc.insecure_channel(sink.endpoint.removeprefix("http://")) as channel:
            for _ in range(3):
                assert grpc_call(channel)(SPAN * 5, timeout=SETTLE_S) == b""
            with pytest.raises(grpc.RpcError):
                grpc_call(channel)(b"\xff", timeout=SETTLE_S)
        counts = sink.counts()
        assert (counts.spans, counts.duplicates, counts.malformed) == (15, 14, 1)
        maps = Path(f"/proc/{sink.pid}/maps")
        if maps.exists():
            assert ("blaster/_wire" in maps.read_text()) == (kind != "grpc")


# ---- the type ----


def test_run_again_and_close() -> None:
    receiver = wire.Receiver()
    stop = array("q", [0])
    thread = threading.Thread(target=receiver.run, args=(stop,))
    with HostileClient(receiver.port) as client:
        client.send(START + h2.call(1, GOOD))
        assert client.listen(time.monotonic() + 0.1).statuses == {}  # nobody runs it yet
        thread.start()
        assert heard(client, b"").statuses == {1: 0}
        with pytest.raises(RuntimeError, match="running"):
            receiver.run(stop)
        with pytest.raises(RuntimeError, match="running"):
            receiver.close()
        stop[0] = 1
        thread.join(1)
        assert not thread.is_alive()
        stop[0] = 0
        thread = threading.Thread(target=receiver.run, args=(stop,))
        thread.start()
        assert heard(client, h2.call(3, GOOD)).statuses == {1: 0, 3: 0}
        stop[0] = 1
        thread.join()
        receiver.close()
        assert client.listen(time.monotonic() + SETTLE_S).goaway == h2.NO_ERROR
    receiver.close()
    assert spans(receiver) == 2
    with pytest.raises(ValueError, match="closed"):
        receiver.run(stop)
    with pytest.raises(ConnectionRefusedError):
        HostileClient(receiver.port)


@pytest.mark.memory
def test_the_type_leaks_nothing() -> None:
    def rounds(count: int) -> int:
        for _ in range(count):
            receiver = wire.Receiver(scanner_capacity=1000)
            receiver.run(array("q", [1]))
            receiver.counts()
            receiver.traffic()
            with contextlib.suppress(OSError):
                wire.Receiver(port=receiver.port)
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    before = rounds(200)
    assert rounds(2000) - before < 2 << 20


def test_names_and_ipv6() -> None:
    for host in ("localhost", "::1"):
        try:
            receiver = wire.Receiver(host)
        except OSError:
            assert host == "::1"  # a machine without IPv6
            continue
        socket.create_connection((host, receiver.port)).close()
        receiver.close()


def test_wrong_arguments() -> None:
    for wrong in (
        {"port": -1},
        {"port": 65536},
        {"scanner_capacity": 0},
        {"max_message": 0},
        {"max_message": 1 << 31},
        {"max_connections": 0},
        {"max_streams": 0},
        {"max_buffered": 0},
        {"handshake_timeout_s": 0},
        {"request_timeout_s": -1.0},
        {"idle_timeout_s": float("nan")},
        {"capacity": -1},
        {"capacity": 10**9 + 1},
        {"capacity": 1, "scan": False},
        {"patience_s": 0},
        {"service_time_s": -1.0},
        {"service_time_s": float("nan")},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            wire.Receiver(**wrong)
    with pytest.raises(OSError, match="no-such-host"):
        wire.Receiver("no-such-host.invalid")
    receiver = wire.Receiver()
    for seconds in (-1.0, 3601, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            receiver.freeze(seconds)
    with pytest.raises(TypeError):
        receiver.freeze("x")
    with pytest.raises(OSError, match="in use"):
        wire.Receiver(port=receiver.port)
    for stop in (bytes(8), array("b", [0])):
        with pytest.raises((ValueError, BufferError)):
            receiver.run(stop)

"""The sink's HTTP port and its API against rude clients: bounded in time and memory, and alive."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest
from support.faulty import FaultySink, request

from blaster import http_server
from blaster._native import Scanner
from blaster.sink import http_connection, http_receiver
from blaster.sink.api import ApiServer
from blaster.sink.betrace import Betrace
from blaster.sink.counts import SinkCounts
from blaster.sink.fault_control import FaultControl
from blaster.sink.http_receiver import HttpReceiver


@pytest.fixture(scope="module")
def sink() -> Iterator[FaultySink]:
    with FaultySink() as sink:
        yield sink


def ports(sink: FaultySink) -> dict[str, int]:
    http_port = urlsplit(sink.sink.http_endpoint).port
    grpc_port = urlsplit(sink.sink.endpoint).port
    assert http_port is not None and grpc_port is not None
    return {"http": http_port, "api": sink.sink.api_port, "grpc": grpc_port}


BODY = request(1 << 40)
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-protobuf\r\n"
SEEDS = [
    HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    HEAD.replace(b"x-protobuf", b"json") + b'Content-Length: 20\r\n\r\n{"resourceSpans":[]}',
    HEAD + b"Content-Encoding: gzip\r\nContent-Length: 12\r\n\r\n\x1f\x8b\x08" + bytes(9),
    b"GET /v1/counts HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b'POST /v1/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 13\r\n\r\n{"faults":[]}',
    b"POST /v1/spans HTTP/1.1\r\nHost: [::1]:1\r\nContent-Length: 2\r\n\r\n{}",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
]


def mutated(rng: random.Random) -> bytes:
    """One of SEEDS, or two, with bytes changed, lost, doubled or put in."""
    data = bytearray(b"".join(rng.choices(SEEDS, k=rng.randrange(1, 3))))
    for _ in range(rng.randrange(0, 12)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 30)]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randrange(1, 200)]
        elif kind == 3:
            data[at:at] = rng.choice([b"\r\n", b"\0", b"99999999999", b"-1", b"A" * 5000, b":"])
        else:
            data[at:at] = rng.randbytes(rng.randrange(1, 40))
        if not data:
            data = bytearray(b"\n")
    return bytes(data)


@pytest.mark.parametrize("name", ["http", "api", "grpc"])
def test_no_bytes_bring_it_down(sink: FaultySink, name: str) -> None:
    """Three hundred mutated requests, in pieces and cut short; then it serves as before."""
    rng = random.Random(7)
    port = ports(sink)[name]
    before = psutil.Process(sink.sink.pid).memory_info().rss
    for _ in range(300):
        data = mutated(rng)
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5) as client,
        ):
            cut = rng.randrange(len(data) + 1)
            client.sendall(data[:cut])
            client.sendall(data[cut:])
            if rng.random() < 0.3:
                client.shutdown(socket.SHUT_WR)
                client.settimeout(0.05)
                client.recv(1 << 16)
    assert psutil.Process(sink.sink.pid).memory_info().rss < before + (100 << 20)
    serves(sink)


def answer_to(port: int, head: bytes) -> bytes:
    """The status line of the answer to a request; the connection ends with it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(head + b"Connection: close\r\n\r\n")
        answer = b""
        while data := client.recv(1 << 12):
            answer += data
    return answer.partition(b"\r\n")[0]


OWN = [
    b"Host: localhost\r\n",
    b"Host: localhost:4319\r\n",
    b"Host: 127.0.0.1:4319\r\n",
    b"Host: [::1]:4319\r\n",
    b"Host: 10.1.2.3\r\n",
    b"Host: localhost:4319\r\nOrigin: http://localhost:4319\r\n",
]
OF_PAGES = [
    b"Host: evil.example:4319\r\n",
    b"Host: evil.example:4319\r\nOrigin: http://evil.example:4319\r\n",
    b"Host: localhost:4319\r\nOrigin: http://evil.example\r\n",
    b"Host: localhost:4319\r\nOrigin: http://localhost:8080\r\n",
    b"Host: localhost:4319\r\nOrigin: null\r\n",
    b"Host: localhost@evil.example\r\n",
    b"Host: 127.0.0.1.evil.example\r\n",
]


@pytest.mark.parametrize("path", [b"/v1/counts", b"/v1/freeze?seconds=0", b"/v1/faults"])
def test_the_api_is_not_for_web_pages(sink: FaultySink, path: bytes) -> None:
    """A page of another origin, or one whose name was pointed at us, neither reads nor acts."""
    method = b"GET " if path == b"/v1/counts" else b"POST "
    body = b"Content-Length: 0\r\n" if path == b"/v1/faults" else b""
    for host in OWN:
        status = answer_to(ports(sink)["api"], method + path + b" HTTP/1.1\r\n" + host + body)
        assert status.split()[1] == (b"400" if body else b"200"), host
    for host in OF_PAGES:
        status = answer_to(ports(sink)["api"], method + path + b" HTTP/1.1\r\n" + host + body)
        assert status.split()[1] == b"403", host
    for host in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        status = answer_to(ports(sink)["api"], method + path + b" HTTP/1.1\r\n" + host + body)
        assert status.split()[1] == b"400", host


@pytest.mark.parametrize("name", ["http", "api"])
@pytest.mark.parametrize(
    ("fields", "statuses"),
    [
        (b"Content-Length: +0\r\n", {b"400"}),
        (b"Content-Length: -0\r\n", {b"400"}),
        (b"Content-Length: 0x0\r\n", {b"400"}),
        (b"Content-Length: 0_0\r\n", {b"400"}),
        (b"Content-Length: " + b"9" * 5000 + b"\r\n", {b"400"}),
        (b"Content-Length: 0\r\nContent-Length: 1\r\n", {b"400"}),
        (b"Transfer-Encoding: gzip\r\n", {b"501"}),
        (b"Transfer-Encoding: identity\r\n", {b"501"}),
        (b"Transfer-Encoding: gzip, chunked\r\n", {b"501"}),
        (b"Transfer-Encoding: chunked, gzip\r\n", {b"501", b"400"}),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", {b"501", b"400"}),
    ],
)
def test_lengths_and_codings_that_are_none_are_refused(
    sink: FaultySink, name: str, fields: bytes, statuses: set[bytes]
) -> None:
    """RFC 9112, 6: a body whose end is in doubt is no body."""
    path = b"/v1/traces" if name == "http" else b"/v1/spans"
    head = b"POST " + path + HEAD.removeprefix(b"POST /v1/traces") + fields
    assert answer_to(ports(sink)[name], head).split()[1] in statuses


def test_beyond_loopback_names_are_taken_but_not_from_pages() -> None:
    """A sink in a cluster is asked by the name of its service; a page is not, by any name."""
    server = http_server.HttpServer("0.0.0.0", 0, http_server.HttpHandler)
    with contextlib.closing(server.socket):
        assert server.refusal(["sink.load:4319"], None) is None
        for origin in ("http://sink.load:4319", "http://evil.example"):
            assert (server.refusal(["sink.load:4319"], origin) or (0,))[0] == 403


def serves(sink: FaultySink) -> None:
    sink.fault([])
    before = sink.settled()
    client = http.client.HTTPConnection("127.0.0.1", ports(sink)["http"], timeout=10)
    with contextlib.closing(client):
        sink.calls += 1
        body = request((1 << 30) + sink.calls)
        client.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
        assert client.getresponse().status == 200
    assert sink.settled().spans == before.spans + 4


def dribble(port: int, data: bytes, ended: list[bytes]) -> None:
    """Sends a byte now and then until the other side has had enough; keeps what it said."""
    said = b""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=0.05) as client,
    ):
        for byte in data:
            client.sendall(bytes([byte]))
            with contextlib.suppress(TimeoutError):
                said = client.recv(1 << 12)
                break
    ended.append(said)


@pytest.mark.parametrize(
    ("slow", "status"),
    [(HEAD + b"X: " + b"y" * 10_000, b"408"), (SEEDS[0][:-100] + bytes(10_000), b"")],
    ids=["head", "body"],
)
def test_a_slow_loris_is_let_go_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch, slow: bytes, status: bytes
) -> None:
    """Whoever sends a byte now and then has his time, and no more."""
    monkeypatch.setattr(http_connection, "HEAD_TIMEOUT_S", 0.6)
    monkeypatch.setattr(http_connection, "REQUEST_TIMEOUT_S", 0.6)
    monkeypatch.setattr(http_receiver, "TICK_S", 0.1)
    scanner = Scanner()
    receiver = HttpReceiver("127.0.0.1", 0, lambda data, *_: (scanner.request(data), 0), 1 << 20)
    port = receiver.start()
    if not status:  # a body that does not end
        slow = HEAD + b"Content-Length: 100000\r\n\r\n" + bytes(10_000)
    ended: list[bytes] = []
    threads = [threading.Thread(target=dribble, args=(port, slow, ended)) for _ in range(20)]
    try:
        for thread in threads:
            thread.start()
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(client):
            headers = {"Content-Type": "application/x-protobuf"}
            client.request("POST", "/v1/traces", request(5), headers)
            assert client.getresponse().status == 200
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert all(said.startswith(b"HTTP/1.1 408") for said in ended if said)
        assert any(ended)
    finally:
        receiver.stop()


def test_a_slow_loris_at_the_api_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "TURN_S", 0.5)
    scanner = Scanner()
    counts = lambda: SinkCounts.from_scan(scanner.counts())  # noqa: E731
    server = ApiServer(
        "127.0.0.1", 0, Betrace([scanner], counts), lambda _: None, FaultControl([], [])
    )
    port = server.start()
    try:
        ended: list[bytes] = []
        threads = [
            threading.Thread(target=dribble, args=(port, b"GET /" + b"x" * 2000, ended))
            for _ in range(70)  # more than it has places for
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(client):
            client.request("GET", "/healthz")
            assert client.getresponse().status == 200
    finally:
        server.stop()

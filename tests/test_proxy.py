"""The proxy between a sender and its target."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from support import cli
from support.faulty import TRANSPORTS, FaultySink

from blaster.errors import UsageError
from blaster.proxy.faults import parse_all
from blaster.proxy.server import ProxyOptions


@contextlib.contextmanager
def proxy(target: int, *faults: str) -> Iterator[int]:
    """The port of a proxy to the target's port."""
    command = [sys.executable, "-m", "blaster.proxy.server", f":{target}", *faults]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield int(json.loads(process.stdout.readline())["port"])
        finally:
            process.terminate()
            assert process.wait(5) == 0


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """A server that says all again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def one(client: socket.socket) -> None:
            with client, contextlib.suppress(OSError):
                while data := client.recv(1 << 16):
                    client.sendall(data)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=one, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def said_again(client: socket.socket, data: bytes) -> float:
    """Sends and receives; the seconds that it took."""
    begun = time.monotonic()
    got = 0
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    digest = hashlib.sha256()
    while got < len(data):
        more = client.recv(1 << 16)
        assert more, "closed"
        digest.update(more)
        got += len(more)
    sender.join()
    assert digest.digest() == hashlib.sha256(data).digest()
    return time.monotonic() - begun


def test_bytes_come_as_they_went_through_latency_jitter_and_bandwidth() -> None:
    data = os.urandom(200_000)
    with (
        echo() as target,
        proxy(target) as plain,
        proxy(target, "latency=50ms", "jitter=20ms") as late,
        proxy(target, "bandwidth=1MB") as narrow,
    ):
        for port, least in ((plain, 0.0), (late, 0.1), (narrow, 0.19)):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                assert said_again(client, data) >= least
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b"", "the end is passed on"


def test_a_reader_that_is_slow_holds_the_sender_back() -> None:
    """The proxy buffers a bounded number of bytes: sockets' buffers, and a megabyte each way."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        proxy(listener.getsockname()[1]) as port,
        socket.create_connection(("127.0.0.1", port), timeout=1) as client,
    ):
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 << 20:
                sent += client.send(bytes(1 << 16))
        assert sent < 32 << 20


def test_a_reset_resets() -> None:
    with echo() as target, proxy(target, "reset,from=200ms") as port:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            said_again(client, b"x")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with (
            pytest.raises(ConnectionResetError),
            socket.create_connection(("127.0.0.1", port), timeout=10) as client,
        ):
            assert client.recv(1) == b"unreachable"


def until_silent(client: socket.socket) -> None:
    for _ in range(100):
        said_again(client, b"y" * 1000)
        time.sleep(0.05)


def test_a_blackhole_takes_all_and_half_open_connections_hear_nothing() -> None:
    for fault in ("blackhole,from=200ms", "half-open,from=200ms"):
        with (
            echo() as target,
            proxy(target, fault) as port,
            socket.create_connection(("127.0.0.1", port), timeout=10) as client,
        ):
            client.settimeout(0.3)
            with pytest.raises(TimeoutError):
                until_silent(client)


def test_without_a_target_the_connection_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        proxy(port) as through,
        socket.create_connection(("127.0.0.1", through), timeout=10) as client,
        contextlib.suppress(ConnectionResetError),
    ):
        assert client.recv(1) == b""


@pytest.fixture(scope="module")
def sink() -> Iterator[FaultySink]:
    with FaultySink() as sink:
        yield sink


WAYS = {
    "late": ["latency=5ms", "jitter=5ms"],
    "narrow": ["bandwidth=200KB"],
    "reset": ["reset,from=150ms,for=50ms"],
    "blackhole": ["blackhole,from=150ms,for=100ms", "reset,from=300ms,for=20ms"],
    "half-open": ["half-open,from=150ms,for=50ms"],
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("way", WAYS)
def test_the_books_balance_through_the_proxy(sink: FaultySink, transport: str, way: str) -> None:
    """Both equations, and the sink's count between accepted and accepted + unknown."""
    port = int(sink.endpoint(transport).rpartition(":")[2])
    with proxy(port, *WAYS[way]) as through:
        books = sink.run(transport, 60, spread_s=0.5, timeout_s=0.4, port=through)
    assert books.accepted > 0
    if way in ("late", "narrow"):
        assert books.accepted == books.sent


BAD = [
    ("slow", "the kinds are latency=20ms, "),
    ("latency", "must be written as latency=20ms"),
    ("reset=1", "must be written as reset"),
    ("latency=soon", "must be a time"),
    ("latency=1h", "at most 600 s"),
    ("bandwidth=0", "must be"),
    ("latency=1ms@5%", "no share"),
    ("reset@0%", "above 0 and at most 100%"),
    ("reset,until=5s", "must be from=… or for=…"),
    ("reset,from=1s,from=2s", "at most once"),
]


@pytest.mark.parametrize(("text", "why"), BAD, ids=[text for text, _ in BAD])
def test_bad_faults_are_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_all([text])
    assert str(refused.value).startswith(f"--fault '{text}': ") and why in str(refused.value)


def test_the_command_line() -> None:
    with pytest.raises(UsageError, match="--listen 70000: must be 0 to 65535"):
        ProxyOptions(":1", 70000).check()
    for target in ("nowhere", ":0", ":99999", "host:", "host:http"):
        with pytest.raises(UsageError, match=f"--target '{target}': must be HOST:PORT or :PORT"):
            ProxyOptions(target).check()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = cli.blaster("proxy", "--target", ":1", "--listen", port)
    assert f"--listen {port}: can't listen on 127.0.0.1:{port}" in done.stderr

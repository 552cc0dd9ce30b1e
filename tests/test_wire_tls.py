"""TLS on the wire transport: whom it trusts, and that nothing is lost, whatever the peer does."""

from __future__ import annotations

import gc
import os
import socket
import ssl
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import certificates, hostile
from support.certificates import DAY, NOW, Authority, Pair

from blaster.errors import TargetUnreachable, UsageError
from blaster.transport.choice import wire_speaks_tls
from blaster.transport.tls import Tls

wire = pytest.importorskip("blaster._wire", reason="blaster._wire is not built")

from test_wire_client import Run, running, soon  # noqa: E402 - needs blaster._wire

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(not wire_speaks_tls(), reason="blaster._wire was built without OpenSSL"),
]


def context_of(pair: Pair, *, client_ca: str | None = None, alpn: str | None = "h2") -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if alpn is not None:
        context.set_alpn_protocols([alpn])
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


OVER_TLS = [
    name
    for number, (name, case) in enumerate(hostile.BEHAVIOURS.items())
    if case.large or number % 5 == 0 or "clos" in name or "goaway" in name
]
"""Those that have to do with how bytes come and go, and every fifth of the others."""


@pytest.mark.parametrize("name", OVER_TLS)
def test_counts_every_request(name: str, authority: Authority, server: Pair) -> None:
    """Over TLS as in plaintext, every request ends once, with a status that the peer deserves."""
    case = hostile.BEHAVIOURS[name]
    sizes = [150_000] * 4 if case.large else [0, 1, 1000, 3000] * 5
    timeout_s = 0.5 if {"NO_ANSWER_TIMEOUT", "CONNECT_FAILED"} & set(case.may.split()) else 5.0
    with (
        hostile.peer(case.behaviour, case.values, context=context_of(server)) as peer,
        running(peer.port, timeout_s=timeout_s, tls=Tls(authority.file)) as run,
    ):
        chunk = run.chunk(sizes)
        offered = run.transport.send(chunk, soon(4.0))
        run.transport.drain(soon(4.0))
        run.check(offered)
        statuses = run.statuses()
        assert set(statuses) <= set(case.may.split()), (statuses, run.transport.messages())
        assert not run.transport.holds(chunk)
        if case.may == "OK":
            assert offered == len(sizes)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_arrive_as_they_were(
    authority: Authority, server: Pair, version: ssl.TLSVersion
) -> None:
    """Megabytes through a peer that reads slowly, in pieces that fit no record, arrive whole."""
    sizes = [1_000_003, 17, 2_500_001, 16_384, 0]
    body = bytes(range(256)) * (sum(sizes) // 256 + 1)
    got = bytearray()

    def slowly(peer: hostile.Wire) -> None:
        peer.open_windows = True
        inner = peer.read

        def read(size: int) -> bytes:
            data = inner(size)
            if size > 9:
                got.extend(data)
            if len(got) % 7 == 0:
                time.sleep(0.001)
            return data

        peer.read = read  # type: ignore[method-assign]
        peer.serve()

    context = context_of(server)
    context.minimum_version = context.maximum_version = version
    with (
        hostile.peer(slowly, context=context) as peer,
        running(peer.port, timeout_s=30, tls=Tls(authority.file)) as run,
    ):
        chunk = run.chunk(sizes, body=body[: sum(sizes)])
        assert run.transport.send(chunk, soon(20)) == len(sizes)
        run.transport.drain(soon(20))
        run.check(len(sizes))
        assert run.statuses() == {"OK": len(sizes)}
        received = sum(stream.received for stream in peer.wires[0].streams.values())
        # The greeting is an empty message of its own.
        assert received == sum(sizes) + 5 * (len(sizes) + 1)


def refused(run: Run) -> str:
    with pytest.raises(TargetUnreachable) as raised:
        run.transport.connect(5.0)
    run.transport.close()
    return str(raised.value)


WRONG: dict[str, tuple[Callable[[Authority, Path], Pair], str]] = {
    "expired": (lambda a, _: a.issue("late", until=NOW - DAY), "has expired"),
    "another address": (lambda a, _: a.issue("other", address="127.0.0.2"), "IP address mismatch"),
    "self-signed": (lambda _, f: certificates.self_signed(f), "self-signed"),
    "a stranger's": (
        lambda _, f: Authority(f, "stranger").issue("foreign"),
        "unable to get local issuer",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_whom_it_trusts(authority: Authority, tmp_path: Path, name: str) -> None:
    """A wrong certificate is refused and named before a byte is sent; unverified it is taken."""
    make, fault = WRONG[name]
    context = context_of(make(authority, tmp_path))
    with hostile.peer(hostile.Wire.serve, context=context) as peer:
        said = refused(Run(peer.port, tls=Tls(authority.file)))
        assert "certificate" in said and fault in said
        with running(peer.port, tls=Tls(verify=False)) as run:
            run.transport.send(run.chunk([100]), soon(2))
            run.transport.drain(soon(2))
            assert run.statuses() == {"OK": 1}


def test_both_sides_show_certificates(authority: Authority, server: Pair) -> None:
    """With a client's certificate it is let in, without it is told why not."""
    client = authority.issue("client")
    context = context_of(server, client_ca=authority.file)
    with hostile.peer(hostile.Wire.serve, context=context) as peer:
        assert "certificate required" in refused(Run(peer.port, tls=Tls(authority.file)))
        ours = Tls(authority.file, client.certificate, client.key)
        with running(peer.port, tls=ours) as run:
            run.transport.send(run.chunk([100]), soon(2))
            run.transport.drain(soon(2))
            assert run.statuses() == {"OK": 1}


@pytest.mark.parametrize("alpn", [None, "http/1.1"])
def test_a_peer_without_http2(authority: Authority, server: Pair, alpn: str | None) -> None:
    """A server of TLS that does not take h2 is refused, and it is said."""
    with hostile.peer(hostile.Wire.serve, context=context_of(server, alpn=alpn)) as peer:
        said = refused(Run(peer.port, tls=Tls(authority.file)))
        assert "ALPN" in said or "no application protocol" in said


@contextmanager
def speaking(say: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does this with every connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        say(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def half_a_record(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\x16\x03\x03\x40\x00\x02" + b"x" * 100)
    connection.close()


NOT_TLS: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "HTTP/1": (lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "TLS: "),
    "garbage": (lambda c: c.sendall(bytes(range(255, 0, -1)) * 40), "TLS: "),
    "an echo": (lambda c: c.sendall(c.recv(4096)), "TLS: "),
    "an alert": (lambda c: c.sendall(b"\x15\x03\x03\0\x02\x02\x28"), "handshake failure"),
    "half a record": (half_a_record, "closes the connection"),
    "an empty record": (lambda c: c.sendall(b"\x16\x03\x03\0\0" * 200), "TLS: "),
    "nothing, and closes": (lambda c: None, "closes the connection"),
}


@pytest.mark.parametrize("name", NOT_TLS)
def test_what_is_not_tls(authority: Authority, name: str) -> None:
    """A peer that answers the handshake with something else is named, and nothing is sent to it."""
    say, expected = NOT_TLS[name]
    with speaking(say) as port:
        assert expected in refused(Run(port, tls=Tls(authority.file)))


def test_a_broken_record_ends_the_connection(authority: Authority, server: Pair) -> None:
    """A record that was changed on its way is not read: what was in flight is unknown."""

    def corrupt(peer: hostile.Wire) -> None:
        peer.request()
        plain = socket.socket(fileno=peer.socket.detach())
        plain.sendall(b"\x17\x03\x03\0\x20" + bytes(32))
        time.sleep(0.2)
        plain.close()

    with (
        hostile.peer(corrupt, context=context_of(server)) as peer,
        running(peer.port, tls=Tls(authority.file)) as run,
    ):
        run.transport.send(run.chunk([100]), soon(2))
        run.transport.drain(soon(2))
        assert run.statuses() == {"CONNECTION_LOST": 1}
        assert "TLS" in run.transport.messages()[33]


def test_wrong_files(tmp_path: Path, server: Pair) -> None:
    """Files that OpenSSL can't use are refused in one line."""
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    for tls in (Tls(str(broken)), Tls(None, str(broken), server.key)):
        with pytest.raises(UsageError, match=r"broken\.pem"):
            Run(1, tls=tls)


@pytest.mark.memory
def test_connections_do_not_leak(authority: Authority, server: Pair, tmp_path: Path) -> None:
    """Clients over TLS leave no memory behind, well or badly greeted."""
    stranger = Authority(tmp_path, "stranger").file

    def rounds(count: int) -> int:
        for _ in range(count):
            with running(peer.port, tls=Tls(authority.file)) as run:
                run.transport.send(run.chunk([100]), soon(2))
                run.transport.drain(soon(2))
                run.outcomes()
            refused(Run(peer.port, tls=Tls(stranger)))
        gc.collect()
        return psutil.Process().memory_info().rss

    with hostile.peer(hostile.Wire.serve, context=context_of(server)) as peer:
        before = rounds(10)
        assert rounds(40) - before < 4 << 20


BREAKS_OFF = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

/* The first long write takes BYTES of it (0: none), and the connection is lost at the next. */
ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    static int writes;
    ssize_t (*real)(int, const void *, size_t, int) = dlsym(RTLD_NEXT, "send");
    const size_t most = strtoul(getenv("BYTES"), NULL, 10);
    if (writes > 1 || (writes == 0 && length < 50000))
        return real(fd, bytes, length, flags);
    if (writes++ == 0 && most > 0)
        return real(fd, bytes, most, flags);
    writes = 2;
    shutdown(fd, SHUT_RDWR);
    errno = ECONNRESET;
    return -1;
}
"""

SENDS_ONE = """
import sys, time
import numpy as np
from blaster.transport.base import Chunk, SendCounts, Status
from blaster.transport.tls import Tls
from blaster.transport.wire import WireTransport

counts, stop = SendCounts.zeros(), np.zeros(1, np.int64)
transport = WireTransport(host="127.0.0.1", port=int(sys.argv[1]), connections=1, in_flight=4,
                          timeout_s=5.0, metadata=[], tls=Tls(sys.argv[2]),
                          counts=counts, stop=stop)
transport.connect(5.0)
late = time.monotonic_ns() + 5 * 10**9
transport.send(Chunk.of([bytes(60_000)], np.zeros(1, np.int64), np.ones(1, np.int64)), late)
transport.drain(late)
print(*(Status(int(status)).name for status in transport.outcomes()["status"]))
transport.close()
"""


@pytest.mark.parametrize(("taken", "status"), [(1000, "CONNECTION_LOST"), (0, "OK")])
def test_a_write_that_breaks_off(
    authority: Authority, server: Pair, tmp_path: Path, taken: int, status: str
) -> None:
    """A request of which some bytes left is not sent again; one of which none did is."""
    source, library, script = tmp_path / "send.c", tmp_path / "send.so", tmp_path / "sends_one.py"
    source.write_text(BREAKS_OFF)
    script.write_text(SENDS_ONE)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    preloaded = f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()
    with hostile.peer(hostile.Wire.serve, context=context_of(server)) as peer:
        done = subprocess.run(
            [sys.executable, script, str(peer.port), authority.file],
            env=os.environ
            | {
                "LD_PRELOAD": preloaded,
                "BYTES": str(taken),
                "PYTHONPATH": str(Path(__file__).parent.parent),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert done.stdout.split() == [status]

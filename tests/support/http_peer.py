"""A peer that speaks HTTP/1.1 by a script: for answers that no well-behaved server gives."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from blaster.transport.base import Chunk, SendCounts, Status
from blaster.transport.endpoint import resolve
from blaster.transport.http import HttpTransport
from blaster.transport.tls import Tls

Answer = Callable[[socket.socket], bool]
"""Answers a request; whether the connection goes on."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def says(data: bytes, *, close: bool = False) -> Answer:
    """Answers with these bytes."""

    def answer(connection: socket.socket) -> bool:
        connection.sendall(data)
        return not close

    return answer


def response(
    status: str, body: bytes = b"", *fields: str, kind: str = "application/x-protobuf"
) -> bytes:
    """A whole response with its length."""
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    if body:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def resets(connection: socket.socket) -> bool:
    """Answers with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def silent(connection: socket.socket) -> bool:
    """Answers nothing, and keeps the connection until the client has had enough of it."""
    connection.recv(1)
    return False


class Peer:
    """Listens on loopback; answers empty requests well and all others with ``answer``.

    ``bodies``: of the requests, but for the empty ones. ``early``: answers before it has read the
    body. ``heads``: of all requests. ``greets`` False: empty requests get ``answer``, too.
    """

    def __init__(
        self, answer: Answer, *, early: bool = False, greets: bool = True, port: int = 0
    ) -> None:
        self._answer, self._early, self._greets = answer, early, greets
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            reader = connection.makefile("rb")
            while True:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    line = reader.readline()
                    if not line:
                        return
                    head += line
                self.heads.append(head)
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                if length <= 2 and self._greets:
                    reader.read(length)
                    connection.sendall(OK)
                    continue
                if not self._early:
                    self.bodies.append(reader.read(length))
                if not self._answer(connection):
                    reader.detach()
                    return

    def close(self) -> None:
        """Ends it and all connections."""
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


class Sender:
    """An HttpTransport to a port of loopback, and what it raised."""

    def __init__(
        self,
        port: int,
        *,
        connections: int = 1,
        timeout_s: float = 5.0,
        encoding: str = "protobuf",
        headers: tuple[tuple[str, str], ...] = (),
        tls: Tls | None = None,
    ) -> None:
        self.counts = SendCounts.zeros()
        self.stop = np.zeros(1, np.int64)
        scheme = "http" if tls is None else "https"
        self.transport = HttpTransport(
            endpoint=resolve(f"{scheme}://127.0.0.1:{port}", {}, "http"),
            tls=tls,
            encoding=encoding,
            compression="none",
            connections=connections,
            timeout_s=timeout_s,
            headers=headers,
            counts=self.counts,
            stop=self.stop,
        )

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.transport.close()

    def statuses(self, outcomes: np.ndarray) -> dict[str, int]:
        """How many requests ended how; every one that was sent has ended once."""
        assert len(outcomes) == self.counts.sent_requests
        assert sorted(outcomes["number"].tolist()) == list(range(len(outcomes)))
        return dict(Counter(Status(int(status)).name for status in outcomes["status"]))


def chunk(count: int, size: int = 100, spans: int = 10, first: int = 0) -> Chunk:
    """So many requests of so many bytes, all due."""
    return Chunk(
        np.full(count, 1, np.int64),
        np.full(count, spans, np.int64),
        offsets=np.arange(count + 1, dtype=np.int64) * size,
        buffer=memoryview(bytes(count * size)),
        first=first,
    )


@contextlib.contextmanager
def peer(
    answer: Answer, *, early: bool = False, greets: bool = True, port: int = 0
) -> Iterator[Peer]:
    """A Peer for the time of the context."""
    made = Peer(answer, early=early, greets=greets, port=port)
    try:
        yield made
    finally:
        made.close()

"""HttpConnection: one socket of the http transport, encrypted or not, that never blocks."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Sequence
from enum import IntEnum, auto

from blaster.transport.http_response import ResponseReader

READ_BYTES = 64 << 10

Address = tuple[int, tuple[object, ...]]
"""The family, and what connect() takes."""


class State(IntEnum):
    """What a connection is about."""

    CLOSED = auto()
    CONNECTING = auto()
    HANDSHAKE = auto()
    IDLE = auto()
    BUSY = auto()


class HttpConnection:
    """``sock``: None when closed. ``wants_write``: it waits until the socket can be written to.
    ``answered``: at least one request was. ``left``: bytes of the request have been handed over.
    OSError from any method: the connection is lost."""

    def __init__(self, context: ssl.SSLContext | None, host: str) -> None:
        self._context, self._host = context, host
        self.state = State.CLOSED
        self.sock: socket.socket | None = None
        self.reader = ResponseReader()
        self.wants_write = False
        self.answered = False
        self.left = False
        self._parts: list[memoryview] = []

    def open(self, address: Address) -> None:
        """Begins to connect."""
        family, where = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader.reset()
        self.answered = self.left = False
        self.state, self.wants_write = State.CONNECTING, True
        self._parts = []
        with contextlib.suppress(BlockingIOError):
            sock.connect(where)

    def fileno(self) -> int:
        """The socket's, which must be open."""
        assert self.sock is not None
        return self.sock.fileno()

    def go_on(self) -> None:
        """Goes on with the connection or the handshake; the state says how far that got."""
        sock = self.sock
        assert sock is not None
        if self.state == State.CONNECTING:
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            if self._context is not None:
                sock = self._context.wrap_socket(
                    sock, server_hostname=self._host, do_handshake_on_connect=False
                )
                self.sock = sock
            self.state = State.HANDSHAKE
        if isinstance(sock, ssl.SSLSocket):
            self.wants_write = False
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                return
            except ssl.SSLWantWriteError:
                self.wants_write = True
                return
        self.state, self.wants_write = State.IDLE, False

    def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Hands the request over, or as much of it as the socket takes."""
        self.state, self.left = State.BUSY, False
        sock = self.sock
        assert sock is not None
        if self._context is None:
            # Mostly all of it goes at once, without a copy.
            try:
                sent = sock.sendmsg(parts)
            except BlockingIOError:
                sent = 0
            self.left = sent > 0
            if sent == sum(map(len, parts)):
                return
            self._parts = [memoryview(part) for part in parts]
            self._skip(sent)
        else:
            self._parts = [memoryview(b"".join(parts))]
        self.flush()

    def flush(self) -> None:
        """Goes on sending."""
        sock = self.sock
        assert sock is not None
        self.wants_write = False
        while self._parts:
            try:
                sent = sock.send(self._parts[0])
            except (BlockingIOError, ssl.SSLWantWriteError):
                self.wants_write = True
                return
            except ssl.SSLWantReadError:
                return
            self.left = True
            self._skip(sent)

    def _skip(self, sent: int) -> None:
        while self._parts and sent >= len(self._parts[0]):
            sent -= len(self._parts.pop(0))
        if sent:
            self._parts[0] = self._parts[0][sent:]

    @property
    def unsent(self) -> bool:
        """Whether bytes of the request are still here."""
        return bool(self._parts)

    def receive(self) -> bytes | None:
        """What has come; empty at the end, None when nothing has."""
        assert self.sock is not None
        try:
            return self.sock.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def pending(self) -> bool:
        """Whether more is here than the socket shows."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def close(self) -> None:
        """Closes the socket, without a TLS farewell: nothing waits for one."""
        if self.sock is not None:
            self.sock.close()
        self.sock, self.state, self.wants_write = None, State.CLOSED, False
        self._parts = []

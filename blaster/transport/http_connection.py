"""HttpConnection: a non-blocking connection of the http transport, with or without TLS."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import ssl
import sys
import termios
from collections.abc import Sequence
from enum import IntEnum, auto

from blaster.transport.http_response import ResponseReader

READ_BYTES = 64 << 10

Address = tuple[int, tuple[object, ...]]
"""The address family, and the argument of connect()."""


class State(IntEnum):
    """The state of a connection."""

    CLOSED = auto()
    CONNECTING = auto()
    HANDSHAKE = auto()
    IDLE = auto()
    BUSY = auto()


class HttpConnection:
    """One connection. ``sock``: None when closed. ``wants_write``: it waits until the socket is
    writable. ``answered``: at least one request was answered. ``left``: bytes of the request have
    been written. OSError from any method: the connection is lost."""

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
        """Start to connect."""
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
        """The descriptor of the socket, which must be open."""
        assert self.sock is not None
        return self.sock.fileno()

    def advance(self) -> None:
        """Continue to connect or to shake hands; ``state`` says how far it got."""
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
        """Write the request, or as much of it as the socket takes."""
        self.state, self.left = State.BUSY, False
        sock = self.sock
        assert sock is not None
        if self._context is None:
            # Usually the socket takes all of it at once, without a copy.
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
        """Continue to write."""
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
        """Whether bytes of the request are not written yet."""
        return bool(self._parts)

    def receive(self) -> bytes | None:
        """Return the bytes received: empty at the end of file, None if there are none yet."""
        assert self.sock is not None
        try:
            return self.sock.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def closed_before(self, error: OSError | None) -> bool:
        """Whether the peer closed a connection that ended with ``error`` (None: end of file) before
        it had received the whole request: then it cannot have processed it.

        Its FIN acknowledges what it had received, and EPIPE is what Linux makes of an RST after a
        FIN. After an RST alone, ECONNRESET, nothing is known.
        """
        if self.sock is None or self.reader.began:
            return False
        if error is not None and not (
            error.errno == errno.EPIPE or isinstance(error, ssl.SSLEOFError)
        ):
            return False
        try:
            unread = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))
        except OSError:
            return False
        return int.from_bytes(unread, sys.byteorder) > 0

    def pending(self) -> bool:
        """Whether TLS has buffered bytes that epoll does not see."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def close(self) -> None:
        """Close the socket, without a TLS close_notify: no peer waits for one."""
        if self.sock is not None:
            self.sock.close()
        self.sock, self.state, self.wants_write = None, State.CLOSED, False
        self._parts = []

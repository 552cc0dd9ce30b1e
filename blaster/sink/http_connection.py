"""One HTTP/1.1 connection of the sink: bytes to requests, answers to bytes, all of it bounded.

The parser is llhttp, by httptools: it bounds nothing itself, so the head, the number of fields, the
body and the time are bounded here.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from http import HTTPStatus
from typing import Protocol

import httptools

from blaster.otlp.status import Code
from blaster.sink import otlp_http
from blaster.sink.otlp_http import Answer, Request

HEAD_BYTES = 1 << 16
"""Of the request line and the fields of one request."""
FIELDS = 100
HEAD_TIMEOUT_S = 10.0
"""From a request's first byte to the end of its head; and from the connection to its first byte."""
REQUEST_TIMEOUT_S = 60.0
"""From its first byte to its last."""
IDLE_TIMEOUT_S = 300.0
STALL_S = 60.0
"""How long a client may leave its answers unread."""
LINGER_S = 2.0
"""How long a client has to read the last answer, while what it still sends is thrown away."""


class Owner(Protocol):
    """What a connection asks of its receiver."""

    max_message_bytes: int
    date: str

    def opened(self, connection: Connection) -> bool:
        """Whether there is room for one more."""

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""

    def room_for(self, size: int) -> bool:
        """Whether so many more bytes of bodies may be held; negative: they are let go."""

    def take(self, connection: Connection, request: Request) -> None:
        """Takes a whole request, and calls ``connection.answer`` for it, now or later."""


class Connection(asyncio.Protocol):
    """Gives its owner one request at a time, and reads no further before that is answered."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, bool]] = deque()
        self._busy = False  # the owner has a request
        self._keep_alive = True  # ... after which the connection stays
        self._ending = False  # no further request is taken
        self._since = self._loop.time()  # of what is waited for
        self._stalled: float | None = None
        self._lingering = False
        self._held = False  # nothing is read, on purpose
        self._begin()
        self._in_head = self._in_body = False

    def _begin(self) -> None:
        self._request = Request()
        self._url = b""
        self._pieces: list[bytes] = []
        self._size = self._head = self._fields = self._fed = 0
        self._refusal: Answer | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self._owner.opened(self):
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ending = True
        self._owner.room_for(-self._size)
        self._size = 0
        self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(otlp_http.error(501, Code.UNIMPLEMENTED, "no upgrade", close=True))
        except httptools.HttpParserCallbackError as error:
            if not isinstance(error.__context__, _Enough):
                raise
            self.fail(error.__context__.answer)
        except httptools.HttpParserError:
            self.fail(_bad("the request is not HTTP/1.1"))
        else:
            # What the parser gathers for itself: a head, or trailers, without an end.
            if self._in_head and self._fed > HEAD_BYTES + len(data):
                self.fail(_head_too_large())
            elif self._fed > 8 * self._owner.max_message_bytes + HEAD_BYTES + len(data):
                self.fail(otlp_http.too_large(close=True))

    def eof_received(self) -> bool:
        return self._busy  # who waits for an answer still gets it

    def pause_writing(self) -> None:
        self._stalled = self._loop.time()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._stalled = None
        self._read_on()

    # What the parser calls; an _Enough that is raised here ends the connection.

    def on_message_begin(self) -> None:
        self._begin()
        self._in_head = self._in_body = True
        self._since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._count_head(len(name) + len(value) + 4)
        if self._fields > FIELDS:
            raise _Enough(_head_too_large())
        name = name.lower()
        if name == b"content-type":
            self._request.content_type = value.decode("latin-1").partition(";")[0].strip().lower()
        elif name == b"content-encoding":
            self._request.encoding = value.decode("latin-1").strip().lower()
        elif name == b"content-length" and int(value) > self._owner.max_message_bytes:
            self._refusal = otlp_http.too_large(self._request.content_type, close=True)
        elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            # RFC 9112, 6.1; llhttp takes any coding with chunked behind it.
            why = "Transfer-Encoding: only chunked is supported"
            self._refusal = otlp_http.error(501, Code.UNIMPLEMENTED, why, close=True)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._request.method = self._parser.get_method()
        self._request.path = self._url
        if self._refusal is not None:
            raise _Enough(self._refusal)
        try:
            otlp_http.check_head(self._request)
        except otlp_http.Refused as refused:
            self._refusal = refused.answer

    def on_body(self, body: bytes) -> None:
        if self._refusal is not None:
            return  # is read, so that the connection can go on, and thrown away
        self._size += len(body)
        if not self._owner.room_for(len(body)):
            why = "too many messages are on their way in"
            raise _Enough(otlp_http.error(503, Code.RESOURCE_EXHAUSTED, why, close=True))
        if self._size > self._owner.max_message_bytes:
            raise _Enough(otlp_http.too_large(self._request.content_type, close=True))
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._fed = 0
        self._since = self._loop.time()
        request, stays = self._request, bool(self._parser.should_keep_alive())
        request.body = b"".join(self._pieces)
        self._pieces = []
        self._owner.room_for(-self._size)
        self._size = 0
        if self._refusal is not None:
            request.body = b""
        if self._busy:
            self._waiting.append((request, stays))
        else:
            self._hand_over(request, stays)

    # Ours.

    def _count_head(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_BYTES:
            raise _Enough(_head_too_large())

    def _hand_over(self, request: Request, stays: bool) -> None:
        self._busy = True
        self._keep_alive = stays
        try:
            otlp_http.check_head(request)
        except otlp_http.Refused as refused:
            self.answer(refused.answer)
        else:
            self._owner.take(self, request)
        if self._busy and not self._ending:
            self.transport.pause_reading()

    def answer(self, answer: Answer) -> None:
        """Answers the request that the owner has."""
        if self.transport.is_closing():
            return
        close = answer.close or not self._keep_alive
        self.transport.write(self.rendered(answer, close))
        self._busy = False
        self._since = self._loop.time()
        if close:
            self.end()
        elif self._waiting:
            self._hand_over(*self._waiting.popleft())
        else:
            self._read_on()

    def _read_on(self) -> None:
        if not (self._busy or self._ending or self._held or self._stalled is not None):
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Writes what is no answer."""
        self.transport.write(data)

    def hold(self, seconds: float) -> None:
        """Reads nothing for so long."""
        self._held = True
        self.transport.pause_reading()
        self._loop.call_later(seconds, self._release)

    def _release(self) -> None:
        self._held = False
        self._since = self._loop.time()
        self._read_on()

    def reset(self) -> None:
        """Closes the connection with RST, and takes along what was to be sent."""
        connected: socket.socket = self.transport.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._ending = True
        self.transport.abort()

    def rendered(self, answer: Answer, close: bool) -> bytes:
        """The answer's bytes."""
        lines = [
            f"HTTP/1.1 {answer.status} {_reason(answer.status)}",
            f"Date: {self._owner.date}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        if close:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body

    def fail(self, answer: Answer) -> None:
        """Answers what can't be read to its end, and ends the connection."""
        if not self._busy:  # else the client would take it for the answer to what is in work
            self.transport.write(self.rendered(answer, close=True))
        self.end()

    def end(self) -> None:
        """Closes our side. To close all of it now would reset the connection if the client is still
        sending, and might take our last words from it."""
        self._ending = self._lingering = True
        self._since = self._loop.time()
        self._owner.room_for(-self._size)
        self._size = 0
        self._pieces = []
        self._waiting.clear()
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def tick(self, now: float) -> None:
        """Enforces the timeouts; to be called about once a second."""
        waited = now - self._since
        if self._lingering:
            if waited > LINGER_S:
                self.transport.abort()
        elif self._stalled is not None:
            if now - self._stalled > STALL_S:
                self.transport.abort()
        elif self._busy or self._held:
            return
        elif self._in_head or self._in_body:
            if waited > (HEAD_TIMEOUT_S if self._in_head else REQUEST_TIMEOUT_S):
                why = "the request took too long"
                self.fail(otlp_http.error(408, Code.UNAVAILABLE, why, close=True))
        elif waited > (IDLE_TIMEOUT_S if self._fields else HEAD_TIMEOUT_S):
            self.transport.close()


class _Enough(Exception):
    """Ends the connection with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"


def _bad(why: str) -> Answer:
    return otlp_http.error(400, Code.INVALID_ARGUMENT, why, close=True)


def _head_too_large() -> Answer:
    why = "the head of the request is too large"
    return otlp_http.error(431, Code.INVALID_ARGUMENT, why, close=True)

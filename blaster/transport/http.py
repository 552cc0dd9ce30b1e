"""The http transport: OTLP/HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp) over HTTP/1.1.

Each connection is kept alive and carries one request at a time, so that as many requests can be in
flight as there are connections. One epoll loop drives them all; a request is one gathered write,
from the buffer that it was stamped into.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections import deque
from http.client import responses as PHRASES

from blaster import __version__
from blaster.errors import TargetUnreachable
from blaster.layout import Int64
from blaster.transport.base import Chunk, Framing, Outcome, Outcomes, SendCounts, Status
from blaster.transport.endpoint import Endpoint
from blaster.transport.headers import Headers
from blaster.transport.http_answer import CONTENT_TYPES, read_answer
from blaster.transport.http_connection import Address, HttpConnection, State
from blaster.transport.http_response import BadResponse, Response
from blaster.transport.outcomes import OutcomeLog
from blaster.transport.tls import Tls

_NAP_NS = 50_000_000
_FINE_NS = 3_000_000
"""epoll has a resolution of milliseconds; shorter waits use select, which is finer."""

_CONNECT_NS = 5_000_000_000
_BACKOFF_MIN_NS, _BACKOFF_MAX_NS = 50_000_000, 2_000_000_000

_EMPTY = {"protobuf": b"", "json": b"{}", "betrace": b'{"spans":[]}'}
_PROXY_STATUSES = (502, 504)
"""A gateway without its server (RFC 9110, 15.6.3 and 15.6.5)."""
_RECEIVER_STATUSES = (400, 408, 413, 429)
"""4xx that an OTLP receiver may answer an empty request with; others mean that it is none, or that
it refuses this client."""


class _Request:
    """A request. ``deadline``: when it is given up (CLOCK_MONOTONIC). ``ended``: it has an Outcome.
    ``number``: -1 for the empty request of the preflight, which is not counted."""

    __slots__ = ("data", "deadline", "ended", "number", "scheduled", "sent", "size", "spans")

    def __init__(
        self,
        data: bytes | memoryview,
        scheduled: int,
        spans: int,
        number: int,
        sent: int,
        deadline: int,
    ) -> None:
        self.data, self.size = data, len(data)
        self.scheduled, self.spans, self.number = scheduled, spans, number
        self.sent, self.deadline = sent, deadline
        self.ended = False


class HttpTransport:
    """Posts to ``endpoint`` over ``connections`` connections, encrypted where there is ``tls``.

    ``encoding``: that of the batches: protobuf, json or betrace (its own JSON); ``compression``:
    theirs, the Content-Encoding. ``timeout_s`` is each request's deadline; ``headers`` go with
    every request.
    """

    framing: Framing = "made"

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        tls: Tls | None,
        encoding: str,
        compression: str,
        connections: int,
        timeout_s: float,
        headers: Headers,
        counts: SendCounts,
        stop: Int64,
    ) -> None:
        self._endpoint, self._encoding = endpoint, encoding
        self._head = _head(endpoint, encoding, compression, headers)
        self._preflight_head = _head(endpoint, encoding, "none", headers)
        self._timeout_ns = round(timeout_s * 1e9)
        # Items of a memoryview cost a third of an array's.
        self._counts, self._stop = counts, stop.data
        self._log = OutcomeLog()
        self._addresses = _addresses(endpoint)
        self._address = 0
        context = None if tls is None else tls.context(["http/1.1"])
        self._connections = [HttpConnection(context, endpoint.host) for _ in range(connections)]
        self._epoll = select.epoll()
        self._by_fd: dict[int, HttpConnection] = {}
        self._idle: list[HttpConnection] = []
        self._closed: list[HttpConnection] = list(self._connections)
        self._busy: dict[HttpConnection, _Request] = {}
        # Requests offered while there is no connection, or not begun by one that closed.
        self._waiting: deque[_Request] = deque()
        # By deadline; requests that have ended stay in it for a while.
        self._by_deadline: deque[_Request] = deque()
        self._connect_by: dict[HttpConnection, int] = {}
        self._retry_at = self._backoff = 0
        self._now = time.monotonic_ns()
        self._preflight: dict[HttpConnection, bool] | None = None
        self._reason = ""

    def connect(self, timeout_s: float) -> None:
        """Opens the connections and exports an empty request on each."""
        until = time.monotonic_ns() + round(timeout_s * 1e9)
        for attempt in range(len(self._addresses)):
            self._address = attempt
            self._preflight = dict.fromkeys(self._connections, False)
            self._reason, self._retry_at = "", 0
            self._open_all()
            while not self._reason and not all(self._preflight.values()):
                if self._now >= until or self._stop[0]:
                    self._reason = "it does not answer an empty export"
                else:
                    self._poll(min(until, self._now + _NAP_NS))
            if not self._reason:
                self._preflight = None
                self._backoff = 0
                return
            self._busy.clear()
            for connection in self._connections:
                self._close(connection)
        raise TargetUnreachable(f"{self._endpoint.authority}: {self._reason}")

    def send(self, chunk: Chunk, until: int) -> int:
        """Offers the batches of ``chunk`` and returns how many, from the first, were offered."""
        scheduled, spans = chunk.scheduled.tolist(), chunk.spans.tolist()
        offsets, buffer, made = chunk.offsets.tolist(), chunk.buffer, chunk.made
        offered, count = 0, len(scheduled)
        self._poll(0)
        while offered < count:
            self._now = now = time.monotonic_ns()
            if now >= until or self._stop[0]:
                break
            due = scheduled[offered]
            if due > now:
                self._pass_time(min(due, until))
            elif (self._idle and not self._waiting) or self._can_wait():
                if made is None:
                    data: bytes | memoryview = buffer[offsets[offered] : offsets[offered + 1]]
                else:
                    data = next(made)
                self._offer(
                    _Request(
                        data,
                        due,
                        spans[offered],
                        chunk.first + offered,
                        now,
                        now + self._timeout_ns,
                    ),
                    chunk.again,
                )
                offered += 1
            else:
                self._pass_time(until)
        return offered

    def wait(self, until: int) -> None:
        """Handles answers until CLOCK_MONOTONIC reaches ``until``."""
        self._now = time.monotonic_ns()
        while self._now < until and not self._stop[0]:
            self._pass_time(until)

    def drain(self, until: int) -> None:
        """Waits for the answers to all that was sent; at ``until`` the rest is ABANDONED."""
        self._now = time.monotonic_ns()
        while self.in_flight() and self._now < until:
            self._pass_time(until)
        self._abandon()

    def outcomes(self) -> Outcomes:
        """Takes the Outcomes gathered since the last call."""
        return self._log.take()

    def in_flight(self) -> int:
        """Requests offered and not yet ended."""
        return len(self._busy) + len(self._waiting)

    def messages(self) -> dict[int, str]:
        """The first message that came with each status."""
        return self._log.messages

    def close(self) -> None:
        """Closes the connections; what is in flight is ABANDONED."""
        self._abandon()
        for connection in self._connections:
            self._close(connection)
        self._epoll.close()

    # Requests.

    def _can_wait(self) -> bool:
        """Whether a request may be offered that no connection can take now: only if there is no
        connection at all, so that requests to a target that is down fail instead of waiting."""
        usable = self._busy or any(c.state == State.IDLE for c in self._connections)
        return not usable and self.in_flight() < len(self._connections)

    def _offer(self, request: _Request, again: bool) -> None:
        if not again:
            self._counts.count_request(request.spans, request.size)
        self._by_deadline.append(request)
        if self._idle:
            self._start(self._idle.pop(), request)
        else:
            self._waiting.append(request)

    def _dispatch(self) -> None:
        """Send waiting requests over idle connections."""
        while self._waiting and self._idle:
            request = self._waiting.popleft()
            request.sent = self._now
            self._start(self._idle.pop(), request)

    def _start(self, connection: HttpConnection, request: _Request) -> None:
        self._busy[connection] = request
        head = self._head if request.number >= 0 else self._preflight_head
        try:
            connection.send((b"%b%d\r\n\r\n" % (head, request.size), request.data))
        except OSError as error:
            self._broken(connection, error)
        else:
            if connection.wants_write:
                self._watch(connection)

    def _end(self, request: _Request, status: int, message: str = "") -> None:
        self._finish(request, status, 0, message, -1)

    def _finish(
        self, request: _Request, status: int, rejected: int, message: str, delay: int
    ) -> None:
        request.ended = True
        request.data = b""
        outcome = Outcome(
            scheduled=request.scheduled,
            sent=request.sent,
            done=self._now,
            spans=request.spans,
            bytes=request.size,
            rejected=rejected,
            status=status,
            number=request.number,
            delay=delay,
        )
        self._log.add(outcome, message)

    def _abandon(self) -> None:
        self._now = time.monotonic_ns()
        for connection, request in self._busy.items():
            self._close(connection)
            if request.number >= 0:
                self._end(request, Status.ABANDONED, "no answer before the end of the run")
        for request in self._waiting:
            self._never_left(request, "the end of the run")
        self._busy.clear()
        self._waiting.clear()
        self._by_deadline.clear()

    def _never_left(self, request: _Request, until: str) -> None:
        why = f": {self._reason}" if self._reason else ""
        self._end(request, Status.CONNECT_FAILED, f"no connection before {until}{why}")

    def _expire(self) -> None:
        """End requests and connection attempts past their deadline."""
        by_deadline = self._by_deadline
        while by_deadline and (by_deadline[0].ended or by_deadline[0].deadline <= self._now):
            request = by_deadline.popleft()
            if request.ended:
                continue
            for connection, other in self._busy.items():
                if other is request:
                    # HTTP/1.1 has no other way to cancel a request.
                    del self._busy[connection]
                    self._close(connection)
                    self._end(request, Status.NO_ANSWER_TIMEOUT, "no answer before the deadline")
                    break
            else:
                self._waiting.remove(request)
                self._never_left(request, "the deadline")
        for connection, by in list(self._connect_by.items()):
            if by <= self._now:
                self._lost(connection, "it does not answer")

    # Connections.

    def _pass_time(self, until: int) -> None:
        """Handle answers until ``until`` or for a moment, and whatever else is due."""
        self._expire()
        self._dispatch()
        if self._closed and self._now >= self._retry_at:
            self._open_all()
        wake = min(until, self._now + _NAP_NS)
        if self._by_deadline:
            wake = min(wake, self._by_deadline[0].deadline)
        if self._closed:
            wake = min(wake, self._retry_at)
        self._poll(wake)

    def _poll(self, wake: int) -> None:
        """Sleep until ``wake`` or until sockets are ready, and handle those."""
        left = wake - self._now
        if left > _FINE_NS:
            events = self._epoll.poll((left - _FINE_NS // 2) // 1_000_000 / 1e3)
        else:
            if left > 0:
                select.select((self._epoll,), (), (), left / 1e9)
            events = self._epoll.poll(0)
        self._now = time.monotonic_ns()
        for fd, _ in events:
            connection = self._by_fd.get(fd)
            if connection is None:
                continue
            if connection.state >= State.IDLE:
                self._read(connection)
            else:
                self._advance(connection)

    def _open_all(self) -> None:
        closed, self._closed = self._closed, []
        for connection in closed:
            try:
                connection.open(self._addresses[self._address])
            except OSError as error:
                self._lost(connection, _reason_of(error))
            else:
                self._connect_by[connection] = self._now + _CONNECT_NS
                self._by_fd[connection.fileno()] = connection
                self._epoll.register(connection.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _advance(self, connection: HttpConnection) -> None:
        try:
            connection.advance()
        except OSError as error:
            self._lost(connection, _reason_of(error))
            return
        # The TLS socket is another object with the same descriptor.
        self._watch(connection)
        if connection.state == State.IDLE:
            del self._connect_by[connection]
            if self._preflight is not None:
                deadline = self._now + self._timeout_ns
                data = _EMPTY[self._encoding]
                self._start(connection, _Request(data, 0, 0, -1, self._now, deadline))
            else:
                self._free(connection)

    def _watch(self, connection: HttpConnection) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if connection.wants_write else 0)
        self._epoll.modify(connection.fileno(), events)

    def _free(self, connection: HttpConnection) -> None:
        """Mark a connection idle, and send a waiting request over it."""
        connection.state = State.IDLE
        self._idle.append(connection)
        self._dispatch()

    def _read(self, connection: HttpConnection) -> None:
        try:
            if connection.unsent:
                connection.flush()
                self._watch(connection)
            while True:
                data = connection.receive()
                if data is None:
                    return
                if not self._take(connection, data) or not connection.pending():
                    return
        except BadResponse as error:
            request = self._busy.pop(connection, None)
            self._lost(connection, str(error))
            if request is not None and request.number >= 0:
                self._end(request, Status.INVALID_RESPONSE, str(error))
        except OSError as error:
            self._broken(connection, error)

    def _take(self, connection: HttpConnection, data: bytes) -> bool:
        """Handle received bytes (none: end of file); return whether more may come."""
        if connection.state == State.IDLE:
            # No request is open: the peer closes the connection, or breaks the protocol.
            self._lost(connection, "it closes the connection")
            return False
        response = connection.reader.feed(data) if data else connection.reader.end()
        if response is not None:
            self._answered(connection, response)
            return False
        if not data:
            self._broken(connection, None)
            return False
        return True

    def _answered(self, connection: HttpConnection, response: Response) -> None:
        request = self._busy.pop(connection)
        connection.answered = True
        self._backoff = 0
        if self._preflight is not None:
            self._preflight_answered(connection, response)
        else:
            answer = read_answer(response, request.spans, self._encoding)
            self._finish(request, *answer)
        # An answer that comes before the whole request was sent ends the connection.
        if not response.reusable or connection.unsent:
            self._close(connection)
        else:
            self._free(connection)

    def _preflight_answered(self, connection: HttpConnection, response: Response) -> None:
        assert self._preflight is not None
        self._preflight[connection] = True
        status = response.status
        if status in _PROXY_STATUSES:
            self._reason = f"a proxy answers {status} {PHRASES[status]}"
            return
        if status < 300 or status >= 500 or status in _RECEIVER_STATUSES:
            return
        message = read_answer(response, 0, self._encoding).message
        hint = {401: "; is a --header missing?", 404: "; is the path right?"}.get(status, "")
        self._reason = (
            f"{self._endpoint.path} answers an empty export with {status} "
            f"{PHRASES.get(status, '')}{hint}{f' ({message[:200]})' if message else ''}"
        )

    def _broken(self, connection: HttpConnection, error: OSError | None) -> None:
        """Handle a connection that ended, perhaps with a request open."""
        request = self._busy.pop(connection, None)
        # A peer that refuses a request may answer and close before it has read all of it.
        if error is not None and request is not None and connection.left:
            response = _final_response(connection)
            if response is not None:
                self._busy[connection] = request
                connection.reader.reset()
                self._answered(connection, response._replace(reusable=False))
                return
        why = _reason_of(error) if error is not None else "it closes the connection"
        left = connection.left and not (connection.answered and connection.closed_before(error))
        self._lost(connection, why)
        if request is None or request.number < 0:
            return
        if left:
            self._end(request, Status.CONNECTION_LOST, f"the connection was lost: {why}")
        else:
            self._waiting.appendleft(request)

    def _lost(self, connection: HttpConnection, why: str) -> None:
        """Close a connection that its peer or the network ended."""
        self._reason = why
        if not connection.answered and self._now >= self._retry_at:
            # Back off: a peer that refuses connections would be tried without pause.
            self._backoff = min(max(2 * self._backoff, _BACKOFF_MIN_NS), _BACKOFF_MAX_NS)
            self._retry_at = self._now + self._backoff
            self._address = (self._address + 1) % len(self._addresses)
        self._close(connection)

    def _close(self, connection: HttpConnection) -> None:
        if connection.state == State.CLOSED:
            if connection not in self._closed:
                self._closed.append(connection)
            return
        if connection in self._idle:
            self._idle.remove(connection)
        self._connect_by.pop(connection, None)
        self._by_fd.pop(connection.fileno(), None)
        connection.close()
        self._closed.append(connection)


def _head(endpoint: Endpoint, encoding: str, compression: str, headers: Headers) -> bytes:
    """The head of every request, up to the value of Content-Length."""
    default = 443 if endpoint.tls else 80
    host = endpoint.authority
    fields = [
        ("Host", host.removesuffix(f":{default}") if endpoint.port == default else host),
        ("User-Agent", f"blaster/{__version__}"),
        ("Content-Type", CONTENT_TYPES[encoding].decode()),
        ("Accept-Encoding", "identity"),
        *([("Content-Encoding", compression)] if compression != "none" else []),
        *headers,
    ]
    lines = [f"POST {endpoint.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "Content-Length: "]).encode()


def _addresses(endpoint: Endpoint) -> list[Address]:
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetUnreachable(f"{endpoint.authority}: {error.strerror}") from None
    addresses: list[Address] = [(int(family), where) for family, *_, where in found]
    return list(dict.fromkeys(addresses))[:16]


def _final_response(connection: HttpConnection) -> Response | None:
    """The response that came before the connection broke, if any."""
    try:
        while data := connection.receive():
            response = connection.reader.feed(data)
            if response is not None:
                return response
    except (OSError, BadResponse):
        pass
    return None


def _reason_of(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {(error.reason or str(error)).replace('_', ' ').lower()}"
    return os.strerror(error.errno) if error.errno else str(error)

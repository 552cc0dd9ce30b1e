"""OTLP/HTTP: the same counts as the gRPC receiver beside it, from a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

from blaster.address import cannot_listen, family
from blaster.otlp.response import PartialSuccess
from blaster.otlp.status import Code
from blaster.sink import otlp_http
from blaster.sink.capacity import NO_LIMIT, Capacity, Gate
from blaster.sink.fault import HTTP, Fault, Kind
from blaster.sink.fault_table import NO_FAULT, FaultTable, garbage
from blaster.sink.http_connection import Connection
from blaster.sink.otlp_http import Answer, Request

CONNECTIONS = 1024
MAX_BUFFERED_BYTES = 256 << 20
"""Of bodies that have come in part, over all connections."""
BACKLOG = 1024
TICK_S = 1.0
"""How often the timeouts are looked at."""
LOOK_S = 0.02
"""... and, when faults close it, whether the listener is to be open."""


class HttpReceiver:
    """Listens for OTLP/HTTP and gives every message to ``scan``.

    ``scan`` is the gRPC receiver's, so that all counts and IDs are in one place. The capacity
    and the faults are apart from the gRPC receiver's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        scan: Callable[[bytes, bool, int, int], tuple[int, int]],
        max_message_bytes: int,
        capacity: Capacity = NO_LIMIT,
    ) -> None:
        self.max_message_bytes = max_message_bytes
        self.date = formatdate(usegmt=True)
        self._host, self._port = host, port
        self._scan = scan
        self._gate = Gate(capacity)
        self._faults = FaultTable(HTTP)
        self._news: asyncio.Event | None = None
        self._connections: set[Connection] = set()
        self._buffered = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False

    def start(self) -> int:
        """Listens; returns the port. Raises UsageError when the address can't be listened on."""
        try:
            listener = _listener((self._host, self._port))
        except OSError as error:
            raise cannot_listen("--http-port", self._host, self._port, error) from None
        port = int(listener.getsockname()[1])
        ready = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(listener, ready),), name="http", daemon=True
        )
        self._thread.start()
        ready.wait()
        return port

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        address = listener.getsockname()
        server: asyncio.Server | None = await self._listen(listener)
        ready.set()
        ticked = 0.0
        while not self._stopping:
            if self._loop.time() >= ticked + TICK_S:
                ticked = self._loop.time()
                self._tick()
            paused = self._faults.refusing and self._faults.listener_paused(time.monotonic_ns())
            if paused and server is not None:
                server.close()
                server = None
            elif server is None and not paused:
                with contextlib.suppress(OSError):  # tried again before long
                    server = await self._listen(_listener(address))
            patience = LOOK_S if self._faults.refusing or server is None else TICK_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), patience)
            self._news.clear()
        if server is not None:
            server.close()
        for connection in list(self._connections):
            connection.transport.abort()

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        assert self._loop is not None
        return await self._loop.create_server(
            lambda: Connection(self), sock=listener, backlog=BACKLOG
        )

    def _tick(self) -> None:
        self.date = formatdate(usegmt=True)
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            connection.tick(now)

    def stop(self, grace_s: float = 1.0) -> None:
        """Stops listening and closes the connections, within ``grace_s`` seconds."""
        if self._loop is None or self._news is None or self._thread is None:
            return
        self._stopping = True
        self._loop.call_soon_threadsafe(self._news.set)
        self._thread.join(grace_s)

    def set_faults(self, faults: Sequence[Fault], seed: int) -> None:
        """Replace the faults; their time begins with the next request."""
        self._faults.set(faults, seed)
        if self._loop is not None and self._news is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    def fault_hits(self) -> Sequence[int]:
        """How often each was met."""
        return tuple(self._faults.hits)

    def freeze(self, seconds: float) -> None:
        """Stands still so long, as if the process were stopped. Any thread may ask."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(time.sleep, seconds)

    # What a Connection asks.

    def opened(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        if len(self._connections) >= CONNECTIONS:
            return False
        if self._faults.refusing and self._faults.refuses(time.monotonic_ns()):
            connection.reset()
            return False
        self._connections.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""
        self._connections.discard(connection)

    def room_for(self, size: int) -> bool:
        """Whether so many more bytes of bodies may be held; negative: they are let go."""
        self._buffered += size
        return self._buffered <= MAX_BUFFERED_BYTES

    def take(self, connection: Connection, request: Request) -> None:
        """Scans the request's message and answers it, now or when it is its turn."""
        content = request.content_type
        try:
            data = otlp_http.message_of(request, self.max_message_bytes)
        except otlp_http.Refused as refused:
            connection.answer(refused.answer)
            return
        # No fault for an empty message: with it a client only checks that somebody listens.
        empty = b'"spans"' not in data if content == otlp_http.JSON else not data
        drawn = self._faults.draw(time.monotonic_ns()) if not empty else NO_FAULT
        fault = drawn.fault
        if fault is not None and fault.kind == Kind.HTTP:
            connection.answer(_refusal(fault, content))
            return
        if fault is not None and fault.kind == Kind.FREEZE:
            time.sleep(fault.low / 1e9)
        if not empty and not self._gate.admits():
            code = Code.RESOURCE_EXHAUSTED
            connection.answer(otlp_http.error(429, code, "over capacity", content))
            return
        share = fault.low if fault is not None and fault.kind == Kind.PARTIAL else 0
        json, random = content == otlp_http.JSON, drawn.random & 0xFFFFFFFF
        spans, rejected = self._scan(data, json, share, random)
        if spans < 0:
            why = "the message is not an ExportTraceServiceRequest"
            connection.answer(otlp_http.error(400, Code.INVALID_ARGUMENT, why, content))
            return
        wait = self._gate.take(spans) + drawn.delay_ns / 1e9

        def answer() -> None:
            if rejected:
                connection.answer(
                    otlp_http.partly_accepted(content, PartialSuccess(rejected, ON_PURPOSE))
                )
            elif fault is not None:
                _answer_with(fault, drawn.random, connection, content)
            else:
                connection.answer(otlp_http.accepted(content))

        if wait > 0:
            asyncio.get_running_loop().call_later(wait, answer)
        else:
            answer()


def _listener(address: tuple[Any, ...]) -> socket.socket:
    listener = socket.create_server(address[:2], family=family(address[0]), backlog=BACKLOG)
    listener.setblocking(False)
    return listener


ON_PURPOSE = "rejected on purpose"


def _refusal(fault: Fault, content: str) -> Answer:
    headers: list[tuple[str, str]] = []
    if fault.retry_ns is not None:
        when = str(fault.retry_after_s)
        if fault.date:
            when = formatdate(math.ceil(time.time() + fault.retry_ns / 1e9), usegmt=True)
        headers.append(("Retry-After", when))
    code = Code.UNAVAILABLE
    return otlp_http.error(fault.low, code, "a fault on purpose", content, *headers)


def _answer_with(fault: Fault, random: int, connection: Connection, content: str) -> None:
    """Answers a request whose spans were counted as the fault has it."""
    if fault.kind == Kind.RESET:
        connection.reset()
    elif fault.kind == Kind.HALF_CLOSE:
        connection.end()
    elif fault.kind == Kind.FRAMES:
        connection.write(b"\xff" * 64)
        connection.end()
    elif fault.kind == Kind.GARBAGE:
        connection.answer(Answer(200, content, garbage(random)))
    elif fault.kind == Kind.OVERSIZE:
        long = PartialSuccess(message="x" * fault.low)
        connection.answer(otlp_http.partly_accepted(content, long))
    elif fault.kind == Kind.CONTENT_TYPE:
        connection.answer(Answer(200, "text/html", b"<html></html>"))
    else:
        if fault.kind == Kind.SLOW_READ:
            connection.hold(fault.low / 1e9)
        connection.answer(otlp_http.accepted(content))

"""OTLP/HTTP: the same counts as the gRPC receiver beside it, from a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate

from blaster.errors import UsageError
from blaster.sink import otlp_http
from blaster.sink.capacity import NO_LIMIT, Capacity, Gate
from blaster.sink.http_connection import Connection
from blaster.sink.otlp_http import Request

CONNECTIONS = 1024
MAX_BUFFERED_BYTES = 256 << 20
"""Of bodies that have come in part, over all connections."""
BACKLOG = 1024


class HttpReceiver:
    """Listens for OTLP/HTTP and gives every message to ``scan``.

    ``scan`` (the gRPC receiver's, so that all counts and IDs are in one place) returns the number
    of spans, or -1 when the message is malformed. JSON is counted as the protobuf that says the
    same. The capacity is apart from the gRPC receiver's.
    """

    def __init__(
        self,
        host: str,
        port: int,
        scan: Callable[[bytes], int],
        max_message_bytes: int,
        capacity: Capacity = NO_LIMIT,
    ) -> None:
        self.max_message_bytes = max_message_bytes
        self.date = formatdate(usegmt=True)
        self._host, self._port = host, port
        self._scan = scan
        self._gate = Gate(capacity)
        self._connections: set[Connection] = set()
        self._buffered = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> int:
        """Listens; returns the port. Raises UsageError when the address can't be listened on."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server(
                (self._host, self._port), family=family, backlog=BACKLOG
            )
        except OSError as error:
            raise UsageError(
                f"--http-port {self._port}: can't listen on {self._host}:{self._port}: "
                f"{error.strerror or error}; choose another port, or 0 for a free one"
            ) from None
        listener.setblocking(False)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(listener, ready),), name="http", daemon=True
        )
        self._thread.start()
        ready.wait()
        return int(listener.getsockname()[1])

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(
            lambda: Connection(self), sock=listener, backlog=BACKLOG
        )
        ready.set()
        while not self._stopping.is_set():
            self._tick()
            try:
                await asyncio.wait_for(self._stopping.wait(), 1.0)
            except TimeoutError:
                continue
        server.close()
        for connection in list(self._connections):
            connection.transport.abort()

    def _tick(self) -> None:
        self.date = formatdate(usegmt=True)
        now = asyncio.get_running_loop().time()
        for connection in list(self._connections):
            connection.tick(now)

    def stop(self, grace_s: float = 1.0) -> None:
        """Stops listening and closes the connections, within ``grace_s`` seconds."""
        if self._loop is None or self._stopping is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(grace_s)

    def freeze(self, seconds: float) -> None:
        """Stands still so long, as if the process were stopped. Any thread may ask."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(time.sleep, seconds)

    # What a Connection asks.

    def opened(self, connection: Connection) -> bool:
        """Whether there is room for one more."""
        if len(self._connections) >= CONNECTIONS:
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
        kind = request.content_type
        try:
            data = otlp_http.message_of(request, self.max_message_bytes)
        except otlp_http.Refused as refused:
            connection.answer(refused.answer)
            return
        # An empty message asks for nothing: a client's first look whether anybody is there.
        if data and not self._gate.admits():
            code = otlp_http.RESOURCE_EXHAUSTED
            connection.answer(otlp_http.error(429, code, "over capacity", kind))
            return
        try:
            spans = self._scan(otlp_http.protobuf_of(request, data))
            why = "the message is not an ExportTraceServiceRequest"
        except ValueError as reason:
            self._scan(NO_MESSAGE)
            spans, why = -1, str(reason)
        if spans < 0:
            error = otlp_http.error(400, otlp_http.INVALID_ARGUMENT, why, kind)
            connection.answer(error)
            return
        wait = self._gate.take(spans)
        answer = otlp_http.accepted(kind)
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, connection.answer, answer)
        else:
            connection.answer(answer)


NO_MESSAGE = b"\x0a"
"""Malformed, so that JSON which is none is counted as the scanner counts."""

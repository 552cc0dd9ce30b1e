"""The grpc transport: OTLP/gRPC on grpcio. Batches are sent as they were stamped, unparsed.

One asyncio loop runs a caller for each request that may be in flight; the callers share several
channels. grpcio's asyncio interface costs less CPU a call than its threads and futures.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count, repeat
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from blaster import __version__
from blaster.errors import TargetUnreachable
from blaster.layout import Int64
from blaster.otlp.status import DETAILS_TRAILER, retry_delay
from blaster.transport.base import (
    EXPORT_METHOD,
    Chunk,
    Framing,
    Outcome,
    Outcomes,
    SendCounts,
    Status,
)
from blaster.transport.outcomes import OutcomeLog
from blaster.transport.tls import Tls

_NAP_NS = 50_000_000
_REFUSED_PAUSE_S, _REFUSED_PAUSE_MAX_S = 0.01, 0.1
"""The pauses before a refused request is sent again, but for the first time: they grow so."""

_Stub = Any  # grpc.aio.UnaryUnaryMultiCallable: bytes in, bytes out

_OPTIONS = [
    # Without it, channels to one address would share a connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    # As the other transports: http_proxy and https_proxy are not used.
    ("grpc.enable_http_proxy", 0),
    ("grpc.primary_user_agent", f"blaster/{__version__}"),
    # Reconnect to a lost target soon: the run goes on.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class _Request(NamedTuple):
    data: bytes
    scheduled: int
    spans: int
    number: int
    again: bool


class GrpcTransport:
    """Sends to ``target`` (host:port) over ``connections`` channels, ``in_flight`` calls at most.

    ``tls``: None for plaintext. ``gzip``: grpcio compresses every message. ``timeout_s`` is
    each call's deadline; ``metadata`` goes with every call.
    """

    framing: Framing = "made"

    def __init__(
        self,
        *,
        target: str,
        tls: Tls | None,
        connections: int,
        in_flight: int,
        timeout_s: float,
        metadata: Sequence[tuple[str, str]],
        gzip: bool = False,
        counts: SendCounts,
        stop: Int64,
    ) -> None:
        self._target = target
        self._tls = tls
        self._connections = min(connections, in_flight)
        self._cap = in_flight
        self._timeout_s = timeout_s
        self._metadata = tuple(metadata) or None
        self._compression = grpc.Compression.Gzip if gzip else None
        # Items of a memoryview cost a third of an array's.
        self._counts, self._stop = counts, stop
        self._log = OutcomeLog()
        self._loop = asyncio.new_event_loop()
        self._callers: list[asyncio.Task[None]] = []
        self._channels: list[grpc.aio.Channel] = []
        # The requests that callers may take, when each is due (last first), and the idle callers.
        self._requests: Iterator[_Request] = iter(())
        self._due: list[int] = []
        self._idle: deque[asyncio.Future[_Request]] = deque()
        self._calling = 0
        # Set while the coroutine that drives the callers sleeps: wakes it.
        self._sleeper: asyncio.Future[None] | None = None

    def connect(self, timeout_s: float) -> None:
        self._loop.run_until_complete(self._connect(timeout_s))

    def send(self, chunk: Chunk, until: int) -> int:
        scheduled = chunk.scheduled.tolist()
        # A batch is made right before it is sent, so that its bytes are still in the caches.
        self._requests = map(
            _Request,
            chunk.each(),
            scheduled,
            chunk.spans.tolist(),
            count(chunk.first),
            repeat(chunk.again),
        )
        self._due = scheduled[::-1]
        self._loop.run_until_complete(self._offer(until))
        left = len(self._due)
        self._due = []
        return len(chunk) - left

    def wait(self, until: int) -> None:
        self._loop.run_until_complete(self._pass_time(until))

    def drain(self, until: int) -> None:
        self._loop.run_until_complete(self._drain(until))

    def outcomes(self) -> Outcomes:
        return self._log.take()

    def in_flight(self) -> int:
        return self._calling

    def messages(self) -> dict[int, str]:
        return self._log.messages

    def close(self) -> None:
        self._loop.run_until_complete(self._close())
        self._loop.close()

    def _channel(self) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(self._target, _OPTIONS, self._compression)
        certificate, key = self._tls.certificate_and_key()
        credentials = grpc.ssl_channel_credentials(self._tls.roots(), key, certificate)
        return grpc.aio.secure_channel(self._target, credentials, _OPTIONS, self._compression)

    async def _connect(self, timeout_s: float) -> None:
        self._channels = [self._channel() for _ in range(self._connections)]
        stubs = [channel.unary_unary(EXPORT_METHOD, None, None) for channel in self._channels]
        until = time.monotonic_ns() + round(timeout_s * 1e9)
        for stub in stubs:
            reason = await self._preflight(stub, until)
            if reason is not None:
                raise TargetUnreachable(f"{self._target}: {reason}")
        self._callers = [
            self._loop.create_task(self._call(stubs[i % len(stubs)])) for i in range(self._cap)
        ]

    async def _preflight(self, stub: _Stub, until: int) -> str | None:
        """Export an empty request; return why the peer is no target, None if it is one."""
        try:
            answer = await self._send_until(stub, b"", until, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return _refusal(error)
        return None if answer is not None else f"its answer to an empty export is invalid: {_EMPTY}"

    async def _send_until(
        self, stub: _Stub, data: bytes, until: int, *, wait_for_ready: bool = False
    ) -> bytes | None:
        """Send a request, and again at once while the peer did not process it (RFC 9113, 6.8 and
        8.7), until a time. Raises AioRpcError."""
        pause_s = 0.0
        while True:
            left_s = max(0.001, (until - time.monotonic_ns()) / 1e9)
            try:
                answer: bytes | None = await stub(
                    data, timeout=left_s, metadata=self._metadata, wait_for_ready=wait_for_ready
                )
                return answer
            except grpc.aio.AioRpcError as error:
                if not _never_processed(error) or time.monotonic_ns() + pause_s * 1e9 >= until:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s + _REFUSED_PAUSE_S, _REFUSED_PAUSE_MAX_S)

    async def _offer(self, until: int) -> None:
        """Hand each request to a caller when it is due."""
        while self._due:
            now = time.monotonic_ns()
            if now >= until or self._stop[0]:
                return
            if self._due[-1] > now:
                await self._sleep(min(self._due[-1], until) - now)
            elif self._idle:
                self._idle.popleft().set_result(self._take())
            else:
                await self._sleep(until - now)

    async def _pass_time(self, until: int) -> None:
        while (left := until - time.monotonic_ns()) > 0 and not self._stop[0]:
            await self._sleep(left)

    async def _drain(self, until: int) -> None:
        while self._calling and (left := until - time.monotonic_ns()) > 0:
            await self._sleep(left)
        await self._cancel()

    async def _cancel(self) -> None:
        for caller in self._callers:
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        self._callers = []

    async def _close(self) -> None:
        await self._cancel()
        for channel in self._channels:
            await channel.close(None)

    async def _sleep(self, ns: int) -> None:
        """Sleep for ``ns`` or less: until a caller wakes it, or the stop word is to be checked."""
        self._sleeper = self._loop.create_future()
        timer = self._loop.call_later(min(ns, _NAP_NS) / 1e9, self._wake)
        await self._sleeper
        timer.cancel()

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def _take(self) -> _Request:
        self._due.pop()
        return next(self._requests)

    async def _call(self, stub: _Stub) -> None:
        """Run one caller: take a request that is due, or wait for one; send it; get its answer."""
        while True:
            if self._due and self._due[-1] <= time.monotonic_ns():
                request = self._take()
                if not self._due:
                    self._wake()
            else:
                idle = self._loop.create_future()
                self._idle.append(idle)
                self._wake()
                request = await idle
            await self._export(stub, request)

    async def _export(self, stub: _Stub, request: _Request) -> None:
        size = len(request.data)
        if not request.again:
            self._counts.count_request(request.spans, size)
        self._calling += 1
        status, rejected, message = Status.ABANDONED, 0, "no answer when the run ended"
        delay = -1
        sent = time.monotonic_ns()
        try:
            until = sent + round(self._timeout_s * 1e9)
            answer = await self._send_until(stub, request.data, until)
            status, rejected, message = _read_answer(answer, request.spans)
        except grpc.aio.AioRpcError as error:
            status, message = _classify(error)
            delay = _retry_delay(error)
        finally:
            # On cancellation, too: every request has an Outcome.
            self._calling -= 1
            done = time.monotonic_ns()
            outcome = Outcome(
                scheduled=request.scheduled,
                sent=sent,
                done=done,
                spans=request.spans,
                bytes=size,
                rejected=rejected,
                status=int(status),
                number=request.number,
                delay=delay,
            )
            self._log.add(outcome, message)


def _read_answer(answer: bytes | None, spans: int) -> tuple[Status, int, str]:
    """Return status, rejected spans and message of an answer with grpc-status OK."""
    if answer is None:
        return Status.INVALID_RESPONSE, 0, _EMPTY
    if not answer:
        return Status.OK, 0, ""
    try:
        partial = ExportTraceServiceResponse.FromString(answer).partial_success
    except DecodeError:
        return Status.INVALID_RESPONSE, 0, "the answer is not an ExportTraceServiceResponse"
    if not 0 <= partial.rejected_spans <= spans:
        return (
            Status.INVALID_RESPONSE,
            0,
            f"the answer rejects {partial.rejected_spans} of {spans} spans",
        )
    return Status.OK, partial.rejected_spans, partial.error_message


def _retry_delay(error: grpc.aio.AioRpcError) -> int:
    """The delay (ns) in the RetryInfo that came with the error; -1: none."""
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key == DETAILS_TRAILER and isinstance(value, bytes):
            return retry_delay(value)
    return -1


_GRPCIO_ERRORS = re.compile(
    r"stream removed|socket closed|deadline exceeded|transport closed|endpoint clos|recvmsg|"
    r"sendmsg|connection (reset|aborted|timed)|broken pipe|goaway|keepalive|rst_stream|cancell?ed",
    re.IGNORECASE,
)
"""The words of grpcio's own errors."""


_NEVER_PROCESSED = re.compile(
    r"Stream removed \((GOAWAY received;|RST_STREAM \(Received RST_STREAM with error code 7\))"
)
"""grpcio's words for a stream above GOAWAY's last stream ID, and for REFUSED_STREAM."""

_HTTP_STATUS = re.compile(r"Received http2 header with status: ([0-9]{3})")
"""grpcio's words for an answer that is not gRPC's."""

_EMPTY = "grpc-status 0 without a response message"

_TARGETS = (
    Status.INVALID_ARGUMENT,
    Status.DEADLINE_EXCEEDED,
    Status.RESOURCE_EXHAUSTED,
    Status.ABORTED,
    Status.UNAVAILABLE,
)
"""The statuses by which a receiver may answer an empty export, because it is empty or busy."""


def _never_processed(error: grpc.aio.AioRpcError) -> bool:
    return _NEVER_PROCESSED.match(error.details() or "") is not None


def _refusal(error: grpc.aio.AioRpcError) -> str | None:
    """Why a peer that answers an empty export so is no target, as the wire client says it; None if
    it is one."""
    status, message = _classify(error)
    message = " ".join(message.split())[:200]
    if found := _HTTP_STATUS.match(message):
        if found[1] in ("429", "502", "503", "504"):
            return f"a proxy answers {found[1]}: {error.code().name}"
        return f"it speaks HTTP/2 but not gRPC: HTTP status {found[1]} without gRPC's own answer"
    if status in _TARGETS:
        return None
    words = {
        Status.REFUSED_STREAM: "it refuses every stream (REFUSED_STREAM)",
        Status.UNIMPLEMENTED: f"it speaks gRPC but does not take OTLP traces: {message}",
        Status.STREAM_RESET: f"it speaks HTTP/2 but not gRPC: {message}",
    }
    return words.get(status, f"it refuses an empty request with {error.code().name}: {message}")


def _classify(error: grpc.aio.AioRpcError) -> tuple[Status, str]:
    """Return the status and message of a request that ended in an error.

    grpcio uses the same codes for the peer's errors and its own; only the words tell them apart. An
    error that could be its own means that the request left and no answer came: unknown, not failed.
    """
    code, details = error.code(), error.details() or ""
    words = f"{details} {error.debug_error_string() or ''}"
    if _never_processed(error):
        return Status.REFUSED_STREAM, details
    if "failed to connect" in words.lower():
        return Status.CONNECT_FAILED, details
    if "received message larger" in words.lower():
        return Status.INVALID_RESPONSE, details
    if not _GRPCIO_ERRORS.search(words):
        return Status(code.value[0]), details
    own = {
        grpc.StatusCode.DEADLINE_EXCEEDED: Status.NO_ANSWER_TIMEOUT,
        grpc.StatusCode.UNAVAILABLE: Status.CONNECTION_LOST,
    }
    return own.get(code, Status.STREAM_RESET), details

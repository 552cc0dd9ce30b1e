"""What every transport is: it takes batches at their scheduled times and gives Outcomes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from blaster._native import Batches
from blaster.layout import Int64, Layout, Word, Words

EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


class Status(IntEnum):
    """How a request ended: 0–16 as the peer said in grpc-status, 100–599 as it said in HTTP
    (HTTP_429), the rest as we saw it ourselves.

    32 and up: the request left and no usable answer came, so its spans are *unknown*.
    64 and up: the request certainly was not processed, so its spans *failed*.
    100 and up: an answer of OTLP/HTTP that is no success, so its spans *failed*.
    """

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16
    NO_ANSWER_TIMEOUT = 32
    CONNECTION_LOST = 33
    STREAM_RESET = 34
    INVALID_RESPONSE = 35
    ABANDONED = 36
    WORKER_LOST = 37
    HOST_LOST = 40
    CONNECT_FAILED = 64
    REFUSED_STREAM = 65

    @classmethod
    def _missing_(cls, value: object) -> Status | None:
        if not isinstance(value, int) or not FIRST_HTTP <= value < STATUS_COUNT:
            return None
        member = int.__new__(cls, value)
        member._name_, member._value_ = f"HTTP_{value}", value
        return member


FIRST_UNANSWERED = 32
FIRST_NOT_PROCESSED = 64
FIRST_HTTP = 100
STATUS_COUNT = 600


def answered(status: Int64) -> npt.NDArray[np.bool_]:
    """Whether requests (n) that ended with these statuses were answered by the peer."""
    found: npt.NDArray[np.bool_] = (status < FIRST_UNANSWERED) | (status >= FIRST_HTTP)
    return found


def left(status: Int64) -> npt.NDArray[np.bool_]:
    """Whether such requests left at all."""
    found: npt.NDArray[np.bool_] = (status < FIRST_NOT_PROCESSED) | (status >= FIRST_HTTP)
    return found


class Outcome(NamedTuple):
    """One request's end.

    Times in CLOCK_MONOTONIC nanoseconds; ``spans`` and ``bytes`` in the request, ``rejected`` spans
    as partial_success says; ``status`` a :class:`Status`; ``number`` the batch's, see
    :class:`Chunk`; ``delay`` the nanoseconds after which the peer wants it again (RetryInfo,
    Retry-After), -1 where it did not say.
    """

    scheduled: int
    sent: int
    done: int
    spans: int
    bytes: int
    rejected: int
    status: int
    number: int
    delay: int


OUTCOME = np.dtype([(name, np.int64) for name in Outcome._fields])
"""Outcomes in an array: an int64 for each field of :class:`Outcome`, by its name."""

Outcomes = np.ndarray[Any, np.dtype[np.void]]
"""An array of OUTCOME."""


class SendCounts(Layout):
    """What a transport counts as it goes: raised *before* the first byte of a request can leave, so
    that what a killed worker sent is known.

    ``sent_…``: requests, spans and bytes, each once. ``retried_…``: requests and spans sent again,
    ``possible_duplicates`` the spans among them that may have been received before, and
    ``retried_statuses`` the requests by the Status of the try before.

    Nanoseconds, where the transport can tell (else 0): ``behind_ns``, while a request was due and
    not offered; of that ``backpressure_ns``, asleep because the peer's flow control or a full
    socket let nothing through, and ``capped_ns``, asleep because as many requests were in flight as
    may be; both less what it overslept because others had its CPU.

    ``uncompressed_bytes`` and ``compressed_bytes`` went into and came out of the compression, which
    took ``compression_ns`` of CPU time.
    """

    sent_requests = Word()
    sent_spans = Word()
    sent_bytes = Word()
    retried_requests = Word()
    retried_spans = Word()
    possible_duplicates = Word()
    behind_ns = Word()
    backpressure_ns = Word()
    capped_ns = Word()
    uncompressed_bytes = Word()
    compressed_bytes = Word()
    compression_ns = Word()
    retried_statuses = Words(STATUS_COUNT)

    def count_request(self, spans: int, size: int) -> None:
        """Count one request that is about to be sent for the first time."""
        self.sent_requests += 1
        self.sent_spans += spans
        self.sent_bytes += size


@dataclass(slots=True)
class Chunk:
    """Some batches, each the bytes of one ExportTraceServiceRequest.

    Either they stand in ``buffer``, which ``offsets`` (n + 1) cut into batches; or ``made`` makes
    them one after another, each when it is sent. ``scheduled`` (n) are CLOCK_MONOTONIC nanoseconds,
    ascending; ``spans`` (n) the spans in each batch. Batch i has the number ``first`` + i, which
    its Outcome repeats. ``again``: the batches were sent before and are counted already.
    """

    scheduled: Int64
    spans: Int64
    offsets: Int64 = field(default_factory=lambda: np.zeros(1, np.int64))
    buffer: memoryview = field(default_factory=lambda: memoryview(b""))
    made: Batches | None = None
    first: int = 0
    again: bool = False

    @classmethod
    def of(
        cls,
        batches: Sequence[bytes],
        scheduled: Int64,
        spans: Int64,
        *,
        first: int = 0,
        again: bool = False,
    ) -> Chunk:
        """A chunk of these bytes."""
        offsets = np.cumsum([0, *map(len, batches)], dtype=np.int64)
        joined = memoryview(batches[0] if len(batches) == 1 else b"".join(batches))
        return cls(scheduled, spans, offsets, joined, first=first, again=again)

    def __len__(self) -> int:
        return len(self.scheduled)

    def part(self, begin: int, end: int) -> Chunk:
        """The batches from ``begin`` up to ``end`` of the buffer, with the numbers that they have.

        Raises ValueError where they are not in a buffer."""
        if self.made is not None:
            raise ValueError("batches that are made when they are sent cannot be taken apart")
        return Chunk(
            self.scheduled[begin:end],
            self.spans[begin:end],
            offsets=self.offsets[begin : end + 1],
            buffer=self.buffer,
            first=self.first + begin,
            again=self.again,
        )

    def sizes(self) -> Int64:
        """The bytes of each batch in the buffer (n)."""
        return np.diff(self.offsets)

    def view(self, index: int) -> memoryview:
        """The bytes of one batch, in place in the buffer."""
        begin, end = self.offsets[index : index + 2].tolist()
        return self.buffer[begin:end]

    def batch(self, index: int) -> bytes:
        """The bytes of one batch in the buffer, to keep."""
        return bytes(self.view(index))

    def each(self) -> Iterator[bytes]:
        """The bytes of one batch after another, made when they are asked for."""
        return map(self.batch, range(len(self))) if self.made is None else iter(self.made)


def send_in_pieces(chunk: Chunk, weights: Int64, most: int, send: Callable[[Chunk], int]) -> int:
    """Sends a chunk's batches in pieces whose ``weights`` (n) add up to ``most`` or less, or of one
    batch that has more; returns how many, from the first, were offered."""
    offered = 0
    while offered < len(chunk):
        ends = np.cumsum(weights[offered:])
        count = max(1, int(np.searchsorted(ends, most, side="right")))
        piece = chunk.part(offered, offered + count)
        took = send(piece)
        offered += took
        if took < len(piece):
            break
    return offered


Framing = Literal["made", "buffer"]
"""How a transport wants its batches: made when they are sent, or in a buffer."""


class Transport(Protocol):
    """Sends batches in order, each no earlier than its scheduled time, and never loses count.

    One whose ``framing`` is "made" takes batches in a buffer, too.

    It is made with ``counts``, in shared memory, which it raises for all but a chunk that is sent
    ``again``, and ``stop``, an int64 array of one: once it is not 0, ``send`` and ``wait`` return
    within 100 ms.
    """

    framing: Framing

    def connect(self, timeout_s: float) -> None:
        """Opens the connections and exports an empty request on each.

        Raises TargetUnreachable, saying what the peer seems to be.
        """

    def send(self, chunk: Chunk, until: int) -> int:
        """Offers the batches of ``chunk`` and returns how many, from the first, were offered.

        Returns early only when CLOCK_MONOTONIC reaches ``until`` (nanoseconds) or on stop.
        """

    def wait(self, until: int) -> None:
        """Handles answers until CLOCK_MONOTONIC reaches ``until``."""

    def drain(self, until: int) -> None:
        """Waits for the answers to all that was sent; at ``until`` the rest is ABANDONED.

        The stop word does not cut it short. Nothing is sent afterwards.
        """

    def outcomes(self) -> Outcomes:
        """Takes the Outcomes (dtype OUTCOME) gathered since the last call."""

    def in_flight(self) -> int:
        """Requests sent and not yet answered."""

    def messages(self) -> dict[int, str]:
        """The first message that came with each status."""

    def close(self) -> None:
        """Closes the connections; what is in flight is ABANDONED."""


TransportFactory = Callable[[SendCounts, Int64], Transport]
"""Makes a transport with its ``counts`` and ``stop``, in the worker."""

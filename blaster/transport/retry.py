"""Which requests are sent again, how often, and when: the rules of OTLP 1.11.

https://opentelemetry.io/docs/specs/otlp/#failures lists the gRPC and HTTP statuses that may be
retried, asks for exponential backoff with jitter, and for the peer's own delay where it gives one
(RetryInfo, Retry-After). It leaves numbers open: these are the OpenTelemetry Java SDK's.
"""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from blaster.errors import UsageError
from blaster.transport.base import (
    FIRST_NOT_PROCESSED,
    FIRST_UNANSWERED,
    STATUS_COUNT,
    Int64,
    Status,
)
from blaster.units import quoted

OFF, SPEC, IGNORE_THROTTLE = MODES = ("off", "spec", "ignore-throttle")

MAX_TRIES = 5
FIRST_BACKOFF_NS, MAX_BACKOFF_NS, FACTOR, JITTER = 1_000_000_000, 5_000_000_000, 1.5, 0.2

_STATUSES = (
    Status.CANCELLED,
    Status.DEADLINE_EXCEEDED,
    Status.ABORTED,
    Status.OUT_OF_RANGE,
    Status.UNAVAILABLE,
    Status.DATA_LOSS,
    # What we saw ourselves: gRPC has UNAVAILABLE or CANCELLED for these, and OTLP/HTTP asks for a
    # retry where the server "disconnects without returning a response" or cannot be connected to.
    Status.CONNECTION_LOST,
    Status.STREAM_RESET,
    Status.CONNECT_FAILED,
    Status.REFUSED_STREAM,
)
"""NO_ANSWER_TIMEOUT is not among them: the time for a request and its retries is over then."""

_RETRYABLE = np.zeros(STATUS_COUNT, np.bool_)
_RETRYABLE[list(_STATUSES)] = True
_RETRYABLE[[429, 502, 503, 504]] = True  # of OTLP/HTTP


def check(mode: str) -> str:
    """``mode``, which ``--retry`` gave. UsageError where there is no such mode."""
    if mode not in MODES:
        raise UsageError(f"--retry {quoted(mode)}: must be {', '.join(MODES)}")
    return mode


def retryable(status: Int64, delay_ns: Int64) -> npt.NDArray[np.bool_]:
    """Whether requests (n) that ended with these statuses may be sent again. ``delay_ns``: what the
    peer asked for; -1: nothing. A partial success is OK and never may."""
    # RESOURCE_EXHAUSTED with a delay: the peer says by it that it will recover.
    asked = (status == Status.RESOURCE_EXHAUSTED) & (delay_ns >= 0)
    found: npt.NDArray[np.bool_] = _RETRYABLE[status] | asked
    return found


def maybe_received(status: int) -> bool:
    """Whether the peer may have the spans of a request that ended so. gRPC gives CANCELLED and
    DEADLINE_EXCEEDED to calls that succeeded too late, too."""
    unanswered = FIRST_UNANSWERED <= status < FIRST_NOT_PROCESSED
    return unanswered or status in (Status.CANCELLED, Status.DEADLINE_EXCEEDED)


class Backoff:
    """How long to wait before a retry; the jitter is ``seed``'s."""

    def __init__(self, mode: str, seed: int) -> None:
        self._heeds = mode == SPEC
        self._random = random.Random(seed)

    def wait_ns(self, tries: int, delay_ns: int) -> int:
        """After so many tries (1 and more) and the delay that the peer asked for (-1: none).

        The n-th backoff is min(1 s · 1.5^(n-1), 5 s), more or less by up to a fifth; a delay that
        the peer asked for is kept in its place, and up to a fifth more.
        """
        if self._heeds and delay_ns > 0:
            return round(delay_ns * (1 + JITTER * self._random.random()))
        backoff = min(FIRST_BACKOFF_NS * FACTOR ** (tries - 1), MAX_BACKOFF_NS)
        return round(backoff * (1 + JITTER * (2 * self._random.random() - 1)))

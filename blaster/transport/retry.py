"""The rules of retries in OTLP 1.11: which requests, how often, and when.

https://opentelemetry.io/docs/specs/otlp/#failures lists the gRPC and HTTP statuses that may be
retried, and asks for exponential backoff with jitter, or the peer's own delay if it sends one
(RetryInfo, Retry-After). It gives no numbers: these are the OpenTelemetry Java SDK's.
"""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt

from blaster.errors import UsageError
from blaster.layout import Int64
from blaster.transport.base import FIRST_NOT_PROCESSED, FIRST_UNANSWERED, STATUS_COUNT, Status
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
    # Seen by the client itself: gRPC has UNAVAILABLE or CANCELLED for these, and OTLP/HTTP asks
    # for a retry if the server "disconnects without returning a response" or is unreachable.
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
    """Return ``mode``, the value of ``--retry``. UsageError if there is no such mode."""
    if mode not in MODES:
        raise UsageError(f"--retry {quoted(mode)}: must be {', '.join(MODES)}")
    return mode


def retryable(status: Int64, delay_ns: Int64) -> npt.NDArray[np.bool_]:
    """Whether requests (n) that ended with these statuses may be sent again. ``delay_ns``: the
    delay that the peer asked for; -1: none. Partial successes have the status OK: no retry."""
    # A delay with RESOURCE_EXHAUSTED means that the peer expects to recover.
    asked = (status == Status.RESOURCE_EXHAUSTED) & (delay_ns >= 0)
    found: npt.NDArray[np.bool_] = _RETRYABLE[status] | asked
    return found


def maybe_received(status: int) -> bool:
    """Whether the peer may have received the spans of a request that ended with ``status``. In gRPC
    a call that succeeded too late is CANCELLED or DEADLINE_EXCEEDED, too."""
    unanswered = FIRST_UNANSWERED <= status < FIRST_NOT_PROCESSED
    return unanswered or status in (Status.CANCELLED, Status.DEADLINE_EXCEEDED)


class Backoff:
    """The wait before each retry, with jitter from ``seed``."""

    def __init__(self, mode: str, seed: int) -> None:
        self._honours_delay = mode == SPEC
        self._random = random.Random(seed)

    def wait_ns(self, tries: int, delay_ns: int) -> int:
        """The wait after ``tries`` tries (at least 1); ``delay_ns``: asked for by the peer, or -1.

        The n-th backoff is min(1 s · 1.5^(n-1), 5 s), plus or minus up to a fifth. The peer's delay
        takes its place, plus up to a fifth.
        """
        if self._honours_delay and delay_ns > 0:
            return round(delay_ns * (1 + JITTER * self._random.random()))
        backoff = min(FIRST_BACKOFF_NS * FACTOR ** (tries - 1), MAX_BACKOFF_NS)
        return round(backoff * (1 + JITTER * (2 * self._random.random() - 1)))

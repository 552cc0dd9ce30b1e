"""The null transport: accepts everything at once, which shows the generator's own ceiling."""

from __future__ import annotations

import time
from itertools import islice

import numpy as np
import numpy.typing as npt

from blaster.layout import Int64
from blaster.transport.base import OUTCOME, Chunk, Framing, Outcomes, SendCounts, Status

_NAP_NS = 50_000_000


class NullTransport:
    """A Transport that sends nothing, but keeps to the schedule and the ledger."""

    framing: Framing = "made"

    def __init__(self, *, counts: SendCounts, stop: Int64) -> None:
        self._counts, self._stop = counts, stop
        self._outcomes: list[npt.NDArray[np.void]] = []

    def connect(self, timeout_s: float) -> None:
        """Nothing to connect to."""

    def send(self, chunk: Chunk, until: int) -> int:
        done = np.empty(len(chunk), np.int64)
        offered = 0
        while offered < len(chunk):
            now = time.monotonic_ns()
            if now >= until or self._stop[0]:
                break
            due = int(np.searchsorted(chunk.scheduled, now, side="right"))
            done[offered:due] = now
            offered = max(offered, due)
            if offered < len(chunk):
                self._sleep(min(int(chunk.scheduled[offered]), until))
        sizes = np.fromiter(map(len, islice(chunk.each(), offered)), np.int64, offered)
        if not chunk.again:
            self._counts.sent_requests += offered
            self._counts.sent_spans += int(chunk.spans[:offered].sum())
            self._counts.sent_bytes += int(sizes.sum())
        outcomes = np.zeros(offered, OUTCOME)
        outcomes["scheduled"] = chunk.scheduled[:offered]
        outcomes["sent"] = outcomes["done"] = done[:offered]
        outcomes["spans"] = chunk.spans[:offered]
        outcomes["bytes"] = sizes
        outcomes["status"] = Status.OK
        outcomes["number"] = chunk.first + np.arange(offered)
        outcomes["delay"] = -1
        self._outcomes.append(outcomes)
        return offered

    def wait(self, until: int) -> None:
        self._sleep(until)

    def drain(self, until: int) -> None:
        """Nothing is ever in flight."""

    def outcomes(self) -> Outcomes:
        taken, self._outcomes = self._outcomes, []
        return np.concatenate([np.zeros(0, OUTCOME), *taken])

    def in_flight(self) -> int:
        return 0

    def messages(self) -> dict[int, str]:
        return {}

    def close(self) -> None:
        """Nothing to close."""

    def _sleep(self, until: int) -> None:
        while not self._stop[0]:
            left = min(until - time.monotonic_ns(), _NAP_NS)
            if left <= 0:
                break
            time.sleep(left / 1e9)

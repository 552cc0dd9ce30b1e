"""Capacity: the spans a second that the sink pretends to manage, and what it does beyond.

The twin, for grpcio, of native/receiver_capacity.c. One time says everything: until when the spans
taken so far would keep a server of that rate busy (the virtual scheduling algorithm, ITU-T I.371,
A.1): a token bucket when refusing, a D/D/1 queue when queueing.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

REFUSE, QUEUE = "refuse", "queue"
OVERLOADS = (REFUSE, QUEUE)

MOST_SPANS_PER_S = 10**9

BUCKET_S = 0.02
"""The depth of the bucket, as the time in which it fills: what the sender's and our own scheduling
may delay requests. A trial of T seconds can therefore find a capacity of 1 + 0.02/T."""

QUEUE_S = 10.0
"""The longest backlog; what comes when it is longer is refused."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """``spans_per_s`` 0: no limit. ``service_time_s``: what each answer takes besides."""

    spans_per_s: int = 0
    overload: str = REFUSE
    service_time_s: float = 0.0

    @property
    def queue(self) -> bool:
        return self.overload == QUEUE

    @property
    def patience_s(self) -> float:
        """How long the backlog may be when another call is taken."""
        return QUEUE_S if self.queue else BUCKET_S


NO_LIMIT = Capacity()


class Gate:
    """Takes calls or refuses them by a Capacity. Any thread may use it."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._busy_until = 0.0
        self._frozen_until = 0.0

    def freeze(self, seconds: float) -> None:
        """Lets no call through for so long."""
        self._frozen_until = time.monotonic() + seconds

    def thaw(self) -> None:
        """Waits for the end of a freeze."""
        while (left := self._frozen_until - time.monotonic()) > 0:
            time.sleep(left)

    def admits(self) -> bool:
        """Whether a call that comes now is taken."""
        capacity = self._capacity
        if capacity.spans_per_s == 0:
            return True
        with self._lock:
            return self._busy_until - time.monotonic() < capacity.patience_s

    def take(self, spans: int) -> float:
        """Takes a call of so many spans; in how many seconds it is to be answered."""
        capacity, now = self._capacity, time.monotonic()
        until = now
        if capacity.spans_per_s:
            with self._lock:
                self._busy_until = max(self._busy_until, now) + spans / capacity.spans_per_s
                if capacity.queue:
                    until = self._busy_until
        return max(0.0, until + capacity.service_time_s - now)

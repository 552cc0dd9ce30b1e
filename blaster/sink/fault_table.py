"""FaultTable: which fault a request meets.

A request meets at most one fault, the first that draws it, and any number of delays. The seed and
the request's number decide the draw. native/receiver_faults.c is its twin.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from blaster.sink.fault import ALL, RECEIVERS, Fault, Kind


@dataclass(slots=True)
class Draw:
    """The fault and the delay that one request meets. ``random``: 64 bits for the details."""

    fault: Fault | None = None
    delay_ns: int = 0
    random: int = 0


NO_FAULT = Draw()


@dataclass
class FaultTable:
    """The faults in force at one receiver, and how often each was met. Any thread may use it.

    Faults that this receiver does not support are never met.
    """

    receiver: str
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    hits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.set(self.faults, self.seed)

    @property
    def refusing(self) -> bool:
        """Whether connections may be refused."""
        return any(fault.kind == Kind.REFUSE for fault in self.faults)

    def set(self, faults: Sequence[Fault], seed: int) -> None:
        """Replace the faults; their time begins with the next request."""
        with self._lock:
            self.faults, self.seed = tuple(faults), seed
            self.hits = [0] * len(faults)
            self._requests = self._connections = 0
            self._started: int | None = None

    def draw(self, now_ns: int) -> Draw:
        """Draw the fault and the delay of the next request."""
        if not self.faults:
            return NO_FAULT
        drawn = Draw()
        with self._lock:
            if self._started is None:
                self._started = now_ns
            request = self._requests
            self._requests += 1
            for i, fault in enumerate(self.faults):
                delays = fault.kind == Kind.DELAY
                if fault.kind == Kind.REFUSE or (not delays and drawn.fault is not None):
                    continue
                if (random := self._hit(i, request, now_ns)) is None:
                    continue
                if delays:
                    drawn.delay_ns += _delay_of(fault, random)
                else:
                    drawn.fault, drawn.random = fault, random
        return drawn

    def refuses(self, now_ns: int) -> bool:
        """Return whether to refuse a connection that comes now."""
        with self._lock:
            if self._started is None:
                return False
            connection = self._connections
            self._connections += 1
            return any(
                fault.kind == Kind.REFUSE and self._hit(i, connection, now_ns) is not None
                for i, fault in enumerate(self.faults)
            )

    def listener_paused(self, now_ns: int) -> bool:
        """Return whether to refuse all connections: nobody should be listening."""
        return self._started is not None and any(
            fault.kind == Kind.REFUSE
            and fault.share == ALL
            and not fault.once
            and self._active(i, now_ns)
            for i, fault in enumerate(self.faults)
        )

    def _active(self, i: int, now_ns: int) -> bool:
        fault, since = self.faults[i], now_ns - (self._started or 0)
        if self.receiver not in RECEIVERS[fault.kind]:
            return False
        return fault.from_ns <= since < fault.until_ns and not (fault.once and self.hits[i])

    def _hit(self, i: int, number: int, now_ns: int) -> int | None:
        """Return 64 random bits if the fault meets this request or connection."""
        if not self._active(i, now_ns):
            return None
        random = mix(mix(self.seed + i) ^ number)
        if random >> 32 >= self.faults[i].share:
            return None
        self.hits[i] += 1
        return mix(random)


def garbage(random: int) -> bytes:
    """Return 16 bytes that are neither protobuf, as their first wire type does not exist, nor JSON,
    as they are not UTF-8."""
    return b"\xff" + random.to_bytes(8, "big") + b"\xff" * 7


def mix(x: int) -> int:
    """Return the next word of SplitMix64 (Steele, Lea, Flood 2014)."""
    most = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & most
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & most
    x = (x ^ x >> 27) * 0x94D049BB133111EB & most
    return x ^ x >> 31


def _delay_of(fault: Fault, random: int) -> int:
    if fault.exponential:
        return min(round(-fault.low * math.log1p(-(random >> 11) * 2.0**-53)), 3600 * 10**9)
    return fault.low + random % (fault.high - fault.low + 1)

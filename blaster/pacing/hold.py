"""Holds: stretches put into a schedule, in which it stands still and the load goes on as it is.

A hold begins at a moment of the run and lasts until it is released; the schedule's own time stops
meanwhile, and spans are due at the rate that it had. What is due is a pure function of the holds,
so that everyone who knows them agrees on every request, before, in and after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blaster.pacing.pacer import Int64, Pacer, Stages, Steady

OPEN_NS = 7 * 86_400 * 10**9
"""How long a hold lasts that has not been released: a week."""


@dataclass(frozen=True, slots=True)
class Hold:
    """From ``begin_ns`` of the run (earlier holds included) on, ``rate`` spans a second for
    ``duration_ns``; OPEN_NS until it is released."""

    begin_ns: int
    rate: int
    duration_ns: int = OPEN_NS


class _Part:
    """What ``inner`` has due from ``begin_ns`` up to ``end_ns``, as a pacer of its own."""

    def __init__(self, inner: Pacer, begin_ns: int, end_ns: int) -> None:
        self._inner, self._begin = inner, begin_ns
        self._first = inner.due(begin_ns - 1)
        self.duration_ns = end_ns - begin_ns
        self.total = inner.due(end_ns - 1) - self._first

    def times(self, n: Int64) -> Int64:
        times: Int64 = self._inner.times(n + self._first) - self._begin
        return times

    def due(self, elapsed_ns: int) -> int:
        if elapsed_ns < 0:
            return 0
        return min(self.total, self._inner.due(self._begin + elapsed_ns) - self._first)

    def rate(self, elapsed_ns: int) -> float:
        return self._inner.rate(self._begin + min(max(elapsed_ns, 0), self.duration_ns))


def held(inner: Pacer, holds: Sequence[Hold]) -> Pacer:
    """``inner`` with the holds, ascending and apart, put into it."""
    parts: list[Pacer] = []
    at = waited = 0
    for hold in holds:
        begin = hold.begin_ns - waited
        # Cut from an open one, so that a release takes nothing back that was due before it.
        rate = Steady(hold.rate, OPEN_NS)
        parts += [_Part(inner, at, begin), _Part(rate, 0, hold.duration_ns)]
        at, waited = begin, waited + hold.duration_ns
    return Stages([*parts, _Part(inner, at, inner.duration_ns)])

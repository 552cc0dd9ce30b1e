"""The series of a run: a Point for each interval, and how a long one is kept short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

MOST_POINTS = 3600

_T = TypeVar("_T")
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True, slots=True)
class Point:
    """One interval of the run. ``t``: seconds since the start, at the interval's end. Counts are
    of spans, over the interval; ``in_flight`` of requests, at its end; ``backlog``: spans due by
    its end and not sent yet; percentiles and ``mean_ms`` of the response times in it (None without
    any); CPU in percent of one core, memory in bytes.

    Where a long run's points were merged: ``in_flight``, ``backlog``, percentiles, CPU and memory
    are the highest of the intervals merged, ``mean_ms`` their mean by the spans accepted.
    """

    t: float
    scheduled: int
    accepted: int
    failed: int
    in_flight: int
    p99_ms: float | None
    target_cpu: float | None
    target_rss: int | None
    generator_cpu: float
    generator_rss: int = 0
    mean_ms: float | None = None
    backlog: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None
    p999_ms: float | None = None


def merge_points(one: Point, next_one: Point) -> Point:
    """The two intervals as one."""
    return Point(
        t=next_one.t,
        scheduled=one.scheduled + next_one.scheduled,
        accepted=one.accepted + next_one.accepted,
        failed=one.failed + next_one.failed,
        in_flight=max(one.in_flight, next_one.in_flight),
        p99_ms=_highest(one.p99_ms, next_one.p99_ms),
        target_cpu=_highest(one.target_cpu, next_one.target_cpu),
        target_rss=_highest(one.target_rss, next_one.target_rss),
        generator_cpu=max(one.generator_cpu, next_one.generator_cpu),
        generator_rss=max(one.generator_rss, next_one.generator_rss),
        mean_ms=_mean(one, next_one),
        backlog=max(one.backlog, next_one.backlog),
        p50_ms=_highest(one.p50_ms, next_one.p50_ms),
        p90_ms=_highest(one.p90_ms, next_one.p90_ms),
        p999_ms=_highest(one.p999_ms, next_one.p999_ms),
    )


def _highest(one: _Number | None, another: _Number | None) -> _Number | None:
    if one is None or another is None:
        return another if one is None else one
    return max(one, another)


def _mean(one: Point, next_one: Point) -> float | None:
    if one.mean_ms is None or next_one.mean_ms is None:
        return _highest(one.mean_ms, next_one.mean_ms)
    weights = max(one.accepted, 1), max(next_one.accepted, 1)
    return (one.mean_ms * weights[0] + next_one.mean_ms * weights[1]) / sum(weights)


class Thinned(Generic[_T]):
    """A list that never grows past ``most`` (even): when it is full its items are merged in pairs,
    and from then on each item is made of twice as many."""

    def __init__(self, merge: Callable[[_T, _T], _T], most: int = MOST_POINTS) -> None:
        self.items: list[_T] = []
        self._merge, self._most = merge, most
        self._stride, self._held = 1, 0  # what an item is made of, and the last one so far

    def add(self, item: _T) -> None:
        """Adds the next item, or merges it into the last while that one is not full."""
        if 0 < self._held < self._stride:
            self.items[-1] = self._merge(self.items[-1], item)
            self._held += 1
            return
        if len(self.items) == self._most:
            pairs = zip(self.items[::2], self.items[1::2], strict=True)
            self.items = [self._merge(one, another) for one, another in pairs]
            self._stride *= 2
        self.items.append(item)
        self._held = 1

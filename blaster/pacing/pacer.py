"""Pacers: pure functions between elapsed time and spans due. No clock, no sleep.

Span n of a steady load is due n·10⁹ // rate ns after its start: an absolute integer schedule, never
an accumulated interval. A ramp from rate a to b over T is due where the integral of the rate
reaches n: a·t + (b - a)·t²/(2T) = n. A sine is the same with its own integral.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

NS = 1_000_000_000


class Pacer(Protocol):
    """``total`` spans are due over ``duration_ns``; times and due are inverse."""

    @property
    def total(self) -> int: ...
    @property
    def duration_ns(self) -> int: ...

    def times(self, n: Int64) -> Int64:
        """When each span n (0 ≤ n < total) is due: int64 ns since the start, ascending with n."""

    def due(self, elapsed_ns: int) -> int:
        """How many spans are due by then: those with times(n) ≤ elapsed_ns."""

    def rate(self, elapsed_ns: int) -> float:
        """Spans per second at that moment; outside the duration, those at its nearer end."""


class Steady:
    """``rate`` spans a second for ``duration_ns``."""

    def __init__(self, rate: int, duration_ns: int) -> None:
        self._rate, self.duration_ns = rate, duration_ns
        self.total = rate * duration_ns // NS

    def times(self, n: Int64) -> Int64:
        seconds, rest = np.divmod(n, self._rate)
        times: Int64 = seconds * NS + rest * NS // self._rate
        return times

    def due(self, elapsed_ns: int) -> int:
        if elapsed_ns < 0:
            return 0
        # n·10⁹ // rate ≤ t  ⇔  n·10⁹ < (t + 1)·rate
        return min(self.total, ((elapsed_ns + 1) * self._rate - 1) // NS + 1)

    def rate(self, elapsed_ns: int) -> float:
        return float(self._rate)


class Ramp:
    """From ``start_rate`` to ``end_rate`` spans a second, linearly over ``duration_ns``."""

    def __init__(self, start_rate: int, end_rate: int, duration_ns: int) -> None:
        self.start_rate, self.end_rate, self.duration_ns = start_rate, end_rate, duration_ns
        self.total = (start_rate + end_rate) * duration_ns // (2 * NS)

    def times(self, n: Int64) -> Int64:
        # The root of the integral in the form that does not cancel: t = 2n / (a + √(a² + 2sn)).
        a = float(self.start_rate)
        slope = (self.end_rate - self.start_rate) / (self.duration_ns / NS)
        root = np.sqrt(np.maximum(a * a + 2 * slope * n, 0.0))
        below = np.maximum(a + root, np.finfo(float).tiny)
        seconds = np.where(n == 0, 0.0, 2.0 * n / below)
        times: Int64 = np.minimum(seconds * NS, self.duration_ns - 1).astype(np.int64)
        return times

    def due(self, elapsed_ns: int) -> int:
        if elapsed_ns < 0:
            return 0
        t = min(elapsed_ns, self.duration_ns) / NS
        slope = (self.end_rate - self.start_rate) / (self.duration_ns / NS)
        guess = int(self.start_rate * t + slope * t * t / 2)
        return _settled(self, guess, elapsed_ns)

    def rate(self, elapsed_ns: int) -> float:
        share = min(max(elapsed_ns, 0) / self.duration_ns, 1.0)
        return self.start_rate + (self.end_rate - self.start_rate) * share


class Sine:
    """From ``low`` to ``high`` spans a second and back once a period, for ``duration_ns``.

    The rate at t is (low + high)/2 - (high - low)/2 · cos(2πt/T); its integral is tabulated at
    CELLS places in a period and taken as linear between them.
    """

    CELLS = 4096

    def __init__(self, low: int, high: int, period_ns: int, duration_ns: int) -> None:
        self.low, self.high = low, high
        self.period_ns, self.duration_ns = period_ns, duration_ns
        cells = np.arange(self.CELLS + 1)
        self._ns = (
            cells * (period_ns // self.CELLS) + cells * (period_ns % self.CELLS) // self.CELLS
        )
        phase = self._ns / period_ns
        swing = (low - high) / 2 * np.sin(2 * np.pi * phase) / (2 * np.pi)
        self._spans = np.maximum.accumulate(((low + high) / 2 * phase + swing) * (period_ns / NS))
        self._spans -= self._spans[0]
        self.total = int(self._integral(duration_ns))

    def _integral(self, elapsed_ns: int) -> float:
        periods, rest = divmod(elapsed_ns, self.period_ns)
        return float(periods * self._spans[-1] + np.interp(rest, self._ns, self._spans))

    def times(self, n: Int64) -> Int64:
        whole = self._spans[-1]
        periods = np.floor(n / whole)
        rest = np.clip(n - periods * whole, 0.0, whole)
        cell = np.clip(np.searchsorted(self._spans, rest, side="right") - 1, 0, self.CELLS - 1)
        # Rounded down within the cell and never past it, so that times ascend from cell to cell.
        width = self._ns[cell + 1] - self._ns[cell]
        height = np.maximum(self._spans[cell + 1] - self._spans[cell], np.finfo(float).tiny)
        inside = np.minimum((rest - self._spans[cell]) / height, 1.0) * width
        times: Int64 = (
            periods.astype(np.int64) * self.period_ns + self._ns[cell] + inside.astype(np.int64)
        )
        return np.minimum(times, self.duration_ns - 1)

    def due(self, elapsed_ns: int) -> int:
        if elapsed_ns < 0:
            return 0
        guess = int(self._integral(min(elapsed_ns, self.duration_ns)))
        return _settled(self, guess, elapsed_ns)

    def rate(self, elapsed_ns: int) -> float:
        turn = 2 * math.pi * min(max(elapsed_ns, 0), self.duration_ns) / self.period_ns
        return (self.low + self.high) / 2 - (self.high - self.low) / 2 * math.cos(turn)


class Stages:
    """Pacers one after another."""

    def __init__(self, parts: Sequence[Pacer]) -> None:
        self._parts = parts
        self._starts = [0]
        self._firsts = [0]
        for part in parts:
            self._starts.append(self._starts[-1] + part.duration_ns)
            self._firsts.append(self._firsts[-1] + part.total)
        self.total, self.duration_ns = self._firsts[-1], self._starts[-1]

    def times(self, n: Int64) -> Int64:
        result = np.empty(n.shape, np.int64)
        which = np.searchsorted(self._firsts[1:], n, side="right")
        for index, part in enumerate(self._parts):
            here = which == index
            if here.any():
                result[here] = part.times(n[here] - self._firsts[index]) + self._starts[index]
        return result

    def due(self, elapsed_ns: int) -> int:
        if elapsed_ns < 0:
            return 0
        index = bisect_right(self._starts, elapsed_ns) - 1
        if index >= len(self._parts):
            return self.total
        return self._firsts[index] + self._parts[index].due(elapsed_ns - self._starts[index])

    def rate(self, elapsed_ns: int) -> float:
        index = bisect_right(self._starts, max(elapsed_ns, 0), hi=len(self._parts)) - 1
        return self._parts[index].rate(elapsed_ns - self._starts[index])


def _settled(pacer: Pacer, guess: int, elapsed_ns: int) -> int:
    """How many spans are due by what times() says, from a float's guess near it."""
    low, high, step = max(0, min(pacer.total, guess)), 0, 1
    # low: a number known to be due (times(low - 1) ≤ elapsed); high: one known not to be.
    while low > 0 and _time(pacer, low - 1) > elapsed_ns:
        high, low, step = low, max(0, low - step), 2 * step
    if not high:
        high, step = low, 1
        while high < pacer.total and _time(pacer, high) <= elapsed_ns:
            low, high, step = high + 1, min(pacer.total, high + 1 + step), 2 * step
    while low < high:
        middle = (low + high) // 2
        if _time(pacer, middle) <= elapsed_ns:
            low = middle + 1
        else:
            high = middle
    return low


def _time(pacer: Pacer, n: int) -> int:
    return int(pacer.times(np.array([n], np.int64))[0])

"""How long processes ran, and how long they wanted to run and had to wait for a CPU.

Linux keeps both for every thread: /proc/PID/task/TID/schedstat holds nanoseconds on a CPU,
nanoseconds runnable but waiting on a run queue, and the number of turns (Documentation/scheduler/
sched-stats.rst). Elsewhere there is nothing to read, and every figure is None.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

WINDOW_NS = 1_000_000_000
"""The peak is the highest share within a window of at least so long."""


@dataclass(frozen=True, slots=True)
class Share:
    """Percent of one core, for each process on average: over all the time, and in the worst
    window."""

    avg: float
    peak: float


class SchedStat:
    """Adds up what some processes ran and waited between two looks, and in each window between."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = list(pids)
        self._last: dict[int, tuple[int, int]] = {}
        # Looks (time, ran, waited): the first, the one that began this window, the latest.
        self._first: tuple[int, int, int] | None = None
        self._window = self._now = (0, 0, 0)
        self._peaks = [0.0, 0.0, 0.0]

    def look(self, now_ns: int) -> None:
        """Reads the clocks; ``now_ns`` is CLOCK_MONOTONIC. What ended keeps its last figures."""
        for pid in self._pids:
            with suppress(OSError, ValueError):
                self._last[pid] = _read(pid)
        if len(self._last) < len(self._pids):
            return
        ran = sum(ran for ran, _ in self._last.values())
        waited = sum(waited for _, waited in self._last.values())
        self._now = (now_ns, ran, waited)
        if self._first is None:
            self._first = self._window = self._now
        if now_ns - self._window[0] >= WINDOW_NS:
            for column in (1, 2):
                share = self._percent(self._window, column)
                self._peaks[column] = max(self._peaks[column], share)
            self._window = self._now

    def ran(self) -> Share | None:
        """The share on a CPU; None when it could not be read twice."""
        return self._share(1)

    def waited(self) -> Share | None:
        """The share waiting for a CPU; None when it could not be read twice."""
        return self._share(2)

    def _share(self, column: int) -> Share | None:
        if self._first is None or self._now[0] <= self._first[0]:
            return None
        average = self._percent(self._first, column)
        return Share(average, max(average, self._peaks[column]))

    def _percent(self, begin: tuple[int, int, int], column: int) -> float:
        wall = (self._now[0] - begin[0]) * len(self._pids)
        return round(100 * (self._now[column] - begin[column]) / wall, 2)


def _read(pid: int) -> tuple[int, int]:
    """Nanoseconds run and waited, over all threads of the process."""
    ran = waited = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            fields = file.read().split()
        ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return ran, waited

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
        self._looks: list[tuple[int, int, int]] = []  # time, ran, waited: first, windows, last
        self._last: dict[int, tuple[int, int]] = {}

    def look(self, now_ns: int) -> None:
        """Reads the clocks; ``now_ns`` is CLOCK_MONOTONIC. What ended keeps its last figures."""
        for pid in self._pids:
            with suppress(OSError, ValueError):
                self._last[pid] = _read(pid)
        if len(self._last) < len(self._pids):
            return
        ran = sum(ran for ran, _ in self._last.values())
        waited = sum(waited for _, waited in self._last.values())
        if len(self._looks) > 1 and now_ns - self._looks[-2][0] < WINDOW_NS:
            self._looks.pop()
        self._looks.append((now_ns, ran, waited))

    def ran(self) -> Share | None:
        """The share on a CPU; None when it could not be read twice."""
        return self._share(1)

    def waited(self) -> Share | None:
        """The share waiting for a CPU; None when it could not be read twice."""
        return self._share(2)

    def _share(self, column: int) -> Share | None:
        looks = self._looks
        if len(looks) < 2 or looks[-1][0] <= looks[0][0]:
            return None

        def percent(begin: int, end: int) -> float:
            wall = (looks[end][0] - looks[begin][0]) * len(self._pids)
            return round(100 * (looks[end][column] - looks[begin][column]) / wall, 2)

        last = len(looks) - 1
        average = percent(0, last)
        whole = [i for i in range(last) if looks[i + 1][0] - looks[i][0] >= WINDOW_NS]
        return Share(average, max([average, *(percent(i, i + 1) for i in whole)]))


def _read(pid: int) -> tuple[int, int]:
    """Nanoseconds run and waited, over all threads of the process."""
    ran = waited = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            fields = file.read().split()
        ran, waited = ran + int(fields[0]), waited + int(fields[1])
    return ran, waited

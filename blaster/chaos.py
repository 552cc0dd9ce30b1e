"""Faults on the target's side: its processes are stopped, continued, terminated or killed.

    TIME ACTION [DURATION] [WATCH]; …        30s pause 5s; 60s kill :4317

Only processes that are watched are touched, with their children, and never pid 1, this process, its
parents or its workers. What was paused is continued at the end, whatever happens in between but
this process's own SIGKILL.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec
import psutil

from blaster.errors import UsageError
from blaster.measure.sampler import Watch
from blaster.units import format_duration, parse_duration, quoted

PAUSE, CONTINUE, TERMINATE, KILL = "pause", "continue", "terminate", "kill"
ACTIONS = (PAUSE, CONTINUE, TERMINATE, KILL)
MOST_EVENTS = 1000

BASELINE_NS = 5 * 10**9
"""The rate before a fault is that of so long."""
WINDOW_NS = 500_000_000
"""Recovered: over so long spans are accepted at RECOVERED of that rate again."""
RECOVERED = 0.9

WANTED = "as 30s pause 5s; 60s kill"


@dataclass(frozen=True, slots=True)
class Event:
    """What is done when, in ns since the start. ``duration_ns``: of a pause; None: until it is
    continued. ``watch``: the text of the --watch that names the process; None: the only one."""

    text: str
    at_ns: int
    action: str
    duration_ns: int | None = None
    watch: str | None = None


class ChaosMark(msgspec.Struct):
    """One fault as it was. ``t``: seconds since the start. ``what``: the processes, by name and
    pid. ``recovery_s``: from its end (a kill's is at once) until spans were accepted again at nine
    tenths of the rate before; None where that never came. ``spans_lost``: rejected, failed or
    unknown, as they were booked between this fault and the next, or the end."""

    t: float
    action: str
    what: str
    duration_s: float | None
    recovery_s: float | None
    spans_lost: int

    def __str__(self) -> str:
        lasted = f" for {self.duration_s:g} s" if self.duration_s is not None else ""
        back = "not recovered" if self.recovery_s is None else f"recovered in {self.recovery_s:g} s"
        lost = f"{self.spans_lost:,} spans lost"
        return f"chaos at {self.t:g} s: {self.action} {self.what}{lasted}: {back}, {lost}"


def parse(text: str) -> tuple[Event, ...]:
    """The events, by time. Raises UsageError, naming the option and the part that is wrong."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if not parts:
        raise UsageError(f"--chaos {quoted(text)}: must say when and what, {WANTED}")
    if len(parts) > MOST_EVENTS:
        raise UsageError(f"--chaos: {len(parts)} events; at most {MOST_EVENTS}")
    try:
        return tuple(sorted(map(_event, parts), key=lambda event: event.at_ns))
    except ValueError as error:
        raise UsageError(f"--chaos {quoted(text)}: {error}") from None


def _event(part: str) -> Event:
    when, *words = part.split()
    if not words or words[0] not in ACTIONS:
        raise ValueError(f"{quoted(part)}: TIME and {', '.join(ACTIONS)}, {WANTED}")
    try:
        at = parse_duration(when)
    except ValueError as error:
        raise ValueError(f"{quoted(part)}: {when}: {error}") from None
    action, *words = words
    duration = None
    if action == PAUSE and words:
        with suppress(ValueError):
            duration = parse_duration(words[0])
            words = words[1:]
    if len(words) > 1:
        raise ValueError(f"{quoted(part)}: too many words, {WANTED}")
    return Event(part, at, action, duration, words[0] if words else None)


def check(
    text: str | None, allowed: bool, duration_ns: int, watches: Sequence[str], embedded: bool
) -> tuple[Event, ...]:
    """The events of ``--chaos``, none where it is not given. UsageError for what can't be done."""
    if text is None:
        if allowed:
            raise UsageError("--allow-chaos: there is no --chaos")
        return ()
    events = parse(text)
    if not allowed:
        raise UsageError(f"--chaos {quoted(text)}: stops processes: only with --allow-chaos")
    if not watches and not embedded:
        raise UsageError(f"--chaos {quoted(text)}: --watch must name the process")
    for event in events:
        if event.at_ns >= duration_ns:
            raise UsageError(
                f"--chaos {quoted(event.text)}: the run ends at {format_duration(duration_ns)}"
            )
        if event.watch is not None and event.watch not in watches:
            raise UsageError(
                f"--chaos {quoted(event.text)}: {quoted(event.watch)} is not watched; --watch names"
                f" {', '.join(watches) or 'nothing'}"
            )
        if event.watch is None and len(watches) > 1:
            raise UsageError(
                f"--chaos {quoted(event.text)}: say which of {', '.join(watches)}, {WANTED} :4317"
            )
    return events


@dataclass(slots=True)
class _Fault:
    """One that has begun. ``end_ns`` None: its pause is not over."""

    mark: ChaosMark
    processes: list[psutil.Process]
    lost_before: int
    rate: float  # spans a nanosecond, before
    end_ns: int | None
    due_ns: int | None = None  # to be continued


class Chaos:
    """Carries the events out; a context manager, which continues what is still paused.

    ``watches``: by their texts; ``sink_pid``: the embedded sink, which is ours and yet a target,
    the one where no watch is named. Raises UsageError where a process is not to be touched.
    """

    def __init__(
        self, events: Sequence[Event], watches: Mapping[str, Watch], sink_pid: int | None
    ) -> None:
        self._events = deque(events)
        self._sink_pid = sink_pid
        self._faults: list[_Fault] = []
        self._history: deque[tuple[int, int]] = deque()  # (t, accepted)
        self._found: dict[str | None, list[psutil.Process]] = {}
        for event in events:
            if event.watch in self._found:
                continue
            if event.watch is not None:
                found = watches[event.watch].find()
            elif watches:
                (watch,) = watches.values()
                found = watch.find()
            else:
                found = [psutil.Process(sink_pid)]
            for process in found:
                if why := self._untouchable(process.pid):
                    raise UsageError(f"--chaos {quoted(event.text)}: pid {process.pid} is {why}")
            self._found[event.watch] = found

    @property
    def killed_sink(self) -> bool:
        """Whether the embedded sink was ended."""
        return any(
            process.pid == self._sink_pid
            for fault in self._faults
            if fault.mark.action in (TERMINATE, KILL)
            for process in fault.processes
        )

    def tick(self, t_ns: int, accepted: int, lost: int) -> None:
        """Does what is due ``t_ns`` after the start; ``accepted`` and ``lost``: spans so far."""
        self._history.append((t_ns, accepted))
        while self._history[0][0] < t_ns - BASELINE_NS:
            self._history.popleft()
        for fault in self._faults:
            if fault.due_ns is not None and t_ns >= fault.due_ns:
                self._continue(fault, t_ns)
            elif fault.mark.recovery_s is None and fault.end_ns is not None:
                self._look_for_recovery(fault, t_ns)
        while self._events and t_ns >= self._events[0].at_ns:
            self._begin(self._events.popleft(), t_ns, lost)

    def marks(self, lost: int) -> list[ChaosMark]:
        """What was done, once it is over; ``lost``: spans in the whole run."""
        bounds = [*(fault.lost_before for fault in self._faults[1:]), lost]
        for fault, until in zip(self._faults, bounds, strict=False):
            fault.mark.spans_lost = max(0, until - fault.lost_before)
        return [fault.mark for fault in self._faults]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for fault in self._faults:
            if fault.mark.action == PAUSE:
                _each(fault.processes, CONTINUE)

    def _begin(self, event: Event, t_ns: int, lost: int) -> None:
        group = self._group(self._found[event.watch])
        touched = _each(group, event.action)
        what = ", ".join(touched) or "nothing: it was gone"
        t = round(t_ns / 1e9, 3)
        mark = ChaosMark(t, event.action, what, None, None, 0)
        paused = event.action == PAUSE
        fault = _Fault(mark, group, lost, self._rate(), None if paused else t_ns)
        if paused and event.duration_ns is not None:
            fault.due_ns = t_ns + event.duration_ns
        self._faults.append(fault)
        if event.action == CONTINUE:
            for earlier in self._faults:
                if earlier.mark.action == PAUSE and earlier.end_ns is None:
                    fault.rate = fault.rate or earlier.rate
                    self._over(earlier, t_ns)

    def _continue(self, fault: _Fault, t_ns: int) -> None:
        _each(fault.processes, CONTINUE)
        self._over(fault, t_ns)

    def _over(self, fault: _Fault, t_ns: int) -> None:
        fault.due_ns, fault.end_ns = None, t_ns
        fault.mark.duration_s = round(t_ns / 1e9 - fault.mark.t, 3)

    def _rate(self) -> float:
        (t, accepted), (now, until) = self._history[0], self._history[-1]
        return (until - accepted) / (now - t) if now > t else 0.0

    def _look_for_recovery(self, fault: _Fault, t_ns: int) -> None:
        """Whether the last window, of those wholly after the fault, is the first good one."""
        assert fault.end_ns is not None
        begin = [point for point in self._history if point[0] <= t_ns - WINDOW_NS]
        if fault.rate == 0 or not begin or begin[-1][0] < fault.end_ns:
            return
        t, accepted = begin[-1]
        if self._history[-1][1] - accepted >= RECOVERED * fault.rate * (t_ns - t):
            fault.mark.recovery_s = round((t - fault.end_ns) / 1e9, 3)

    def _group(self, roots: Sequence[psutil.Process]) -> list[psutil.Process]:
        """The processes and their children, of those that may be touched."""
        group: dict[int, psutil.Process] = {}
        for root in roots:
            with suppress(psutil.Error):
                for process in (root, *root.children(recursive=True)):
                    if self._untouchable(process.pid) is None:
                        group[process.pid] = process
        return list(group.values())

    def _untouchable(self, pid: int) -> str | None:
        """Why this process is never touched; None: it may be."""
        own = psutil.Process()
        if pid == 1:
            return "the system's first process, which is never touched"
        if pid == os.getpid():
            return "blaster itself"
        if pid in {parent.pid for parent in own.parents()}:
            return "one of blaster's parents, which are never touched"
        sink: set[int] = set()
        if self._sink_pid is not None:
            with suppress(psutil.Error):
                process = psutil.Process(self._sink_pid)
                sink = {process.pid, *(child.pid for child in process.children(recursive=True))}
        if pid in {child.pid for child in own.children(recursive=True)} - sink:
            return "one of blaster's workers, which are never touched"
        return None


def _each(processes: Sequence[psutil.Process], action: str) -> list[str]:
    """Does it to all of them; returns who they were, without those that were gone. psutil sees to
    it that a pid which another process has by now is left alone."""
    touched = []
    for process in processes:
        with suppress(psutil.Error):
            who = f"{process.name()} ({process.pid})"
            if action == PAUSE:
                process.suspend()
            elif action == CONTINUE:
                process.resume()
            elif action == TERMINATE:
                process.terminate()
            else:
                process.kill()
            touched.append(who)
    return touched

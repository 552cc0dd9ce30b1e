"""What processes cost: CPU, memory, threads and I/O, read with psutil.

Figures are of a group: the processes that were named and all their children, looked up anew at each
sample. CPU percentages are of one core.

A process has clocks of its own CPU time and of that of the children it has waited for. While a
child runs, its own clock counts. Once it is gone its whole time shows in its parent's clock of
children: what had been counted already is taken off there, so that nothing counts twice, and
children that came and went between two samples count too.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from blaster.errors import UsageError
from blaster.units import quoted

_MOST_NAMES = 64  # a target that starts a child a second must not fill the results

# psutil reads every process of the machine to find the children of one: a millisecond or more.
_LINUX_LISTS_CHILDREN = os.path.exists(f"/proc/self/task/{os.getpid()}/children")


@dataclass(frozen=True, slots=True)
class Watch:
    """Which processes to sample: exactly one of ``pid``, ``port`` and ``name`` is not None."""

    text: str
    pid: int | None = None
    port: int | None = None
    name: str | None = None

    def find(self) -> list[psutil.Process]:
        """The processes meant, at least one. UsageError where there is none."""
        if self.pid is not None:
            try:
                found = [psutil.Process(self.pid)]
            except psutil.NoSuchProcess:
                found = []
            wrong = "no process has this pid"
        elif self.port is not None:
            found, wrong = _listeners(self.port)
        else:
            found = [process for process in psutil.process_iter() if self._is_named(process)]
            wrong = "no process is called so; give its pid or :PORT"
        try:
            for process in found:
                process.cpu_times()
        except psutil.NoSuchProcess:
            found = [process for process in found if _runs(process)]
        except psutil.AccessDenied:
            found, wrong = [], "may not be read; run as its user or as root"
        if not found:
            raise UsageError(f"--watch {quoted(self.text)}: {wrong}")
        return found

    def _is_named(self, process: psutil.Process) -> bool:
        """Whether the process's name, or its program's file name, is ours; never ourselves."""
        if process.pid == os.getpid():
            return False
        try:
            if process.name() == self.name:
                return True
            words = process.cmdline()
        except psutil.Error:
            return False
        return bool(words) and os.path.basename(words[0]) == self.name


def parse_watch(text: str) -> Watch:
    """A Watch from ``PID``, ``NAME`` or ``:PORT``. UsageError for what is none of them."""
    if re.fullmatch("[0-9]{1,10}", text) and int(text) > 0:
        return Watch(text, pid=int(text))
    if re.fullmatch(":[0-9]{1,5}", text) and 0 < int(text[1:]) < 65536:
        return Watch(text, port=int(text[1:]))
    if not text.strip() or re.match("[:+-]|[0-9]+$", text) or "/" in text:
        raise UsageError(
            f"--watch {quoted(text)}: must be a pid, a process's name, or :PORT from 1 to 65535"
        )
    return Watch(text, name=text)


def _listeners(port: int) -> tuple[list[psutil.Process], str]:
    """The processes that listen on the TCP port, and what is wrong where there is none."""
    try:
        sockets = [
            socket
            for socket in psutil.net_connections("tcp")
            if socket.status == psutil.CONN_LISTEN and socket.laddr[1:] == (port,)
        ]
    except psutil.AccessDenied:
        return [], "this system shows listeners to root only; give the pid"
    found = []
    for pid in sorted({socket.pid for socket in sockets if socket.pid is not None}):
        try:
            found.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    if sockets and not found:
        return [], "its listener belongs to another user; give the pid, or run as that user"
    return found, f"nobody listens on port {port}"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a group has cost up to a moment.

    ``t_ns``: CLOCK_MONOTONIC. ``cpu_seconds``, ``io_read_bytes``, ``io_write_bytes``: since the
    sampler began, never falling; I/O as it reached storage, None where it may not be read.
    ``cpu_percent``: of one core, since the sample before. ``rss_bytes``: the sum over the
    processes; pages that they share count in each. ``threads``, ``processes``: running now.
    """

    t_ns: int
    cpu_seconds: float
    cpu_percent: float
    rss_bytes: int
    threads: int
    io_read_bytes: int | None
    io_write_bytes: int | None
    processes: int


@dataclass(frozen=True, slots=True)
class UsageMark:
    """The totals of a group at a moment (CLOCK_MONOTONIC), ``rss_area`` in byte-nanoseconds."""

    t_ns: int
    cpu_seconds: float
    rss_area: float


@dataclass(slots=True)
class _Member:
    """One process of the group, with its counters as last seen; 0: not seen before."""

    process: psutil.Process
    own: float = 0.0
    waited: float = 0.0
    read: int = 0
    written: int = 0
    rss: int = 0
    threads: int = 0
    io_known: bool = False


@dataclass(slots=True)
class _Inherited:
    """The sum of a counter that a parent's takes over from each child that it waits for."""

    total: float = 0.0
    owed: float = 0.0

    def settle(self, gain: float, left: float) -> None:
        """Adds what the running processes' counters have gained, less what counted already.

        ``left``: the last counts of the processes that have ended. Their parents' counters show
        them now or, where the parent was read first, at the next sample; later than that, nobody
        who waited for them is in the group.
        """
        surplus = gain - left - self.owed
        self.total += max(surplus, 0)
        self.owed = min(left, max(-surplus, 0))


class Sampler:
    """Samples a group of processes, from one thread; the first interval begins here.

    CPU clocks tick in hundredths of a second: an interval of 100 ms is known to a tenth, the
    average of a run much better, since it comes from the totals.
    """

    def __init__(self, watches: Sequence[Watch]) -> None:
        """Finds the processes named. UsageError as from :meth:`Watch.find`."""
        self._begin([process for watch in watches for process in watch.find()])

    @classmethod
    def of_pids(cls, pids: Iterable[int]) -> Sampler:
        """A sampler of these processes; a pid that no process has is passed over."""
        processes = []
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(pid))
        sampler = cls.__new__(cls)
        sampler._begin(processes)
        return sampler

    def _begin(self, roots: list[psutil.Process]) -> None:
        self._t_ns, self._began = time.monotonic_ns(), time.time()
        self._roots = roots
        self._members: dict[int, _Member] = {}
        self._names: dict[int, str] = {}
        self._io_known = False
        self._forget()
        for process in roots:
            self._join(process)
        self._read_group()
        self._forget()  # what they had spent before does not count
        self._begin_usage()

    def _forget(self) -> None:
        self._own = 0.0
        self._waited, self._read, self._written = _Inherited(), _Inherited(), _Inherited()

    def restart(self) -> Sample:
        """Reads the group, and begins the figures of :meth:`usage` anew from there."""
        sample = self.sample()
        self._begin_usage()
        return sample

    def _begin_usage(self) -> None:
        self._from_ns, self._from_cpu = self._t_ns, self._own + self._waited.total
        self._cpu_peak = 0.0
        self._rss_peak = 0
        self._rss_area = 0.0  # byte-nanoseconds

    @property
    def gone(self) -> bool:
        """Whether all processes that were named have ended; True where there were none."""
        return not any(_runs(process) for process in self._roots)

    def processes(self) -> list[dict[str, int | str]]:
        """``pid`` and ``name`` of the processes seen, the named ones first, 64 at most."""
        return [{"pid": pid, "name": name} for pid, name in self._names.items()]

    def sample(self) -> Sample:
        """Reads the group. Processes that have ended, or may not be read, are no error."""
        now = time.monotonic_ns()
        cpu_before = self._own + self._waited.total
        self._read_group()
        members = [member for member in self._members.values() if member.threads]
        cpu_seconds = self._own + self._waited.total
        elapsed = max(now - self._t_ns, 1)
        percent = 100e9 * (cpu_seconds - cpu_before) / elapsed
        rss = sum(member.rss for member in members)
        self._t_ns = now
        self._cpu_peak = max(self._cpu_peak, percent)
        self._rss_peak = max(self._rss_peak, rss)
        self._rss_area += float(rss) * elapsed
        return Sample(
            t_ns=now,
            cpu_seconds=cpu_seconds,
            cpu_percent=percent,
            rss_bytes=rss,
            threads=sum(member.threads for member in members),
            io_read_bytes=int(self._read.total) if self._io_known else None,
            io_write_bytes=int(self._written.total) if self._io_known else None,
            processes=len(members),
        )

    def mark(self) -> UsageMark:
        """The moment of the last sample, for :meth:`usage` since then."""
        return UsageMark(self._t_ns, self._own + self._waited.total, self._rss_area)

    def usage(self, since: UsageMark | None = None) -> dict[str, dict[str, float]]:
        """``avg`` and ``peak`` of ``cpu_percent`` and ``rss_bytes``, up to the last sample.

        The average CPU is the CPU-seconds spent over the time passed; the average RSS weighs each
        sample by its interval; peaks are of single samples. Zeros before the first sample.
        ``since`` bounds the averages, not the peaks.
        """
        begun = since or UsageMark(self._from_ns, self._from_cpu, 0.0)
        elapsed = self._t_ns - begun.t_ns
        cpu = self._own + self._waited.total - begun.cpu_seconds
        return {
            "cpu_percent": {
                "avg": 100e9 * cpu / elapsed if elapsed else 0.0,
                "peak": self._cpu_peak,
            },
            "rss_bytes": {
                "avg": round((self._rss_area - begun.rss_area) / elapsed) if elapsed else 0,
                "peak": self._rss_peak,
            },
        }

    def _read_group(self) -> None:
        """Reads every member, takes in the children that came, lets go of who has ended.

        A process whose parent has ended stays a member.
        """
        waited = read = written = 0.0
        ended = []
        # Parents come before their children. So a child that is waited for in between shows in its
        # parent's counters at the next reading, and never in both.
        queue = list(self._members.values())
        for member in queue:  # grows while it is walked
            old = replace(member)
            if not _refresh(member):
                ended.append(member)
                continue
            self._own += max(member.own - old.own, 0.0)
            waited += member.waited - old.waited
            read += member.read - old.read
            written += member.written - old.written
            self._io_known |= member.io_known
            for process in _children(member.process):
                if process.pid not in self._members:
                    queue.append(self._join(process))
        for member in ended:
            del self._members[member.process.pid]
        self._waited.settle(waited, sum(member.own + member.waited for member in ended))
        self._read.settle(read, sum(member.read for member in ended))
        self._written.settle(written, sum(member.written for member in ended))

    def _join(self, process: psutil.Process) -> _Member:
        member = self._members[process.pid] = _Member(process)
        name = "?"
        with suppress(psutil.Error):
            name = process.name()
            # Overlooked at the start: what it spent before does not count. psutil knows the time
            # of birth to a second or two.
            if process.create_time() < self._began - 2:
                _refresh(member)
        if len(self._names) < _MOST_NAMES:
            self._names[process.pid] = name
        return member


def own_rss() -> int:
    """The memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def _runs(process: psutil.Process) -> bool:
    """Whether the process has not ended: a zombie has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _refresh(member: _Member) -> bool:
    """Reads the process's counters into ``member``; False where it has ended and been waited for.

    What may not be read stays as it was.
    """
    process = member.process
    member.rss = member.threads = 0
    try:
        if not process.is_running():  # also where the pid is another process's by now
            return False
        with process.oneshot():
            times = process.cpu_times()
            member.own = times.user + times.system
            member.waited = times.children_user + times.children_system
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            member.rss = process.memory_info().rss
            member.threads = process.num_threads()
            io = process.io_counters()
            member.read, member.written = io.read_bytes, io.write_bytes
            member.io_known = True
    except psutil.ZombieProcess:
        return True
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, AttributeError):  # no io_counters on macOS
        pass
    return True


def _children(process: psutil.Process) -> list[psutil.Process]:
    """The process's children. One that is overlooked while others end is found the next time."""
    found: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess, OSError):
        if not _LINUX_LISTS_CHILDREN:
            return process.children()
        tasks = f"/proc/{process.pid}/task"
        for task in os.listdir(tasks):
            with suppress(OSError):  # the thread has ended
                for pid in Path(tasks, task, "children").read_text().split():
                    with suppress(psutil.NoSuchProcess):
                        found.append(psutil.Process(int(pid)))
    return found

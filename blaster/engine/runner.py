"""The runner: forks the workers, starts them together, watches, and stops them.

The parent does no work of its own but to look: once a tick at the signals, the workers and the
clock, once an interval at the counts and at what the target spends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from blaster.engine import worker as worker_process
from blaster.engine.ledger import (
    ACCEPTED,
    CPU_BEGIN_NS,
    CPU_NS,
    DONE,
    DONE_REQUESTS,
    FAILED,
    FAILED_SPANS,
    LAST_SENT_NS,
    READY,
    REJECTED,
    SCHEDULED_SPANS,
    SENT_REQUESTS,
    SENT_SPANS,
    START_NS,
    STATE,
    STOP_NS,
    UNKNOWN,
    Ledger,
    Slab,
)
from blaster.engine.plan import Plan
from blaster.engine.signals import Interrupted, StopSignals
from blaster.errors import BlasterError, TargetUnreachable
from blaster.measure.histogram import Histogram
from blaster.measure.sampler import Sampler
from blaster.transport.base import Int64, Status

TICK_S = 0.05
INTERVAL_NS = 1_000_000_000
START_DELAY_NS = 20_000_000
CONNECT_TIMEOUT_S = 4.0
STOP_LIMIT_NS = 1_700_000_000
OVERTIME_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Point:
    """One interval of the run. ``t``: seconds since the start, at the interval's end. Counts are
    of spans, over the interval; ``in_flight`` of requests, at its end; ``p99_ms`` of the response
    times in it (None without any); CPU in percent of one core, memory in bytes."""

    t: float
    scheduled: int
    accepted: int
    failed: int
    in_flight: int
    p99_ms: float | None
    target_cpu: float | None
    target_rss: int | None
    generator_cpu: float


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker that ended before its time: which, and how."""

    worker: int
    pid: int
    how: str


@dataclass
class Run:
    """What was recorded of a run: the ledger, closed and balanced, and what the parent saw."""

    plan: Plan
    ledger: Ledger
    started_at: float
    start_ns: int
    end_ns: int = 0
    interrupted: bool = False
    lost_workers: list[LostWorker] = field(default_factory=list)
    series: list[Point] = field(default_factory=list)
    violations: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    own_violations: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    messages: dict[str, str] = field(default_factory=dict)
    target: Sampler | None = None
    target_gone: bool = False
    generator_cpu_s: float = 0.0
    generator_cpu_peak: float = 0.0
    generator_rss_peak: int = 0

    @property
    def offered_ns(self) -> int:
        """How long spans were offered: the stages' time, or until the last send or the stop."""
        stop = int(self.ledger.control[STOP_NS])
        planned = self.plan.scenario.duration_ns
        if stop:
            planned = min(planned, max(stop - self.start_ns, 1))
        last = max(int(slab.words[LAST_SENT_NS]) for slab in self.ledger.slabs)
        return max(planned, last - self.start_ns)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress display needs, once an interval."""

    run: Run
    point: Point
    duration_ns: int


class Runner:
    """Runs a Plan once.

    ``make_transport`` is called in each worker; ``signals`` stop the run; ``target`` samples what
    is watched, or is None;
    ``on_progress`` is called once a second from :meth:`run`.
    """

    def __init__(
        self,
        plan: Plan,
        make_transport: worker_process.TransportFactory,
        *,
        timeout_s: float,
        signals: StopSignals,
        target: Sampler | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._plan = plan
        self._make_transport = make_transport
        self._timeout_s = timeout_s
        self._signals = signals
        self._target = target
        self._on_progress = on_progress
        self._ledger = Ledger(plan.workers)
        self._pids: dict[int, int] = {}  # pid → worker, of those that run
        self._lost: list[LostWorker] = []

    def run(self) -> Run:
        """Sends the whole plan, or until SIGINT or SIGTERM, and returns what was recorded.

        Raises TargetUnreachable when a worker cannot connect, before any span is offered.
        """
        self._signals.on_stop = self._stop
        try:
            self._fork()
            self._await_connected()
            run = self._start()
            self._watch(run)
        finally:
            self._kill()
        return self._close(run)

    def _stop(self) -> None:
        if self._ledger.control[STOP_NS] == 0:
            self._ledger.control[STOP_NS] = time.monotonic_ns()

    def _fork(self) -> None:
        for worker in range(self._plan.workers):

            def life(worker: int = worker) -> None:
                worker_process.run(
                    self._plan,
                    worker,
                    self._ledger,
                    self._make_transport,
                    timeout_s=self._timeout_s,
                    connect_timeout_s=CONNECT_TIMEOUT_S,
                )

            self._pids[worker_process.fork(life)] = worker

    def _await_connected(self) -> None:
        states = [slab.words for slab in self._ledger.slabs]
        while any(words[STATE] != READY for words in states):
            self._reap()
            for slab in self._ledger.slabs:
                if slab.words[STATE] == FAILED:
                    raise TargetUnreachable(slab.said().get("error", "a worker cannot connect"))
            if self._lost:
                lost = self._lost[0]
                raise BlasterError(f"worker {lost.worker} (pid {lost.pid}) {lost.how} at its start")
            if self._stopped():
                raise Interrupted("interrupted before the first span was offered")
            time.sleep(0.005)

    def _start(self) -> Run:
        start = time.monotonic_ns() + START_DELAY_NS
        run = Run(
            plan=self._plan,
            ledger=self._ledger,
            started_at=time.time() + START_DELAY_NS / 1e9,
            start_ns=start,
            target=self._target,
        )
        if self._target is not None:
            self._target.sample()
            self._target.restart()
        self._ledger.control[START_NS] = start
        return run

    def _watch(self, run: Run) -> None:
        meter = _Meter(run, list(self._pids))
        due = run.start_ns + INTERVAL_NS
        latest = run.start_ns + self._plan.scenario.duration_ns + worker_process.GRACE_NS
        latest += int(self._timeout_s * 1e9) + OVERTIME_NS
        while self._pids:
            now = time.monotonic_ns()
            stop = self._stopped()
            if now > (stop + STOP_LIMIT_NS if stop else latest):
                self._give_up("did not stop in time")
            if now >= due:
                due += INTERVAL_NS * ((now - due) // INTERVAL_NS + 1)
                self._report(run, meter)
            time.sleep(TICK_S)
            self._reap()
        if time.monotonic_ns() - run.start_ns > INTERVAL_NS // 10:
            self._report(run, meter)
        meter.finish()

    def _report(self, run: Run, meter: _Meter) -> None:
        point = meter.point()
        run.series.append(point)
        if self._on_progress is not None:
            self._on_progress(Progress(run, point, self._plan.scenario.duration_ns))

    def _stopped(self) -> int:
        return int(self._ledger.control[STOP_NS])

    def _reap(self) -> None:
        """Notices the workers that ended; one that was not done is lost."""
        for pid in list(self._pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == 0:
                continue
            worker = self._pids.pop(pid)
            state = int(self._ledger.slabs[worker].words[STATE])
            if state not in (DONE, FAILED) or status != 0:
                self._lost.append(LostWorker(worker, pid, _ending(status)))

    def _give_up(self, how: str) -> None:
        for pid, worker in self._pids.items():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._lost.append(LostWorker(worker, pid, how))
        self._pids.clear()

    def _kill(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._pids.clear()

    def _close(self, run: Run) -> Run:
        """Balances the ledger: what a lost worker sent and did not account for is unknown."""
        run.end_ns = time.monotonic_ns()
        run.interrupted = self._stopped() != 0
        run.lost_workers = self._lost
        stop = self._stopped() or run.end_ns
        run.violations = np.zeros(3, np.int64)
        run.own_violations = np.zeros(3, np.int64)
        for worker, slab in enumerate(self._ledger.slabs):
            shard = self._plan.shard(worker)
            sent_requests = int(slab.words[SENT_REQUESTS])
            # A worker killed between two words of its ledger left them a request apart.
            sent = max(int(slab.words[SENT_SPANS]), shard.spans_of(sent_requests))
            slab.words[SENT_SPANS] = sent
            if slab.words[STATE] != DONE:
                scheduled = sent
                if self._plan.pacer is not None:
                    scheduled = max(sent, shard.spans_of(shard.due(stop - run.start_ns)))
                slab.words[SCHEDULED_SPANS] = scheduled
            _settle(slab)
            run.violations += shard.violations_of(sent_requests)
            run.own_violations += shard.own_violations_of(sent_requests)
            for status, text in slab.said().items():
                run.messages.setdefault(status, text)
        return run


def _settle(slab: Slab) -> None:
    words = slab.words
    known = int(words[ACCEPTED] + words[REJECTED] + words[FAILED_SPANS] + words[UNKNOWN])
    words[UNKNOWN] += int(words[SENT_SPANS]) - known
    unanswered = int(words[SENT_REQUESTS]) - int(slab.statuses.sum())
    slab.statuses[Status.WORKER_LOST] += unanswered
    words[DONE_REQUESTS] = words[SENT_REQUESTS]


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)}"


class _Meter:
    """Turns the ledger's totals and the samplers into a Point for each interval."""

    def __init__(self, run: Run, pids: Sequence[int]) -> None:
        self._run = run
        self._workers = Sampler.of_pids(pids)
        self._response = Histogram()
        self._counts = (0, 0, 0)
        self._parent_cpu = self._parent_begin = time.process_time()
        self._then = time.monotonic_ns()

    def point(self) -> Point:
        run, ledger = self._run, self._run.ledger
        now = time.monotonic_ns()
        elapsed = now - run.start_ns
        pacer = run.plan.pacer
        failed = ledger.total(FAILED_SPANS) + ledger.total(REJECTED) + ledger.total(UNKNOWN)
        scheduled = ledger.total(SENT_SPANS) if pacer is None else pacer.due(elapsed)
        counts = (scheduled, ledger.total(ACCEPTED), failed)
        response = ledger.response()
        recent = response.diff(self._response)
        target_cpu, target_rss = self._target()
        point = Point(
            t=round(elapsed / 1e9, 3),
            scheduled=counts[0] - self._counts[0],
            accepted=counts[1] - self._counts[1],
            failed=counts[2] - self._counts[2],
            in_flight=ledger.in_flight(),
            p99_ms=recent.summary_ms()["p99"],
            target_cpu=target_cpu,
            target_rss=target_rss,
            generator_cpu=self._generator_cpu(now),
        )
        self._counts, self._response = counts, response
        return point

    def finish(self) -> None:
        """Takes the generator's CPU from the workers' own clocks: exact, and kept when they die."""
        workers_ns = sum(
            int(slab.words[CPU_NS] - slab.words[CPU_BEGIN_NS]) for slab in self._run.ledger.slabs
        )
        self._run.generator_cpu_s = workers_ns / 1e9 + time.process_time() - self._parent_begin

    def _target(self) -> tuple[float | None, int | None]:
        target = self._run.target
        if target is None or target.gone:
            self._run.target_gone |= target is not None
            return None, None
        sample = target.sample()
        return round(sample.cpu_percent, 1), sample.rss_bytes

    def _generator_cpu(self, now: int) -> float:
        sample = self._workers.sample()
        parent = time.process_time()
        spent = 100e9 * (parent - self._parent_cpu) / max(now - self._then, 1)
        self._parent_cpu, self._then = parent, now
        percent = round(sample.cpu_percent + spent, 1)
        run = self._run
        run.generator_cpu_peak = max(run.generator_cpu_peak, percent)
        run.generator_rss_peak = max(run.generator_rss_peak, sample.rss_bytes)
        return percent

"""The runner: forks the workers, starts them together, watches, and stops them.

The parent does no work of its own but to look: once a tick at the signals, the workers and the
clock, once an interval at the counts and at what the target spends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from blaster.chaos import Chaos
from blaster.engine import worker as worker_process
from blaster.engine.ledger import (
    ACCEPTED,
    DONE,
    FAILED,
    FAILED_SPANS,
    LAST_SENT_NS,
    MOST_HOLDS,
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
)
from blaster.engine.plan import Plan, Shard
from blaster.engine.sample import Sample
from blaster.engine.segments import interval_ns
from blaster.engine.series import Point, Thinned, merge_points
from blaster.engine.signals import Interrupted, StopSignals
from blaster.errors import BlasterError, TargetUnreachable
from blaster.measure.hdr import Interval, merge_intervals
from blaster.measure.heat import MOST_COLUMNS, Column, merge_columns
from blaster.measure.histogram import Histogram
from blaster.measure.sampler import Sampler, UsageMark, own_rss
from blaster.measure.schedstat import SchedStat, Share
from blaster.measure.throttle import throttled_ns
from blaster.measure.warmup import mser5
from blaster.pacing.hold import OPEN_NS, Hold
from blaster.sink.rules import RULES
from blaster.transport.base import Int64, Status

TICK_S = 0.05
LOOK_NS = 200_000_000
START_DELAY_NS = 20_000_000
CONNECT_TIMEOUT_S = 4.0
STOP_LIMIT_NS = 1_700_000_000
OVERTIME_NS = 5_000_000_000

STOP, HOLD = "stop", "hold"
HOLD_MARGIN_NS = 250_000_000
"""How far ahead the rate is held or released: five times as far as workers look ahead."""


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker that ended before its time: which, and how."""

    worker: int
    pid: int
    how: str

    def __str__(self) -> str:
        return f"worker {self.worker} (pid {self.pid}) {self.how}"


@dataclass(frozen=True, slots=True)
class LostHost:
    """A host of a cluster that was lost: which, and how."""

    host: str
    how: str

    def __str__(self) -> str:
        return f"host {self.host} {self.how}"


@dataclass(frozen=True, slots=True)
class Mark:
    """What had been spent at a moment of the run, so that what follows can be told apart.

    ``t_ns``: CLOCK_MONOTONIC; ``cpu_s``: the generator's; ``sent``: spans; ``target``: the
    target's, where there is one.
    """

    t_ns: int
    cpu_s: float
    sent: int
    target: UsageMark | None


@dataclass
class Run:
    """What was recorded of a run: the ledger, closed and balanced, and what the parent saw.

    ``marks``: at the first point after each time, in ns since the start, that the warm-up may end
    at. ``intervals``: the latencies of each interval, where they are wanted. ``aborted``: why the
    run ended before its time. ``counted``: for each worker, of how many requests the violations are
    counted already.
    """

    plan: Plan
    ledger: Ledger
    started_at: float
    start_ns: int
    end_ns: int = 0
    interrupted: bool = False
    lost_workers: list[LostWorker | LostHost] = field(default_factory=list)
    partial: bool = False
    aborted: str | None = None
    series: Thinned[Point] = field(default_factory=lambda: Thinned(merge_points))
    heat: Thinned[Column] = field(default_factory=lambda: Thinned(merge_columns, MOST_COLUMNS))
    intervals: Thinned[Interval] | None = None
    marks: dict[int, Mark] = field(default_factory=dict)
    violations: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    own_violations: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    counted: dict[int, tuple[int, Int64, Int64]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    target: Sampler | None = None
    target_gone: bool = False
    generator_cpu_s: float = 0.0
    generator_cpu_peak: float = 0.0
    generator_rss_peak: int = 0
    worker_ran: Share | None = None
    worker_waited: Share | None = None
    throttled_ns: int = 0

    def sent(self) -> Iterator[tuple[Shard, int]]:
        """Each worker's shard, and how many of its requests were sent."""
        for worker, slab in enumerate(self.ledger.slabs):
            yield self.plan.shard(worker), int(slab.words[SENT_REQUESTS])

    def balance(self, stop_ns: int) -> None:
        """Balances the ledger of a run that was stopped at ``stop_ns``: what a worker sent and did
        not account for is unknown."""
        _balance(self, stop_ns)

    def count_violations(self, worker: int, requests: int) -> None:
        """Brings ``counted`` up to the worker's first so many requests."""
        none = np.zeros(len(RULES), np.int64)
        before, violations, own = self.counted.get(worker, (0, none, none))
        shard = self.plan.shard(worker)
        violations = violations + shard.violations_between(before, requests)
        own = own + shard.own_violations_between(before, requests)
        self.counted[worker] = (requests, violations, own)

    @property
    def warmup_ns(self) -> int | None:
        """When the warm-up ended, one of the segments' starts; 0: there was none, or the run ended
        within it; None: it was sought and not found, so that nothing is left out."""
        warmup = self.plan.scenario.warmup
        if not warmup.auto:
            return warmup.duration_ns if warmup.duration_ns < self.offered_ns else 0
        first = self.plan.scenario.stages[0].duration_ns
        points = [p for p in self.series.items if p.t * 1e9 <= first and p.mean_ms is not None]
        cut = mser5(np.array([p.mean_ms for p in points], np.float64))
        if cut is None:
            return None
        end = round(points[cut - 1].t * 1e9) if cut else 0
        # To the nearest slice: the interval that was cut last ends a little after its second.
        starts = self.plan.segments.starts
        starts = starts[starts <= first // 2]
        return int(starts[np.argmin(np.abs(starts - end))])

    @property
    def offered_ns(self) -> int:
        """How long spans were offered: the stages' time, or until the last send or the stop."""
        stop = self.ledger.stopped_ns
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


class Steering(Protocol):
    """What says when a run starts and how long it may go on, where that is not for the runner to
    say: a host of a cluster has one. ``epoch_ns``: when its CLOCK_MONOTONIC was 0, ns since 1970
    by the clock that all hosts go by."""

    epoch_ns: int

    def start(self, ledger: Ledger) -> int:
        """Called once all workers are ready; returns when to start, in CLOCK_MONOTONIC ns."""

    def tick(self, ledger: Ledger) -> None:
        """Called some twenty times a second while the run goes on."""


class Control(Protocol):
    """Whoever steers a run: is asked a few times a second, and told what came of it."""

    def poll(self, run: Run) -> str | None:
        """STOP, HOLD (which releases, too) or None."""

    def answer(self, text: str) -> None:
        """What a wish led to, or why it cannot be granted."""


class Runner:
    """Runs a Plan once.

    ``make_transport`` is called in each worker; ``signals`` stop the run; ``target`` samples what
    is watched, or is None; ``on_progress`` is called once an interval from :meth:`run`, and a text
    that it returns ends the run, as the reason; ``keep_intervals``: latencies are kept for each
    interval; ``steering`` starts the run, where there is one; ``sample``: is drawn from the
    accepted requests; ``control`` may stop the run, or hold its rate; ``chaos`` is told how it
    goes.
    """

    def __init__(
        self,
        plan: Plan,
        make_transport: worker_process.TransportFactory,
        *,
        timeout_s: float,
        signals: StopSignals,
        target: Sampler | None = None,
        on_progress: Callable[[Progress], str | None] | None = None,
        keep_intervals: bool = False,
        steering: Steering | None = None,
        sample: Sample | None = None,
        control: Control | None = None,
        chaos: Chaos | None = None,
    ) -> None:
        self._steering = steering
        self._chaos = chaos
        self._plan = plan
        self._make_transport = make_transport
        self._timeout_s = timeout_s
        self._signals = signals
        self._target = target
        self._on_progress = on_progress
        self._keep_intervals = keep_intervals
        self._sample = sample
        self._control = control
        self._ledger = Ledger(plan.workers, plan.segments)
        if steering is not None:
            self._ledger.epoch_ns = steering.epoch_ns
        self._pids: dict[int, int] = {}  # pid → worker, of those that run
        self._lost: list[LostWorker | LostHost] = []

    def run(self) -> Run:
        """Sends the whole plan, or until SIGINT or SIGTERM, and returns what was recorded.

        Raises TargetUnreachable when a worker cannot connect, before any span is offered.
        """
        self._signals.on_stop = self._ledger.stop
        try:
            self._fork()
            self._await_connected()
            run = self._start()
            self._watch(run)
        finally:
            self._kill()
        return self._close(run)

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
                    sample=self._sample,
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
                raise BlasterError(f"{lost} at its start")
            if self._ledger.stopped_ns:
                raise Interrupted("interrupted before the first span was offered")
            time.sleep(0.005)

    def _start(self) -> Run:
        if self._steering is None:
            start = time.monotonic_ns() + START_DELAY_NS
        else:
            start = self._steering.start(self._ledger)
        run = Run(
            plan=self._plan,
            ledger=self._ledger,
            started_at=(self._ledger.epoch_ns + start) / 1e9,
            start_ns=start,
            target=self._target,
            lost_workers=self._lost,
            intervals=Thinned(merge_intervals) if self._keep_intervals else None,
        )
        if self._target is not None:
            self._target.restart()
        self._ledger.control[START_NS] = start
        return run

    def _watch(self, run: Run) -> None:
        meter = _Meter(run, list(self._pids))
        interval = interval_ns(self._plan.scenario)
        due = run.start_ns + interval
        extra = worker_process.GRACE_NS + int(self._timeout_s * 1e9) + OVERTIME_NS
        while self._pids:
            now = time.monotonic_ns()
            stop = self._ledger.stopped_ns
            latest = run.start_ns + run.plan.scenario.duration_ns + extra
            if now > (stop + STOP_LIMIT_NS if stop else latest):
                self._give_up("did not stop in time")
            if self._control is not None:
                self._steer(run, self._control)
            meter.look(now)
            if now >= due:
                due += interval * ((now - due) // interval + 1)
                self._report(run, meter)
            if self._steering is not None:
                self._steering.tick(self._ledger)
            if self._chaos is not None and now >= run.start_ns:
                lost = lost_spans(self._ledger)
                self._chaos.tick(now - run.start_ns, self._ledger.total(ACCEPTED), lost)
            time.sleep(TICK_S)
            self._reap()
        if time.monotonic_ns() - run.start_ns > 100_000_000:
            self._report(run, meter)
        meter.finish()

    def _report(self, run: Run, meter: _Meter) -> None:
        point = meter.point()
        run.series.add(point)
        if self._on_progress is None:
            return
        reason = self._on_progress(Progress(run, point, run.plan.scenario.duration_ns))
        if reason and not self._ledger.stopped_ns:
            run.aborted = reason
            self._ledger.stop()

    def _steer(self, run: Run, control: Control) -> None:
        wish = control.poll(run)
        if wish == STOP and not self._ledger.stopped_ns:
            control.answer("stopping")
            self._ledger.stop()
        elif wish == HOLD:
            control.answer(self._hold(run))

    def _hold(self, run: Run) -> str:
        """Holds the rate, or releases it, HOLD_MARGIN_NS from now: later than anything that a
        worker can have made ready, so that all agree on what is due."""
        ledger = self._ledger
        at = time.monotonic_ns() - run.start_ns + HOLD_MARGIN_NS
        holds = ledger.holds()
        if self._ledger.stopped_ns:
            return "the run is stopping"
        if holds and holds[-1].duration_ns == OPEN_NS:
            holds[-1] = replace(holds[-1], duration_ns=max(at - holds[-1].begin_ns, 0))
            said = "released"
        else:
            why = self._plan.cannot_hold()
            if why is None and len(holds) >= MOST_HOLDS:
                why = f"it was held {MOST_HOLDS} times already"
            if why is None and holds and at <= holds[-1].begin_ns + holds[-1].duration_ns:
                why = "it has only just been released"
            shards = [run.plan.shard(worker) for worker in range(run.plan.workers)]
            # A worker that has sent its last request would not be there for more.
            if why is None and any(shard.due(at) >= (shard.requests or 0) for shard in shards):
                why = "the run is nearly over"
            if why is not None:
                return f"cannot hold the rate: {why}"
            holds.append(Hold(at, run.plan.rate_at(at)))
            said = f"holding {holds[-1].rate:,} spans/s"
        run.plan = self._plan.held(holds)
        ledger.put_holds(holds)
        return said

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
        run.end_ns = time.monotonic_ns()
        run.interrupted = self._ledger.stopped_ns != 0 and run.aborted is None
        run.balance(self._ledger.stopped_ns or run.end_ns)
        return run


def never_started(plan: Plan) -> Run:
    """The record of a run that was interrupted before anything was due."""
    ledger = Ledger(plan.workers, plan.segments)
    now = time.monotonic_ns()
    ledger.control[STOP_NS] = now - 1
    started_at = (ledger.epoch_ns + now) / 1e9
    run = Run(plan, ledger, started_at, start_ns=now, end_ns=now, interrupted=True)
    run.balance(now - 1)
    return run


def so_far(run: Run) -> Run:
    """A run that is still going on as if it had been stopped now: what is in flight is unknown."""
    now = time.monotonic_ns()
    ledger = run.ledger.snapshot()
    if not ledger.stopped_ns:
        ledger.control[STOP_NS] = now
    partial = replace(
        run, ledger=ledger, end_ns=now, partial=True, messages={}, lost_workers=[*run.lost_workers]
    )
    partial.balance(ledger.stopped_ns)
    return partial


def _balance(run: Run, stop: int) -> None:
    plan = run.plan
    none = np.zeros(len(RULES), np.int64)
    run.violations, run.own_violations = none.copy(), none.copy()
    for worker, slab in enumerate(run.ledger.slabs):
        shard = plan.shard(worker)
        sent_requests = int(slab.words[SENT_REQUESTS])
        # A worker killed between two words of its ledger left them a request apart.
        sent = max(int(slab.words[SENT_SPANS]), shard.spans_of(sent_requests))
        slab.words[SENT_SPANS] = sent
        if slab.words[STATE] != DONE:
            scheduled = sent
            if plan.pacer is not None:
                scheduled = max(sent, shard.spans_of(shard.due(stop - run.start_ns)))
            slab.words[SCHEDULED_SPANS] = scheduled
        unanswered = int(slab.words[SENT_REQUESTS]) - int(slab.statuses.sum())
        slab.statuses[Status.ABANDONED if run.partial else Status.WORKER_LOST] += unanswered
        slab.settle()
        run.count_violations(worker, sent_requests)
        run.violations += run.counted[worker][1]
        run.own_violations += run.counted[worker][2]
        for status, text in slab.said().items():
            run.messages.setdefault(status, text)


def lost_spans(ledger: Ledger) -> int:
    """Spans that were sent and, by now, will not be accepted, or may not have been."""
    return ledger.total(REJECTED) + ledger.total(FAILED_SPANS) + ledger.total(UNKNOWN)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)}"


class _Meter:
    """Turns the ledger's totals and the samplers into a Point for each interval."""

    def __init__(self, run: Run, pids: Sequence[int]) -> None:
        self._run = run
        self._workers = Sampler.of_pids(pids)
        self._sched = SchedStat(pids)
        self._throttled = throttled_ns()
        self._looked = 0
        self._response, self._service = Histogram(), Histogram()
        self._counts = (0, 0, 0)
        self._parent_cpu = self._parent_begin = time.process_time()
        self._then = time.monotonic_ns()
        self._begun = 0.0
        self._awaited = warmup_ends(run)

    def look(self, now: int) -> None:
        """Reads how long the workers ran and waited for a CPU, a few times a second."""
        if now >= self._looked + LOOK_NS:
            self._looked = now
            self._sched.look(now)

    def point(self) -> Point:
        run, ledger = self._run, self._run.ledger
        now = time.monotonic_ns()
        elapsed = now - run.start_ns
        pacer = run.plan.pacer
        failed = ledger.total(FAILED_SPANS) + ledger.total(REJECTED) + ledger.total(UNKNOWN)
        scheduled = ledger.total(SENT_SPANS) if pacer is None else run.plan.due(elapsed)
        counts = (scheduled, ledger.total(ACCEPTED), failed)
        response = ledger.response()
        recent = response.diff(self._response)
        summary = recent.summary_ms()
        target_cpu, target_rss = self._target()
        generator_cpu, generator_rss = self._generator(now)
        point = Point(
            t=round(elapsed / 1e9, 3),
            scheduled=counts[0] - self._counts[0],
            accepted=counts[1] - self._counts[1],
            failed=counts[2] - self._counts[2],
            in_flight=ledger.in_flight(),
            p99_ms=summary["p99"],
            target_cpu=target_cpu,
            target_rss=target_rss,
            generator_cpu=generator_cpu,
            generator_rss=generator_rss,
            mean_ms=summary["mean"],
            backlog=max(0, scheduled - ledger.total(SENT_SPANS)),
            p50_ms=summary["p50"],
            p90_ms=summary["p90"],
            p999_ms=summary["p999"],
        )
        run.heat.add(Column.of(point.t, recent))
        if run.intervals is not None:
            service = ledger.service()
            recent_service = service.diff(self._service)
            run.intervals.add(Interval.of(self._begun, point.t, recent, recent_service))
            self._service = service
        self._counts, self._response, self._begun = counts, response, point.t
        self.finish()
        while self._awaited and elapsed >= self._awaited[0]:
            run.marks[self._awaited.pop(0)] = Mark(
                now,
                run.generator_cpu_s,
                ledger.total(SENT_SPANS),
                run.target.mark() if run.target else None,
            )
        return point

    def finish(self) -> None:
        """Takes the generator's CPU from the workers' own clocks: exact, and kept when they die."""
        workers = sum(slab.cpu_seconds for slab in self._run.ledger.slabs)
        self._run.generator_cpu_s = workers + time.process_time() - self._parent_begin
        self._run.worker_ran, self._run.worker_waited = self._sched.ran(), self._sched.waited()
        self._run.throttled_ns = throttled_ns() - self._throttled

    def _target(self) -> tuple[float | None, int | None]:
        target = self._run.target
        if target is None or target.gone:
            self._run.target_gone |= target is not None
            return None, None
        sample = target.sample()
        return round(sample.cpu_percent, 1), sample.rss_bytes

    def _generator(self, now: int) -> tuple[float, int]:
        sample = self._workers.sample()
        parent = time.process_time()
        spent = 100e9 * (parent - self._parent_cpu) / max(now - self._then, 1)
        self._parent_cpu, self._then = parent, now
        percent = round(sample.cpu_percent + spent, 1)
        run, rss = self._run, sample.rss_bytes + own_rss()
        run.generator_cpu_peak = max(run.generator_cpu_peak, percent)
        run.generator_rss_peak = max(run.generator_rss_peak, rss)
        return percent, rss


def warmup_ends(run: Run) -> list[int]:
    """When the warm-up may end, in ns since the start: one time, several, or none."""
    scenario = run.plan.scenario
    if not scenario.warmup.auto:
        return [scenario.warmup.duration_ns] if scenario.warmup.duration_ns else []
    half = scenario.stages[0].duration_ns // 2
    return [start for start in run.plan.segments.starts.tolist() if 0 < start <= half]

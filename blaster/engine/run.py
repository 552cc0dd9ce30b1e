"""Run: what was recorded of a run, and how its books are closed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan, Shard
from blaster.engine.segments import interval_ns
from blaster.engine.series import Point, Thinned, merge_points
from blaster.engine.slab import WorkerState
from blaster.layout import Int64
from blaster.measure.hdr import Interval
from blaster.measure.heat import MOST_COLUMNS, Column, merge_columns
from blaster.measure.sampler import Sampler, UsageMark
from blaster.measure.schedstat import Share
from blaster.measure.warmup import mser5
from blaster.otlp.rules import RULES
from blaster.transport.base import Status


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
            yield self.plan.shard(worker), slab.sent_requests

    def balance(self, stop_ns: int) -> None:
        """Balances the ledger of a run that was stopped at ``stop_ns``: what a worker sent and did
        not account for is unknown."""
        none = np.zeros(len(RULES), np.int64)
        self.violations, self.own_violations = none.copy(), none.copy()
        for worker, slab in enumerate(self.ledger.slabs):
            shard = self.plan.shard(worker)
            sent_requests = slab.sent_requests
            # A worker killed between two words of its ledger left them a request apart.
            sent = max(slab.sent_spans, shard.spans_of(sent_requests))
            slab.sent_spans = sent
            if slab.state != WorkerState.DONE:
                scheduled = sent
                if self.plan.pacer is not None:
                    scheduled = max(sent, shard.spans_of(shard.due(stop_ns - self.start_ns)))
                slab.scheduled = scheduled
            unanswered = slab.sent_requests - int(slab.statuses.sum())
            slab.statuses[Status.ABANDONED if self.partial else Status.WORKER_LOST] += unanswered
            slab.settle()
            self.count_violations(worker, sent_requests)
            self.violations += self.counted[worker][1]
            self.own_violations += self.counted[worker][2]
            for status, text in slab.messages().items():
                self.messages.setdefault(status, text)

    def count_violations(self, worker: int, requests: int) -> None:
        """Brings ``counted`` up to the worker's first so many requests."""
        none = np.zeros(len(RULES), np.int64)
        before, violations, own = self.counted.get(worker, (0, none, none))
        shard = self.plan.shard(worker)
        violations = violations + shard.violations_between(before, requests)
        own = own + shard.own_violations_between(before, requests)
        self.counted[worker] = (requests, violations, own)

    def end_series(self, last: Point) -> Point:
        """End the series with ``last``, which has all that the points before it have not; return
        its last point.

        The answers that were awaited after the load had ended belong to the last interval of the
        load: on their own they would look as if the rate had fallen. So does the rest of an
        interval that is less than half of one.
        """
        points = self.series.items
        end = self.offered_ns / 1e9
        if not points:
            points.append(replace(last, t=round(min(last.t, end), 3)))
            return points[-1]
        before = points[-1]
        if end <= before.t:
            points[-1] = replace(merge_points(before, last), t=before.t)
        elif end - before.t < interval_ns(self.plan.scenario) / 2e9:
            points[-1] = replace(merge_points(before, last), t=round(end, 3))
        else:
            self.series.add(replace(last, t=round(min(last.t, end), 3)))
        return points[-1]

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
        last = max(slab.last_sent_ns for slab in self.ledger.slabs)
        return max(planned, last - self.start_ns)


def never_started(plan: Plan) -> Run:
    """The record of a run that was interrupted before anything was due."""
    ledger = Ledger(plan.workers, plan.segments)
    now = time.monotonic_ns()
    ledger.control.stop_ns = now - 1
    started_at = (ledger.epoch_ns + now) / 1e9
    run = Run(plan, ledger, started_at, start_ns=now, end_ns=now, interrupted=True)
    run.balance(now - 1)
    return run


def so_far(run: Run) -> Run:
    """A run that is still going on as if it had been stopped now: what is in flight is unknown."""
    now = time.monotonic_ns()
    ledger = run.ledger.snapshot()
    if not ledger.stopped_ns:
        ledger.control.stop_ns = now
    partial = replace(
        run, ledger=ledger, end_ns=now, partial=True, messages={}, lost_workers=[*run.lost_workers]
    )
    partial.balance(ledger.stopped_ns)
    return partial


def warmup_ends(run: Run) -> list[int]:
    """When the warm-up may end, in ns since the start: one time, several, or none."""
    scenario = run.plan.scenario
    if not scenario.warmup.auto:
        return [scenario.warmup.duration_ns] if scenario.warmup.duration_ns else []
    half = scenario.stages[0].duration_ns // 2
    return [start for start in run.plan.segments.starts.tolist() if 0 < start <= half]

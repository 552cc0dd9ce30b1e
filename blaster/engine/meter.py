"""Meter: the points of a run's series, from the ledger's totals and the samplers."""

from __future__ import annotations

import time
from collections.abc import Sequence

from blaster.engine.due import DueSpans
from blaster.engine.run import Mark, Run, warmup_ends
from blaster.engine.series import Point
from blaster.engine.slab import Slab
from blaster.measure.hdr import Interval
from blaster.measure.heat import Column
from blaster.measure.histogram import Histogram
from blaster.measure.sampler import Sampler, own_rss
from blaster.measure.schedstat import SchedStat
from blaster.measure.throttle import throttled_ns

LOOK_NS = 200_000_000
"""How often the scheduler's clocks of the workers are read."""


class Meter:
    """Turns the ledger's totals and the samplers into a Point for each interval."""

    def __init__(self, run: Run, pids: Sequence[int]) -> None:
        self._run = run
        self._workers = Sampler.of_pids(pids)
        self._sched = SchedStat(pids)
        self._throttled = throttled_ns()
        self._looked = 0
        self._response, self._service = Histogram(), Histogram()
        self._due = DueSpans()
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
        sent = ledger.total(Slab.sent_spans)
        counts = (self._scheduled(now), ledger.total(Slab.accepted), ledger.lost_spans())
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
            backlog=max(0, counts[0] - sent),
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
                ledger.total(Slab.sent_spans),
                run.target.mark() if run.target else None,
            )
        return point

    def _scheduled(self, now: int) -> int:
        """The spans due so far; of a run that is over, those that its ledger says."""
        run = self._run
        if run.end_ns:
            return run.ledger.total(Slab.scheduled)
        if run.plan.pacer is None:
            return run.ledger.total(Slab.sent_spans)
        until = min(now, run.ledger.stopped_ns or now)
        return self._due.until(run.plan.own_shards(), until - run.start_ns)

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

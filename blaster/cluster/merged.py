"""One run out of many: what the hosts report, added up on one axis of time.

A host's report of an interval says how its ledger changed. Changes of the same interval are added
over the hosts and make a point of the series; changes of the same host are added over time and are
what is known of it should it be lost. At its end a host sends its ledger as it is, which then takes
the place of what it had reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from blaster.cluster.host import figures_of
from blaster.cluster.ledger_delta import Sum, latencies, unpack
from blaster.cluster.messages import Final, Order, Report
from blaster.engine.due import DueSpans
from blaster.engine.ledger import Ledger
from blaster.engine.plan import Shard
from blaster.engine.results import Clock, HostFigures, HostResult
from blaster.engine.run import LostHost, Mark, Run, warmup_ends
from blaster.engine.segments import interval_ns
from blaster.engine.series import Point
from blaster.engine.slab import Slab, WorkerState
from blaster.engine.summary import results_of
from blaster.layout import Int64
from blaster.measure.hdr import Interval
from blaster.measure.schedstat import Share
from blaster.otlp.rules import RULES
from blaster.transport.base import Status


@dataclass
class Part:
    """One host of a run, and what is known of it.

    ``offset_ns``: its CLOCK_MONOTONIC less ours; ``lease_ns``: until when it may send, ns since
    the start; ``intervals``: how many of them it has reported.
    """

    number: int
    name: str
    address: str
    cpus: int
    offset_ns: int = 0
    clock: Clock = field(default_factory=lambda: Clock(0.0, 0.0, 0.0))
    start_late_ms: float = 0.0
    lease_ns: int = 0
    intervals: int = 0
    words: Sum | None = None
    report: Report | None = None
    final: Final | None = None
    lost: LostHost | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.final is not None or self.lost is not None


@dataclass
class ClusterRun(Run):
    """A Run whose ledger has one slab, of all hosts; ``hosts``: their figures, once it is over."""

    parts: Sequence[Part] = ()
    hosts: list[HostResult] = field(default_factory=list)
    shards: list[tuple[Shard, int]] = field(default_factory=list)

    def sent(self) -> Iterator[tuple[Shard, int]]:
        """Each worker's shard, and how many of its requests were sent, once the run is over."""
        yield from self.shards

    def balance(self, stop_ns: int) -> None:
        """Balances the ledger of a run that still goes on: what is in flight is unknown."""
        slab, plan = self.ledger.slabs[0], self.plan
        sent = slab.sent_spans
        scheduled = sent
        if plan.pacer is not None:
            whole = plan.whole()
            scheduled = max(sent, whole.spans_of(whole.due(stop_ns - self.start_ns)))
        slab.scheduled = scheduled
        slab.statuses[Status.ABANDONED] += slab.sent_requests - int(slab.statuses.sum())
        slab.settle()
        none = np.zeros(len(RULES), np.int64)
        reports = [part.report for part in self.parts if part.report is not None]
        self.violations = sum((np.array(r.violations) for r in reports), none)
        self.own_violations = sum((np.array(r.own_violations) for r in reports), none)


class Merged:
    """Adds up what the parts report into ``run``, which is one of all of them."""

    def __init__(self, run: ClusterRun) -> None:
        self.run = run
        self._plan = run.plan
        self._interval = interval_ns(run.plan.scenario)
        self._length = len(run.ledger.slabs[0].all_words)
        self._waiting: dict[int, _Bin] = {}
        self._emitted = 0
        self._due = DueSpans()
        self._counts = (0, 0, 0)
        self._latest_ns = 0
        self._parent_cpu = time.process_time()
        self._awaited = warmup_ends(run)

    def take(self, part: Part, report: Report) -> None:
        """Takes in one report. ValueError for one that is none."""
        places, values = unpack(report.words, self._length)
        if part.words is None:
            part.words = Sum(self._length)
        part.words.add(places, values)
        number = max(report.elapsed_ns // self._interval, self._emitted + 1)
        part.intervals = max(part.intervals, number)
        into = self._waiting.setdefault(number, _Bin())
        into.parts.append((places, values))
        into.cpu_percent += report.cpu_percent
        into.rss_bytes += report.rss_bytes
        into.elapsed_ns = max(into.elapsed_ns, report.elapsed_ns)
        part.report = report
        known = {str(lost) for lost in self.run.lost_workers}
        for text in report.lost_workers:
            if f"host {part.name} {text}" not in known:
                self.run.lost_workers.append(LostHost(part.name, f"lost a worker: {text}"))

    def points(self) -> Iterator[Point]:
        """The points of the intervals that all hosts still there have reported."""
        there = [part.intervals for part in self.run.parts if not part.is_over]
        until = min(there) if there else max(self._waiting, default=0)
        for number in sorted(n for n in self._waiting if n <= until):
            yield self._point(number, self._waiting.pop(number))

    def _point(self, number: int, reported: _Bin) -> Point:
        run, ledger = self.run, self.run.ledger
        slab = ledger.slabs[0]
        places = np.concatenate([places for places, _ in reported.parts])
        values = np.concatenate([values for _, values in reported.parts])
        np.add.at(slab.all_words, places, values)
        slab.last_sent_ns = self._last_sent()
        response, service = latencies(places, values)
        elapsed = reported.elapsed_ns
        sent = slab.sent_spans
        counts = (self._scheduled(elapsed), slab.accepted, ledger.lost_spans())
        scheduled, accepted, failed = self._grown(counts)
        target_cpu = target_rss = None
        if run.target is not None and not run.target.gone:
            sample = run.target.sample()
            target_cpu, target_rss = round(sample.cpu_percent, 1), sample.rss_bytes
        elif run.target is not None:
            run.target_gone = True
        summary = response.summary_ms()
        point = Point(
            t=round(elapsed / 1e9, 3),
            scheduled=scheduled,
            accepted=accepted,
            failed=failed,
            in_flight=self._in_flight(),
            p99_ms=summary["p99"],
            target_cpu=target_cpu,
            target_rss=target_rss,
            generator_cpu=round(reported.cpu_percent, 1),
            generator_rss=reported.rss_bytes,
            mean_ms=summary["mean"],
            backlog=max(0, counts[0] - sent),
        )
        if run.intervals is not None:
            begun = self._latest_ns / 1e9
            run.intervals.add(Interval.of(begun, point.t, response, service))
        self._emitted, self._latest_ns = number, elapsed
        run.generator_cpu_peak = max(run.generator_cpu_peak, point.generator_cpu)
        run.generator_rss_peak = max(run.generator_rss_peak, point.generator_rss)
        run.generator_cpu_s = self._cpu_s()
        run.series.add(point)
        while self._awaited and elapsed >= self._awaited[0]:
            run.marks[self._awaited.pop(0)] = Mark(
                run.start_ns + elapsed,
                run.generator_cpu_s,
                sent,
                run.target.mark() if run.target else None,
            )
        return point

    def _scheduled(self, elapsed: int) -> int:
        """The spans due so far."""
        ledger = self.run.ledger
        if self._plan.pacer is None:
            return ledger.total(Slab.sent_spans)
        stop = ledger.stopped_ns
        until = min(elapsed, stop - self.run.start_ns) if stop else elapsed
        return self._due.until([self._plan.whole()], until)

    def _grown(self, counts: tuple[int, int, int]) -> tuple[int, int, int]:
        """By how much the counts are more than they were at the last call."""
        before, self._counts = self._counts, counts
        scheduled, accepted, failed = (now - then for now, then in zip(counts, before, strict=True))
        return scheduled, accepted, failed

    def _in_flight(self) -> int:
        """Requests that the hosts still there have in flight."""
        total = 0
        for part in self.run.parts:
            if part.words is not None and not part.is_over:
                plain = part.words.plain
                total += int(plain[Slab.sent_requests] - plain[Slab.done_requests])
        return total

    def _last_sent(self) -> int:
        latest = 0
        for part in self.run.parts:
            if part.words is not None:
                latest = max(latest, int(part.words.plain[Slab.last_sent_ns]))
        return self.run.start_ns + latest if latest else 0

    def _cpu_s(self) -> float:
        """What all hosts and the parent have spent."""
        spent = time.process_time() - self._parent_cpu
        for part in self.run.parts:
            if part.final is not None:
                spent += part.final.cpu_s
            elif part.report is not None:
                spent += part.report.cpu_s
        return spent

    def close(self, order: Order) -> list[HostResult]:
        """Makes the run's ledger anew of what the hosts said last, balanced; returns the hosts'
        figures. Nothing may come after."""
        run = self.run
        run.end_ns = time.monotonic_ns()
        run.violations = np.zeros(len(RULES), np.int64)
        run.own_violations = np.zeros(len(RULES), np.int64)
        total = Ledger(1, self._plan.segments)
        total.epoch_ns = run.ledger.epoch_ns
        total.control.words[:] = run.ledger.control.words
        latest = 0
        shares: list[tuple[Share, Share]] = []
        hosts = []
        for part in run.parts:
            one, figures = self._closed(part, order)
            latest = max(latest, one.ledger.slabs[0].last_sent_ns)
            total.slabs[0].all_words += one.ledger.slabs[0].all_words
            run.violations += one.violations
            run.own_violations += one.own_violations
            for status, text in one.messages.items():
                run.messages.setdefault(status, text)
            run.throttled_ns = max(run.throttled_ns, one.throttled_ns)
            run.generator_cpu_peak = max(run.generator_cpu_peak, one.generator_cpu_peak)
            if one.worker_ran is not None and one.worker_waited is not None:
                shares.append((one.worker_ran, one.worker_waited))
            hosts.append(_host_result(part, figures))
        total.slabs[0].last_sent_ns = run.start_ns + latest if latest else 0
        total.slabs[0].state = WorkerState.DONE
        run.ledger = total
        run.generator_cpu_s = self._cpu_s()
        run.end_series(self._last_point())
        if shares:
            run.worker_ran = _mean([ran for ran, _ in shares])
            run.worker_waited = _mean([waited for _, waited in shares])
        return hosts

    def _last_point(self) -> Point:
        """What the balanced ledger has and the points do not."""
        ledger = self.run.ledger
        accepted, failed = ledger.total(Slab.accepted), ledger.lost_spans()
        scheduled, accepted, failed = self._grown((ledger.total(Slab.scheduled), accepted, failed))
        return Point(
            t=(self.run.end_ns - self.run.start_ns) / 1e9,
            scheduled=scheduled,
            accepted=accepted,
            failed=failed,
            in_flight=0,
            p99_ms=None,
            target_cpu=None,
            target_rss=None,
            generator_cpu=0.0,
        )

    def _closed(self, part: Part, order: Order) -> tuple[Run, HostFigures]:
        """One host's run, closed and balanced, and its figures. ``last_sent_ns`` counts from 0."""
        run = self.run
        plan = replace(order.plan, host=part.number)
        ledger = Ledger(1, plan.segments)
        ledger.control.words[:] = run.ledger.control.words
        one = Run(plan, ledger, run.started_at, run.start_ns, end_ns=run.end_ns)
        if part.final is None:
            self._balance_lost(part, one)
            figures = figures_of(results_of(one, order.configuration, None))
            figures.limited_by, figures.reason = "lost", str(part.lost)
            return one, figures
        final = part.final
        run.shards += [(plan.shard(worker), sent) for worker, sent in enumerate(final.sent)]
        places, values = unpack(final.words, self._length)
        ledger.slabs[0].all_words[places] = values
        one.violations = np.array(final.violations, np.int64)
        one.own_violations = np.array(final.own_violations, np.int64)
        one.messages = final.messages
        one.generator_cpu_peak = final.cpu_peak
        one.throttled_ns = final.throttled_ns
        one.worker_ran = Share(*final.ran) if final.ran else None
        one.worker_waited = Share(*final.waited) if final.waited else None
        return one, final.figures

    def _balance_lost(self, part: Part, one: Run) -> None:
        """What is known of a lost host. What it had not reported and was due while it might still
        send may have been sent, so that it is unknown; what is due later was not offered."""
        plan, slab = one.plan, one.ledger.slabs[0]
        if part.words is not None:
            slab.all_words[:] = part.words.whole()
        stop = one.ledger.stopped_ns
        stopped = stop - one.start_ns if stop else plan.scenario.duration_ns
        report = part.report
        reported = report.sent if report is not None else [0] * plan.workers
        one.violations = np.zeros(len(RULES), np.int64)
        one.own_violations = np.zeros(len(RULES), np.int64)
        if report is not None:
            one.violations += np.array(report.violations)
            one.own_violations += np.array(report.own_violations)
            one.generator_cpu_s = report.cpu_s
            one.generator_rss_peak = report.rss_bytes
        sent_spans = scheduled = 0
        requests = 0
        for worker, known in enumerate(reported):
            shard, sent, due = plan.shard(worker), known, known
            if plan.pacer is not None:
                sent = max(known, shard.due(min(part.lease_ns, stopped)))
                due = max(sent, shard.due(stopped))
            requests += sent
            self.run.shards.append((shard, sent))
            spans = shard.spans_of(sent)
            sent_spans += spans
            scheduled += spans + (shard.spans_of(due) - spans)
            one.violations += shard.violations_between(known, sent)
            one.own_violations += shard.own_violations_between(known, sent)
        slab.sent_requests = max(requests, slab.sent_requests)
        slab.sent_spans = max(sent_spans, slab.sent_spans)
        slab.scheduled = max(scheduled, slab.sent_spans)
        slab.state = WorkerState.DONE
        slab.statuses[Status.HOST_LOST] += slab.sent_requests - int(slab.statuses.sum())
        slab.settle()


@dataclass
class _Bin:
    """What was reported of one interval."""

    parts: list[tuple[Int64, Int64]] = field(default_factory=list)
    cpu_percent: float = 0.0
    rss_bytes: int = 0
    elapsed_ns: int = 0


def _mean(shares: list[Share]) -> Share:
    """The mean of the averages, and the highest of the peaks."""
    return Share(
        round(sum(share.avg for share in shares) / len(shares), 2),
        max(share.peak for share in shares),
    )


def _host_result(part: Part, figures: HostFigures) -> HostResult:
    return HostResult(
        host=part.name,
        address=part.address,
        cpus=part.cpus,
        lost=part.lost.how if part.lost is not None else None,
        start_late_ms=part.start_late_ms,
        clock=part.clock,
        spans=figures.spans,
        rate=figures.rate,
        latency_ms=figures.latency_ms,
        lateness_ms=figures.lateness_ms,
        generator=figures.generator,
        limited_by=figures.limited_by,
        reason=figures.reason,
    )

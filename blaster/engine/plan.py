"""Plan: a scenario made exact. Which requests each worker sends, what is in them, and when.

Request j holds the traces from number j·p on, p to a request, and is due when its first span is.
Worker i of w takes the requests i, i + w, i + 2w, …: the shares add up exactly, the requests of
all workers together are evenly spaced, and the bytes do not depend on the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from blaster.engine.segments import Segments
from blaster.pacing.arrivals import Bursts, Poisson
from blaster.pacing.pacer import Pacer, Ramp, Sine, Stages, Steady
from blaster.payload import flat
from blaster.payload.columns import ColumnSource
from blaster.payload.template import Template
from blaster.scenario.scenario import Scenario, Stage
from blaster.sink.rules import RULES

Int64 = npt.NDArray[np.int64]

MAX_AUTO_BATCH = 1000

_COUNTED_AT_ONCE = 65_536

REQUEST_SPANS = 100
"""Spans in a request where the rate is in requests and the user does not say."""


def auto_batch(scenario: Scenario) -> int:
    """Spans in a request when the user does not say: 20 requests a second, or 200 at the peak,
    and at most 1,000 spans in each."""
    if scenario.low_rate is None or scenario.peak_rate is None:
        return MAX_AUTO_BATCH
    return max(1, min(MAX_AUTO_BATCH, max(scenario.low_rate // 20, scenario.peak_rate // 200)))


def in_spans(scenario: Scenario) -> Scenario:
    """The scenario with all rates in spans per second, its batch settled where they need it.

    Requests are 100 spans each unless the user says; bytes are turned into spans by the mean size
    of a request, to a whole span per second.
    """
    units = {stage.unit for stage in scenario.stages}
    batch = scenario.batch
    if units <= {"spans"}:
        return scenario
    if "requests" in units and batch is None:
        batch = REQUEST_SPANS
    spans_per_trace = scenario.workload.spans_per_trace
    template = flat.template(spans_per_trace)
    violating = float(scenario.workload.violation_rate)

    def converted(stage: Stage, per_request: int) -> Stage:
        factor = {
            "spans": 1.0,
            "requests": per_request * spans_per_trace,
            "bytes": per_request * spans_per_trace / template.mean_bytes(per_request, violating),
        }[stage.unit]
        return msgspec.structs.replace(
            stage,
            unit="spans",
            start_rate=_scaled(stage.start_rate, factor),
            end_rate=_scaled(stage.end_rate, factor),
        )

    def with_batch(batch: int) -> Scenario:
        per_request = max(1, batch // spans_per_trace)
        stages = tuple(converted(stage, per_request) for stage in scenario.stages)
        return msgspec.structs.replace(scenario, stages=stages, batch=batch)

    if batch is None:  # bytes: the batch goes by the rate in spans, and hardly the other way round
        batch = auto_batch(msgspec.structs.replace(with_batch(MAX_AUTO_BATCH), batch=None))
    return with_batch(batch)


def _scaled(rate: int | None, factor: float) -> int | None:
    """The rate in spans per second; never 0 for what was not."""
    return max(1, round(rate * factor)) if rate else rate


def pacer_of(scenario: Scenario, group: int, seed: int) -> Pacer | None:
    """The pacer of the scenario's stages, ``group`` spans a request; None for a closed loop."""
    parts: list[Pacer] = []
    for stage in scenario.stages:
        if stage.start_rate is None or stage.end_rate is None:
            return None
        parts.append(_pacer(stage, stage.start_rate, stage.end_rate))
    pacer = parts[0] if len(parts) == 1 else Stages(parts)
    if scenario.arrivals == "poisson":
        return Poisson(pacer, group * scenario.burst, seed)
    if scenario.burst > 1:
        return Bursts(pacer, group * scenario.burst)
    return pacer


def _pacer(stage: Stage, start_rate: int, end_rate: int) -> Pacer:
    if stage.period_ns is not None:
        return Sine(start_rate, end_rate, stage.period_ns, stage.duration_ns)
    if start_rate == end_rate:
        return Steady(start_rate, stage.duration_ns)
    return Ramp(start_rate, end_rate, stage.duration_ns)


@dataclass(frozen=True)
class Plan:
    """Everything that the workers need to know and that does not change during the run.

    ``pacer`` is None for a closed loop. ``per_request`` counts traces. The scenario's rates are in
    spans per second, whatever unit the user chose.
    """

    scenario: Scenario
    seed: int
    workers: int
    per_request: int
    template: Template
    pacer: Pacer | None
    segments: Segments

    @classmethod
    def of(cls, scenario: Scenario, *, seed: int, workers: int) -> Plan:
        """The plan of ``scenario``; its spans are rounded down to whole traces."""
        scenario = in_spans(scenario)
        spans = scenario.workload.spans_per_trace
        batch = scenario.batch or auto_batch(scenario)
        per_request = max(1, batch // spans)
        return cls(
            scenario=scenario,
            seed=seed,
            workers=workers,
            per_request=per_request,
            template=flat.template(spans),
            pacer=pacer_of(scenario, per_request * spans, seed),
            segments=Segments.of(scenario),
        )

    @property
    def spans_per_request(self) -> int:
        return self.per_request * self.template.spans_per_trace

    @property
    def traces(self) -> int | None:
        """Traces over the whole run; None for a closed loop."""
        if self.pacer is None:
            return None
        return self.pacer.total // self.template.spans_per_trace

    def column_source(self) -> ColumnSource:
        """The source of the columns of any of the run's traces."""
        workload = self.scenario.workload
        return ColumnSource(
            self.seed, workload.violation_rate, flat.timeline(workload.spans_per_trace)
        )

    def shard(self, worker: int) -> Shard:
        return Shard(self, worker)


class Shard:
    """One worker's part of a Plan. Its requests are numbered k = 0, 1, …."""

    def __init__(self, plan: Plan, worker: int) -> None:
        self._plan = plan
        self._worker = worker
        if plan.traces is None:
            self.requests: int | None = None
            return
        whole, rest = divmod(plan.traces, plan.per_request)
        self._run_requests = whole + (rest > 0)
        # Ceiling division: how many of the run's requests fall to this worker.
        self.requests = max(0, -(-(self._run_requests - worker) // plan.workers))

    def first_traces(self, k: Int64) -> Int64:
        """The number, over the whole run, of the first trace in each request k."""
        return (k * self._plan.workers + self._worker) * self._plan.per_request

    def quota_traces(self, k: Int64) -> Int64:
        """The number by which each request's first trace counts for the quota of violations.

        A closed loop's workers do not keep pace with each other, so each meets the share alone.
        """
        if self.requests is None:
            return k * self._plan.per_request
        return self.first_traces(k)

    def times(self, k: Int64) -> Int64:
        """When each request k is due: ns since the start. Not for a closed loop."""
        assert self._plan.pacer is not None
        return self._plan.pacer.times(self.first_traces(k) * self._plan.template.spans_per_trace)

    def due(self, elapsed_ns: int) -> int:
        """How many of its requests are due by then. Not for a closed loop."""
        assert self._plan.pacer is not None and self.requests is not None
        traces = -(-self._plan.pacer.due(elapsed_ns) // self._plan.template.spans_per_trace)
        run_requests = min(self._run_requests, -(-traces // self._plan.per_request))
        return max(0, -(-(run_requests - self._worker) // self._plan.workers))

    def traces_in(self, k: Int64) -> Int64:
        """How many traces each request k holds; only the run's last can hold fewer."""
        counts = np.full(len(k), self._plan.per_request, np.int64)
        if self._plan.traces is None:
            return counts
        return np.minimum(counts, self._plan.traces - self.first_traces(k))

    def spans_of(self, requests: int) -> int:
        """The spans in its first so many requests."""
        if requests == 0:
            return 0
        last = int(self.traces_in(np.array([requests - 1], np.int64))[0])
        traces = (requests - 1) * self._plan.per_request + last
        return traces * self._plan.template.spans_per_trace

    def violations_of(self, requests: int) -> Int64:
        """The violations of each kind (int64) in its first so many requests."""
        return self.violations_between(0, requests)

    def violations_between(self, begin: int, end: int) -> Int64:
        """The violations of each kind (int64) in its requests from ``begin`` up to ``end``."""
        quota = self._plan.column_source().quota
        total = np.zeros(len(RULES), np.int64)
        for first in range(begin, end, _COUNTED_AT_ONCE):  # a day's requests are too many at once
            k = np.arange(first, min(first + _COUNTED_AT_ONCE, end), dtype=np.int64)
            total += quota.count(self.quota_traces(k), self.traces_in(k))
        return total

"""Plan: a scenario made exact. Which requests each worker sends, what is in them, and when.

Block b holds the traces from number b·p on, p to a block; a block is one request, or one for each
part of it where the layout splits traces (see Interleaving). A request is due when its first span
is. Worker i of w takes the requests i, i + w, i + 2w, …: the shares add up exactly, the requests of
all workers together are evenly spaced, and the bytes do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt

from blaster.engine.segments import Segments
from blaster.errors import UsageError
from blaster.otlp.rules import RULES
from blaster.pacing.arrivals import Bursts, Poisson
from blaster.pacing.hold import Hold
from blaster.pacing.hold import held as with_holds
from blaster.pacing.pacer import Pacer, Ramp, Sine, Stages, Steady
from blaster.payload import workload
from blaster.payload.columns import ColumnSource
from blaster.payload.interleaving import Interleaving
from blaster.payload.mix import SPANS, Mix
from blaster.payload.shape import Shape
from blaster.payload.template import Encoding, Template
from blaster.scenario.scenario import Scenario, Stage

Int64 = npt.NDArray[np.int64]

MAX_AUTO_BATCH = 1000

SCATTER_S = 4
"""How far apart the parts of a scattered trace go out, at the mean rate."""

CLOSED_WINDOW = 64
"""The blocks among which a closed loop, which has no rate, scatters."""

_COUNTED = 1 << 16
"""Requests that are counted at a time."""

REQUEST_SPANS = 100
"""Spans in a request where the rate is in requests and the user does not say."""


def auto_batch(scenario: Scenario) -> int:
    """Spans in a request when the user does not say: 20 requests a second, or 200 at the peak,
    and at most 1,000 spans in each."""
    if scenario.low_rate is None or scenario.peak_rate is None:
        return MAX_AUTO_BATCH
    return max(1, min(MAX_AUTO_BATCH, max(scenario.low_rate // 20, scenario.peak_rate // 200)))


def mix_of(
    scenario: Scenario,
    seed: int,
    captured: Sequence[Shape] = (),
    encoding: Encoding = "protobuf",
) -> Mix:
    """The traces of the scenario's workload, or of these shapes where any were captured."""
    try:
        return workload.mix(scenario.workload, seed, captured, encoding)
    except ValueError as error:
        raise UsageError(f"workload {scenario.workload.name}: {error}") from None


def _traces_in(batch: int, mix: Mix) -> int:
    """The traces of a request that should hold so many spans."""
    return max(1, int(batch / mix.largest_part))


def _spans_in(per_request: int, mix: Mix) -> float:
    """The mean spans of a request."""
    return per_request * mix.spans_per_trace / mix.parts


def in_spans(scenario: Scenario, mix: Mix) -> Scenario:
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
    if batch is None:  # bytes: the batch goes by the rate in spans, and hardly the other way round
        batch = auto_batch(_converted(scenario, mix, MAX_AUTO_BATCH))
    return msgspec.structs.replace(_converted(scenario, mix, batch), batch=batch)


def _converted(scenario: Scenario, mix: Mix, batch: int) -> Scenario:
    """The scenario with its rates in spans per second, where a request holds such a batch."""
    spans = _spans_in(_traces_in(batch, mix), mix)
    size = spans * mix.bytes_per_span + mix.template.frame_bytes
    factors = {"spans": 1.0, "requests": spans, "bytes": spans / size}
    stages = tuple(
        msgspec.structs.replace(
            stage,
            unit="spans",
            start_rate=_scaled(stage.start_rate, factors[stage.unit]),
            end_rate=_scaled(stage.end_rate, factors[stage.unit]),
        )
        for stage in scenario.stages
    )
    return msgspec.structs.replace(scenario, stages=stages)


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

    ``pacer`` is None for a closed loop. ``per_request`` counts traces: those of a block. The
    scenario's rates are in spans per second, whatever unit the user chose. Of a run on several
    ``hosts`` this is the part of number ``host``, which has ``workers`` of its own: worker i is
    number i·hosts + host of them all.
    """

    scenario: Scenario
    seed: int
    workers: int
    per_request: int
    mix: Mix
    interleaving: Interleaving
    traces: int | None
    pacer: Pacer | None
    segments: Segments
    host: int = 0
    hosts: int = 1

    @classmethod
    def of(cls, scenario: Scenario, *, seed: int, workers: int, mix: Mix | None = None) -> Plan:
        """The plan of ``scenario``, with traces of ``mix`` (default: the workload's own); its spans
        are rounded down to whole traces."""
        mix = mix_of(scenario, seed) if mix is None else mix
        scenario = in_spans(scenario, mix)
        per_request = _traces_in(scenario.batch or auto_batch(scenario), mix)
        pacer = pacer_of(scenario, max(1, round(_spans_in(per_request, mix))), seed)
        traces = blocks = None
        window = 1
        scattered = scenario.workload.layout == "scattered"
        if pacer is not None:
            traces = mix.traces_within(pacer.total)
            blocks = -(-traces // per_request)
            if scattered:
                window = max(2, round(SCATTER_S * 1e9 * blocks / pacer.duration_ns))
        elif scattered:
            window = CLOSED_WINDOW
        interleaving = Interleaving(mix.parts, window, blocks)
        segments = Segments.of(scenario)
        return cls(scenario, seed, workers, per_request, mix, interleaving, traces, pacer, segments)

    def cannot_hold(self) -> str | None:
        """Why the rate of this plan cannot be held; None where it can. What is put into the
        schedule must leave every request before it as it was."""
        if self.pacer is None:
            return "there is no rate to hold"
        if self.scenario.arrivals != "uniform" or self.scenario.burst > 1:
            return "only evenly spaced requests can be held"
        if self.interleaving.window > 1:
            return "scattered traces cannot be held"
        return "the warm-up is being sought" if self.scenario.warmup.auto else None

    def rate_at(self, elapsed_ns: int) -> int:
        """The rate of the schedule at that moment, in whole spans a second, at least 1.
        Not for a closed loop."""
        assert self.pacer is not None
        return max(1, round(self.pacer.rate(elapsed_ns)))

    def held(self, holds: Sequence[Hold]) -> Plan:
        """This plan with the holds put in: the stage in which one begins is longer by it, and the
        requests after it have higher numbers."""
        if not holds:
            return self
        assert self.pacer is not None and self.cannot_hold() is None
        pacer, segments, scenario = with_holds(self.pacer, holds), self.segments, self.scenario
        for hold in holds:
            number = max(
                int(np.searchsorted(_stage_starts(scenario), hold.begin_ns, "right")) - 1, 0
            )
            stages = list(scenario.stages)
            stages[number] = msgspec.structs.replace(
                stages[number], duration_ns=stages[number].duration_ns + hold.duration_ns
            )
            scenario = msgspec.structs.replace(scenario, stages=tuple(stages))
            segments = segments.held(hold.begin_ns, hold.duration_ns)
        traces = self.mix.traces_within(pacer.total)
        interleaving = Interleaving(
            self.mix.parts, self.interleaving.window, -(-traces // self.per_request)
        )
        return replace(
            self,
            scenario=scenario,
            interleaving=interleaving,
            traces=traces,
            pacer=pacer,
            segments=segments,
        )

    @property
    def template(self) -> Template:
        """The template of all traces."""
        return self.mix.template

    @property
    def spans_per_request(self) -> float:
        """The mean over a block's requests."""
        return _spans_in(self.per_request, self.mix)

    @property
    def bytes_per_request(self) -> int:
        """The most bytes that a request can take."""
        return self.mix.batch_bytes(self.per_request)

    def column_source(self) -> ColumnSource:
        """The source of the columns of any of the run's traces."""
        return ColumnSource(self.seed, self.mix)

    def shard(self, worker: int) -> Shard:
        return Shard(self, worker * self.hosts + self.host, self.workers * self.hosts)

    def whole(self) -> Shard:
        """All requests of the run, as if one worker sent them."""
        return Shard(self, 0, 1)

    def own_shards(self) -> list[Shard]:
        """Shards that hold all requests of this host, as few as can be."""
        if self.hosts == 1:  # the workers' shares add up to it
            return [self.whole()]
        return [self.shard(worker) for worker in range(self.workers)]

    def due(self, elapsed_ns: int) -> int:
        """The spans due by then, this host's share to within a request. Not for a closed loop."""
        assert self.pacer is not None
        return self.pacer.due(elapsed_ns) // self.hosts


def _stage_starts(scenario: Scenario) -> list[int]:
    starts = [0]
    for stage in scenario.stages[:-1]:
        starts.append(starts[-1] + stage.duration_ns)
    return starts


@dataclass(frozen=True, slots=True)
class Requests:
    """What some requests hold: ``parts[i]`` of ``counts[i]`` traces from number ``first[i]`` on.

    ``quota``: the numbers by which the first traces count for the quota of violations.
    """

    first: Int64
    counts: Int64
    parts: Int64
    quota: Int64


class Shard:
    """The part of a Plan of the worker ``number`` of ``stride``. Its requests are numbered
    k = 0, 1, …."""

    def __init__(self, plan: Plan, number: int, stride: int) -> None:
        self._plan = plan
        self._number, self._stride = number, stride
        if plan.interleaving.blocks is None:
            self.requests: int | None = None
            return
        self._run_requests = plan.interleaving.blocks * plan.interleaving.parts
        # Ceiling division: how many of the run's requests fall to this worker.
        self.requests = max(0, -(-(self._run_requests - number) // stride))

    def of(self, k: Int64) -> Requests:
        """What the requests k hold; those of the run's last block can hold fewer traces."""
        plan = self._plan
        block, parts = plan.interleaving.block_and_part(k * self._stride + self._number)
        first = block * plan.per_request
        counts = np.full(len(k), plan.per_request, np.int64)
        if plan.traces is not None:
            np.minimum(counts, plan.traces - first, out=counts)
        # A closed loop's workers do not keep pace with each other, so each meets the share alone;
        # not where they share traces, which must be the same for all.
        alone = plan.traces is None and plan.interleaving.parts == 1
        return Requests(first, counts, parts, k * plan.per_request if alone else first)

    def times(self, k: Int64) -> Int64:
        """When each request k is due: ns since the start. Not for a closed loop."""
        assert self._plan.pacer is not None
        return self._plan.pacer.times(self._positions(k * self._stride + self._number))

    def ended(self, k: Int64) -> Int64:
        """When the traces of each request k ended: ns since the start. All parts of a trace say
        the same, and none goes out before. Not for a closed loop."""
        plan = self._plan
        assert plan.pacer is not None
        request = k * self._stride + self._number
        if plan.interleaving.parts == 1:
            return self.times(k)
        block, _ = plan.interleaving.block_and_part(request)
        first, size, _ = plan.interleaving.window_of(request)
        end = self._spans_before(first + size // plan.interleaving.parts)
        begun = plan.pacer.times(self._spans_before(first))
        over = plan.pacer.times(np.minimum(end, plan.pacer.total - 1))
        return plan.pacer.times(self._spans_before(block)) - (over - begun)

    def due(self, elapsed_ns: int) -> int:
        """How many of its requests are due by then. Not for a closed loop."""
        assert self._plan.pacer is not None and self.requests is not None
        spans = self._plan.pacer.due(elapsed_ns)
        low, high = 0, self.requests
        while low < high:
            middle = (low + high) // 2
            request = np.array([middle * self._stride + self._number], np.int64)
            if int(self._positions(request)[0]) < spans:
                low = middle + 1
            else:
                high = middle
        return low

    def spans_of(self, requests: int) -> int:
        """The spans in its first so many requests."""
        return int(self._count(0, requests)[SPANS])

    def spans_between(self, begin: int, end: int) -> int:
        """The spans in its requests from ``begin`` up to ``end``."""
        return int(self._count(begin, end)[SPANS])

    def violations_of(self, requests: int) -> Int64:
        """The violating spans of each kind (int64) in its first so many requests."""
        return self.violations_between(0, requests)

    def violations_between(self, begin: int, end: int) -> Int64:
        """The violating spans of each kind (int64) in its requests from ``begin`` up to ``end``."""
        return self._count(begin, end)[1:]

    def own_violations_between(self, begin: int, end: int) -> Int64:
        """Those of them that the workload has of itself, beside the quota's."""
        total = np.zeros(len(RULES), np.int64)
        for held in self._held(begin, end):
            own = self._plan.mix.own_violations(held.quota, held.counts, held.parts)
            total += own.sum(axis=0)
        return total

    def _count(self, begin: int, end: int) -> Int64:
        total = np.zeros(1 + len(RULES), np.int64)
        for held in self._held(begin, end):
            total += self._plan.mix.count(held.quota, held.counts, held.parts).sum(axis=0)
        return total

    def _held(self, begin: int, end: int) -> Iterator[Requests]:
        """What its requests hold, a stretch of them at a time: a day's are too many at once."""
        for first in range(begin, end, _COUNTED):
            yield self.of(np.arange(first, min(first + _COUNTED, end), dtype=np.int64))

    def _spans_before(self, block: Int64) -> Int64:
        plan = self._plan
        traces = block * plan.per_request
        if plan.traces is not None:
            traces = np.minimum(traces, plan.traces)
        return plan.mix.spans_before(traces)

    def _positions(self, request: Int64) -> Int64:
        """The span of the run, by its number, at whose time each request of the run is due: those
        of a window go out evenly over its time."""
        first, size, at = self._plan.interleaving.window_of(request)
        begin = self._spans_before(first)
        if self._plan.interleaving.window * self._plan.interleaving.parts == 1:
            return begin
        end = self._spans_before(first + size // self._plan.interleaving.parts)
        return begin + (end - begin) * at // np.maximum(size, 1)

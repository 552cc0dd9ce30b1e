"""Results: what a run measured, by the contract of results.json (schema 1)."""

from __future__ import annotations

from typing import Any

import msgspec

from blaster.backends.findings import FunnelStage, Verification
from blaster.backends.scrape import Alerts, Scraped
from blaster.chaos import ChaosMark
from blaster.engine.recovery import Recovery
from blaster.engine.series import Point
from blaster.engine.steady import Leaks, Steady
from blaster.measure import heat


class Host(msgspec.Struct):
    """The machine and the software that the run was made with."""

    cpus: int
    kernel: str
    python: str
    blaster: str


class Configuration(msgspec.Struct):
    """The settings of the run, after all precedence was settled.

    ``spans_per_request``, ``spans_per_trace`` and ``bytes_per_span`` are the means that were
    expected. Where a trace is cut up into several requests, ``traces_per_request`` counts those
    that a request holds a part of.
    """

    endpoint: str
    transport: str
    workers: int
    connections: int
    in_flight: int
    spans_per_request: float
    spans_per_trace: float
    traces_per_request: int
    bytes_per_span: float
    workload: str
    layout: str
    violation_rate: float
    stages: list[str]
    arrivals: str = "uniform"
    burst: int = 1
    warmup: str = "0s"
    encoding: str = "protobuf"
    compression: str = "none"
    tls: bool = False
    insecure_skip_verify: bool = False
    retry: str = "off"
    faults: list[str] = []


class Spans(msgspec.Struct):
    """scheduled = sent + not_offered; sent = accepted + rejected + failed + unknown."""

    scheduled: int
    sent: int
    accepted: int
    rejected: int
    failed: int
    unknown: int
    not_offered: int


class Requests(msgspec.Struct):
    """Requests, and how they ended, however often they were sent.

    ``retried``: how many times one was sent again, with ``retried_spans`` in all, and
    ``retried_by_status``: after which answer. ``possible_duplicates``: the spans among them that
    the target may have received before, as no answer said that it did not.
    """

    sent: int
    ok: int
    retried: int
    retried_spans: int
    retried_by_status: dict[str, int]
    possible_duplicates: int
    by_status: dict[str, int]


class Bytes(msgspec.Struct):
    """Of the requests' messages, before compression and without framing."""

    payload: int
    per_span: float | None


class Compressed(msgspec.Struct):
    """The cost of compressing the messages on the workers, and the bytes saved."""

    encoding: str
    library: str | None
    bytes_before: int
    bytes_after: int
    ratio: float
    cpu_seconds: float


class Rate(msgspec.Struct):
    """Spans per second: asked for (None: max), sent, and accepted."""

    target_spans_per_s: float | None
    achieved_spans_per_s: float
    accepted_spans_per_s: float


class Percentiles(msgspec.Struct):
    """Milliseconds; None where there was nothing to measure. ``p999``: 99.9 %, ``p9999``:
    99.99 %."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    p9999: float | None
    max: float | None
    mean: float | None


class Latency(msgspec.Struct):
    """``response`` counts from the scheduled time, ``service`` from the send."""

    response: Percentiles
    service: Percentiles


class Lateness(msgspec.Struct):
    """How far behind the schedule sends were, in milliseconds."""

    p50: float | None
    p99: float | None
    max: float | None


class Violations(msgspec.Struct):
    """Violating spans that were sent, and what the target says it detected (None: it was not
    asked). ``of_workload``: those among the injected that are errors or slow spans of the workload
    itself, beside the violation rate. ``detected_by``: who says so. The sink counts spans; betrace
    names traces, and ``expected`` are then the pairs of a rule and a trace that breaks it."""

    injected: int
    by_rule: dict[str, int]
    of_workload: int
    detected: int | None
    detected_by_rule: dict[str, int] | None
    detection_rate: float | None
    detected_by: str | None = None
    expected: int | None = None


class AveragePeak(msgspec.Struct):
    """Over the run."""

    avg: float | None
    peak: float | None


class Target(msgspec.Struct):
    """Use of CPU and memory by the watched processes; CPU in percent of one core."""

    processes: list[dict[str, Any]]
    cpu_percent: AveragePeak
    rss_bytes: AveragePeak


class Peak(msgspec.Struct):
    """Over the run."""

    peak: float


class Generator(msgspec.Struct):
    """Use of CPU and memory by blaster itself: its workers and their parent.

    ``worker_cpu_percent`` and ``run_queue_percent``: of one core and of the whole run, the share of
    the time that a worker was on a CPU, and that it wanted one and had to wait; the peak is of the
    worst second. None where the system does not tell. ``throttled_percent``: of one core, what a
    CPU quota on the control group withheld. ``behind_percent``: of the run's time, the share in
    which a request was due and not offered, on average over the workers; of the run's time, too,
    ``held_back_percent``: of that, while the peer's flow control or a full socket let nothing
    through, and ``capped_percent``: while as many requests were in flight as may be. Only the wire
    transport can tell; 0 from others.
    """

    workers: int
    cpu_seconds: float
    cpu_percent: AveragePeak
    rss_bytes: Peak
    spans_per_cpu_second: float | None
    lost_workers: list[str]
    worker_cpu_percent: AveragePeak
    run_queue_percent: AveragePeak
    throttled_percent: float
    behind_percent: float = 0.0
    held_back_percent: float = 0.0
    capped_percent: float = 0.0


class Sink(msgspec.Struct):
    """Counts of the embedded sink. ``sampling``: one ID in so many is checked for duplicates."""

    spans: int
    duplicates: int
    invalid: int
    malformed: int
    sampling: int
    violations_by_rule: dict[str, int]


class Check(msgspec.Struct):
    """One criterion; ``passed`` is None where it could not be measured."""

    name: str
    expected: str
    actual: str
    passed: bool | None


class Verdict(msgspec.Struct):
    """Whether the run passed, and who limited it, with the reason in a sentence."""

    passed: bool
    limited_by: str
    reason: str
    checks: list[Check]

    def add(self, check: Check) -> None:
        """Judge by one check more."""
        self.checks.append(check)
        self.passed = self.passed and check.passed is not False


class WarmedUp(msgspec.Struct):
    """The warm-up that the figures leave out: the first ``duration_s``, and why. ``method``: none,
    fixed or mser-5."""

    method: str
    duration_s: float
    reason: str


class StageResult(msgspec.Struct):
    """One stage: ``spans`` and ``rate`` of all of it, latency and lateness less the warm-up.

    A request belongs to the stage in which it was due, whenever its answer came. ``stage``: as the
    user wrote it; ``start_spans_per_s`` and ``end_spans_per_s``: its rates, None for max."""

    stage: str
    start_s: float
    duration_s: float
    spans: Spans
    rate: Rate
    latency_ms: Latency
    lateness_ms: Lateness
    start_spans_per_s: int | None = None
    end_spans_per_s: int | None = None


class Distribution(msgspec.Struct):
    """Percentile distributions, as HdrHistogram plots them: pairs of a share of the requests, 0 to
    1, and the milliseconds that it did not exceed. The warm-up is left out."""

    response: list[tuple[float, float]]
    service: list[tuple[float, float]]


class Clock(msgspec.Struct):
    """A host's time of day less the parent's, give or take ``uncertainty_ms``, as measured before
    the start; ``drift_ms``: how far its clock went from the parent's until the end."""

    offset_ms: float
    uncertainty_ms: float
    drift_ms: float


class HostFigures(msgspec.Struct):
    """One host's part of a run, as those of the whole."""

    spans: Spans
    rate: Rate
    latency_ms: Latency
    lateness_ms: Lateness
    generator: Generator
    limited_by: str
    reason: str


class HostResult(msgspec.Struct):
    """One host of a cluster. ``start_late_ms``: how long after the agreed time it heard of the
    start; ``lost``: how it was lost, None where it was not."""

    host: str
    address: str
    cpus: int
    lost: str | None
    start_late_ms: float
    clock: Clock
    spans: Spans
    rate: Rate
    latency_ms: Latency
    lateness_ms: Lateness
    generator: Generator
    limited_by: str
    reason: str


class Held(msgspec.Struct):
    """A stretch for which the user held the rate: the schedule stood still meanwhile, and all that
    came after was later by it. Its spans count as scheduled, in the stage in which it began."""

    begin_s: float
    duration_s: float
    spans_per_s: int


class Results(msgspec.Struct):
    """results.json.

    Counts (``spans``, ``requests``, ``bytes``, ``violations``, ``sink``) and the series cover the
    whole run; rates, latency, lateness, ``target`` and ``generator`` leave the warm-up out.
    ``compression``: None without, and where grpcio compresses, which does not tell.
    ``backlog_spans``: due and not sent yet, at the worst of the series' points. ``partial``:
    written while the run went on. ``aborted``: the condition that ended it early. ``funnel``: how
    far the spans came, and where they were lost; ``verification``: what each backend said;
    ``scraped`` and ``alerts``: what other systems' metrics and alerts did meanwhile. ``faults``:
    what --chaos did. ``hosts``: those of a cluster; None without one.
    """

    schema: int
    scenario: str
    started_at: str
    ended_at: str
    duration_s: float
    seed: int
    interrupted: bool
    partial: bool
    aborted: str | None
    host: Host
    configuration: Configuration
    spans: Spans
    requests: Requests
    bytes: Bytes
    compression: Compressed | None
    rate: Rate
    latency_ms: Latency
    lateness_ms: Lateness
    backlog_spans: Peak
    violations: Violations
    target: Target | None
    generator: Generator
    sink: Sink | None
    messages: dict[str, str]
    warmup: WarmedUp
    steady: Steady
    leak: Leaks
    recovery: Recovery | None
    stages: list[StageResult]
    series: list[Point]
    hosts: list[HostResult] | None = None
    verdict: Verdict | None = None
    notes: list[str] = msgspec.field(default_factory=list)
    latency_distribution: Distribution | None = None
    latency_heat: heat.Heat | None = None
    funnel: list[FunnelStage] = msgspec.field(default_factory=list)
    verification: list[Verification] = msgspec.field(default_factory=list)
    holds: list[Held] = msgspec.field(default_factory=list)
    faults: list[ChaosMark] = msgspec.field(default_factory=list)
    scraped: list[Scraped] = msgspec.field(default_factory=list)
    alerts: list[Alerts] = msgspec.field(default_factory=list)

"""Results: what a run measured, by the contract of results.json (schema 1)."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from blaster import __version__
from blaster.backends.findings import FunnelStage, Sent, Verification
from blaster.backends.scrape import Alerts, Scraped
from blaster.backends.verify import Answers
from blaster.chaos import ChaosMark
from blaster.engine.ledger import (
    ACCEPTED,
    BEHIND_NS,
    CAPPED_NS,
    COMPRESSED_FROM,
    COMPRESSED_TO,
    COMPRESSION_NS,
    FAILED_SPANS,
    HELD_NS,
    OK_REQUESTS,
    POSSIBLE_DUPLICATES,
    REJECTED,
    RETRIED,
    RETRIED_SPANS,
    SCHEDULED_SPANS,
    SEG_ACCEPTED,
    SEG_FAILED,
    SEG_REJECTED,
    SEG_SENT,
    SEG_UNKNOWN,
    SENT_BYTES,
    SENT_REQUESTS,
    SENT_SPANS,
    UNKNOWN,
)
from blaster.engine.recovery import Recovery, recovery
from blaster.engine.runner import Mark, Run
from blaster.engine.series import Point
from blaster.engine.steady import Leaks, Steady, leaks, steadiness
from blaster.measure import hdr, heat
from blaster.measure.histogram import Histogram
from blaster.measure.schedstat import Share
from blaster.sink.counts import SinkCounts
from blaster.sink.rules import RULES
from blaster.transport import compression
from blaster.transport.base import Int64, Status


class Host(msgspec.Struct):
    """The machine and the software that the run was made with."""

    cpus: int
    kernel: str
    python: str
    blaster: str


class Configuration(msgspec.Struct):
    """What was asked for, after all precedence was settled.

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
    """What compressing the messages on the workers cost, and what it saved."""

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
    """What the watched processes spent; CPU in percent of one core."""

    processes: list[dict[str, Any]]
    cpu_percent: AveragePeak
    rss_bytes: AveragePeak


class Peak(msgspec.Struct):
    """Over the run."""

    peak: float


class Generator(msgspec.Struct):
    """What blaster itself spent: its workers and their parent.

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
    """What the embedded sink counted. ``sampling``: one ID in so many is checked for duplicates."""

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


class WarmedUp(msgspec.Struct):
    """What the figures leave out: the first ``duration_s``, and why. ``method``: none, fixed or
    mser-5."""

    method: str
    duration_s: float
    reason: str


class StageResult(msgspec.Struct):
    """One stage: ``spans`` and ``rate`` of all of it, latency and lateness less the warm-up.

    A request belongs to the stage in which it was due, whenever its answer came."""

    stage: str
    start_s: float
    duration_s: float
    spans: Spans
    rate: Rate
    latency_ms: Latency
    lateness_ms: Lateness


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


def host() -> Host:
    """This machine; ``cpus`` are those that this process may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Host(cpus or 1, platform.release(), platform.python_version(), __version__)


def results_of(
    run: Run,
    configuration: Configuration,
    sink: SinkCounts | None,
    asked: tuple[Sent, Answers] | None = None,
    observed: tuple[list[Scraped], list[Alerts]] | None = None,
) -> Results:
    """The results of a closed run, or of one so far, without a verdict yet. ``asked``: what the
    backends were told and what they answered; ``observed``: what was scraped, and the alerts."""
    ledger, scenario = run.ledger, run.plan.scenario
    sent, accepted = ledger.total(SENT_SPANS), ledger.total(ACCEPTED)
    before, after = ledger.total(COMPRESSED_FROM), ledger.total(COMPRESSED_TO)
    scheduled, payload = ledger.total(SCHEDULED_SPANS), ledger.total(SENT_BYTES) + before - after
    found = run.warmup_ns
    warmup = found or 0
    series = run.series.items
    measured = run.plan.segments.after(warmup)
    return Results(
        schema=1,
        scenario=scenario.name,
        started_at=_time(run.started_at),
        ended_at=_time(run.started_at + (run.end_ns - run.start_ns) / 1e9),
        duration_s=round(run.offered_ns / 1e9, 6),
        seed=run.plan.seed,
        interrupted=run.interrupted or run.partial,
        partial=run.partial,
        aborted=run.aborted,
        host=host(),
        configuration=configuration,
        spans=Spans(
            scheduled=scheduled,
            sent=sent,
            accepted=accepted,
            rejected=ledger.total(REJECTED),
            failed=ledger.total(FAILED_SPANS),
            unknown=ledger.total(UNKNOWN),
            not_offered=scheduled - sent,
        ),
        requests=Requests(
            sent=ledger.total(SENT_REQUESTS),
            ok=ledger.total(OK_REQUESTS),
            retried=ledger.total(RETRIED),
            retried_spans=ledger.total(RETRIED_SPANS),
            retried_by_status=_by_status(ledger.retried_statuses()),
            possible_duplicates=ledger.total(POSSIBLE_DUPLICATES),
            by_status=_by_status(ledger.statuses()),
        ),
        bytes=Bytes(payload, round(payload / sent, 2) if sent else None),
        compression=Compressed(
            encoding=configuration.compression,
            library=compression.library(configuration.compression),
            bytes_before=before,
            bytes_after=after,
            ratio=round(before / after, 3),
            cpu_seconds=ledger.total(COMPRESSION_NS) / 1e9,
        )
        if after
        else None,
        rate=_rate(run, warmup, max(run.offered_ns, warmup + 1), measured),
        latency_ms=_latency(run, measured),
        lateness_ms=_lateness(run, measured),
        backlog_spans=Peak(max((p.backlog for p in series), default=0)),
        violations=_violations(run, sink, asked),
        target=_target(run, warmup),
        generator=_generator(run, sent, warmup),
        sink=_sink(sink),
        messages=run.messages,
        warmup=_warmed_up(run, found),
        steady=steadiness(series, scenario, found),
        leak=leaks(series, warmup, watched=run.target is not None),
        recovery=recovery(series, scenario, warmup),
        stages=_stages(run, warmup, configuration),
        series=series,
        latency_distribution=_distribution(run, measured),
        latency_heat=heat.heat_of(run.heat.items),
        funnel=_funnel(run, asked),
        verification=asked[1].verifications if asked else [],
        holds=_holds(run),
        scraped=observed[0] if observed else [],
        alerts=observed[1] if observed else [],
    )


def _funnel(run: Run, asked: tuple[Sent, Answers] | None) -> list[FunnelStage]:
    """From the schedule to what the backends found; empty where none was asked."""
    if asked is None:
        return []
    ledger = run.ledger
    scheduled, sent = ledger.total(SCHEDULED_SPANS), ledger.total(SENT_SPANS)
    accepted = ledger.total(ACCEPTED)
    reasons = {
        "rejected": ledger.total(REJECTED),
        "failed": ledger.total(FAILED_SPANS),
        "unanswered": ledger.total(UNKNOWN),
    }
    reason = ", ".join(f"{count:,} {name}" for name, count in reasons.items() if count)
    late = "not offered in time" if scheduled > sent else ""
    return [
        FunnelStage("sent", sent, scheduled - sent, late, expected=scheduled),
        FunnelStage("accepted", accepted, sent - accepted, reason, expected=sent),
        *asked[1].stages,
    ]


def _by_status(counts: Int64) -> dict[str, int]:
    return {Status(status).name: int(count) for status, count in enumerate(counts) if count}


def _holds(run: Run) -> list[Held]:
    return [
        Held(
            hold.begin_ns / 1e9,
            max(0, min(hold.duration_ns, run.offered_ns - hold.begin_ns)) / 1e9,
            hold.rate,
        )
        for hold in run.ledger.holds()
    ]


def _warmed_up(run: Run, found: int | None) -> WarmedUp:
    warmup = run.plan.scenario.warmup
    if warmup.auto:
        reason = "the mean response times after it have the smallest standard error"
        if found is None:
            reason = "no end was found in the first half of the first stage: nothing is left out"
        return WarmedUp("mser-5", (found or 0) / 1e9, reason)
    if not warmup.duration_ns:
        return WarmedUp("none", 0.0, "not asked for")
    reason = "as asked for" if found else "the run ended within it: nothing is left out"
    return WarmedUp("fixed", (found or 0) / 1e9, reason)


def _rate(run: Run, begin_ns: int, end_ns: int, segments: Iterable[int]) -> Rate:
    """The rates between two times since the start, of the segments that lie there."""
    pacer = run.plan.pacer
    counts = run.ledger.counts(segments)
    seconds = (end_ns - begin_ns) / 1e9
    target = None
    if pacer is not None:
        until = min(max(end_ns, begin_ns + 1), pacer.duration_ns)
        if begin_ns == 0 and end_ns >= run.plan.scenario.duration_ns:
            target = pacer.total * 1e9 / pacer.duration_ns / run.plan.hosts
        elif not run.ledger.total(SCHEDULED_SPANS):
            target = float(run.plan.rate_at(0))  # what it would have begun with
        else:
            due = run.plan.due(until - 1) - run.plan.due(begin_ns - 1)
            target = due * 1e9 / (until - begin_ns)
    return Rate(target, int(counts[SEG_SENT]) / seconds, int(counts[SEG_ACCEPTED]) / seconds)


def _latency(run: Run, segments: Iterable[int]) -> Latency:
    segments = list(segments)
    return Latency(
        _percentiles(run.ledger.response(segments)), _percentiles(run.ledger.service(segments))
    )


def _distribution(run: Run, segments: Iterable[int]) -> Distribution:
    segments = list(segments)

    def points(histogram: Histogram) -> list[tuple[float, float]]:
        return [(round(share, 9), value / 1000) for value, share, _ in hdr.steps(histogram)]

    return Distribution(points(run.ledger.response(segments)), points(run.ledger.service(segments)))


def _lateness(run: Run, segments: Iterable[int]) -> Lateness:
    lateness = run.ledger.lateness(segments).summary_ms()
    return Lateness(lateness["p50"], lateness["p99"], lateness["max"])


def _stages(run: Run, warmup: int, configuration: Configuration) -> list[StageResult]:
    """The stages that were begun; none where there are too many to keep apart."""
    plan, stop = run.plan, run.ledger.stopped_ns
    stopped = stop - run.start_ns if stop else plan.segments.duration_ns
    measured = set(plan.segments.after(warmup))
    results: list[StageResult] = []
    if plan.segments.stages[-1] != len(plan.scenario.stages) - 1:
        return results
    for number, name in enumerate(configuration.stages):
        segments = [s for s, stage in enumerate(plan.segments.stages) if stage == number]
        begin, end = int(plan.segments.starts[segments[0]]), plan.segments.end(segments[-1])
        if begin >= stopped:
            break
        last = number == len(plan.scenario.stages) - 1 or stopped <= end
        end = min(end, stopped)
        kept = [segment for segment in segments if segment in measured]
        spans = _stage_spans(run, begin, None if last else end, segments)
        whole = max(end, run.offered_ns if last else end)
        results.append(
            StageResult(
                stage=name,
                start_s=begin / 1e9,
                duration_s=(end - begin) / 1e9,
                spans=spans,
                rate=_rate(run, begin, whole, segments),
                latency_ms=_latency(run, kept),
                lateness_ms=_lateness(run, kept),
            )
        )
    return results


def _stage_spans(run: Run, begin: int, end: int | None, segments: list[int]) -> Spans:
    """The stage's part of both equations; ``end`` None: the stage takes all that is left."""
    counts = run.ledger.counts(segments)
    sent = int(counts[SEG_SENT])
    scheduled = sent
    if run.plan.pacer is not None:
        before = _scheduled_until(run, begin)
        until = run.ledger.total(SCHEDULED_SPANS) if end is None else _scheduled_until(run, end)
        scheduled = max(sent, until - before)
    return Spans(
        scheduled=scheduled,
        sent=sent,
        accepted=int(counts[SEG_ACCEPTED]),
        rejected=int(counts[SEG_REJECTED]),
        failed=int(counts[SEG_FAILED]),
        unknown=int(counts[SEG_UNKNOWN]),
        not_offered=scheduled - sent,
    )


def _scheduled_until(run: Run, end: int) -> int:
    """The spans of the requests that are due before ``end``."""
    plan = run.plan
    if plan.hosts == 1:  # the workers' shares add up to it
        return plan.whole().spans_of(plan.whole().due(end - 1))
    shards = [plan.shard(worker) for worker in range(plan.workers)]
    return sum(shard.spans_of(shard.due(end - 1)) for shard in shards)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _percentiles(histogram: Histogram) -> Percentiles:
    return Percentiles(**histogram.summary_ms())


def _violations(
    run: Run, sink: SinkCounts | None, asked: tuple[Sent, Answers] | None
) -> Violations:
    """A backend's word counts where one detects violations; else the sink's."""
    injected = int(run.violations.sum())
    by_rule = dict(zip(RULES, run.violations.tolist(), strict=True))
    found = Violations(injected, by_rule, int(run.own_violations.sum()), None, None, None)
    expected = injected
    if asked is not None and asked[1].detects:
        found.detected_by = "betrace"
        found.detected_by_rule = asked[1].detected
        found.expected = expected = sum(asked[0].violations.values())
    elif sink is not None:
        found.detected_by = "sink"
        found.detected_by_rule = sink.violations_by_rule
    if found.detected_by_rule is not None:
        found.detected = sum(found.detected_by_rule.values())
        found.detection_rate = round(found.detected / expected, 6) if expected else None
    return found


def _target(run: Run, warmup: int) -> Target | None:
    if run.target is None:
        return None
    mark = run.marks.get(warmup)
    usage = run.target.usage(mark.target if mark else None)
    cpu, rss = usage["cpu_percent"], usage["rss_bytes"]
    if mark is not None:
        after = [p for p in run.series.items if p.t * 1e9 > warmup]
        cpu["peak"] = max((p.target_cpu or 0.0 for p in after[1:]), default=cpu["peak"])
        rss["peak"] = max((p.target_rss or 0 for p in after), default=rss["peak"])
    return Target(
        run.target.processes(),
        AveragePeak(round(cpu["avg"], 2), round(cpu["peak"], 2)),
        AveragePeak(rss["avg"], rss["peak"]),
    )


def _generator(run: Run, sent: int, warmup: int) -> Generator:
    mark = run.marks.get(warmup) or Mark(run.start_ns, 0.0, 0, None)
    wall = max(run.end_ns - mark.t_ns, 1) / 1e9
    cpu = run.generator_cpu_s - mark.cpu_s
    peak = run.generator_cpu_peak
    if mark.sent:
        after = [p.generator_cpu for p in run.series.items if p.t * 1e9 > warmup]
        peak = max(after[1:], default=peak)
    whole = max(run.end_ns - run.start_ns, 1)
    behind, held, capped = (
        round(100 * run.ledger.total(field) / (whole * run.plan.workers), 2)
        for field in (BEHIND_NS, HELD_NS, CAPPED_NS)
    )
    return Generator(
        workers=run.plan.workers,
        cpu_seconds=round(cpu, 6),
        cpu_percent=AveragePeak(round(100 * cpu / wall, 2), peak),
        rss_bytes=Peak(run.generator_rss_peak),
        spans_per_cpu_second=round((sent - mark.sent) / cpu, 1) if cpu > 0 else None,
        lost_workers=[str(lost) for lost in run.lost_workers],
        worker_cpu_percent=_share(run.worker_ran),
        run_queue_percent=_share(run.worker_waited),
        throttled_percent=round(100 * run.throttled_ns / whole, 2),
        behind_percent=behind,
        held_back_percent=held,
        capped_percent=capped,
    )


def _share(share: Share | None) -> AveragePeak:
    return AveragePeak(None, None) if share is None else AveragePeak(share.avg, share.peak)


def _sink(sink: SinkCounts | None) -> Sink | None:
    if sink is None:
        return None
    return Sink(
        spans=sink.spans,
        duplicates=sink.duplicates,
        invalid=sink.invalid,
        malformed=sink.malformed,
        sampling=sink.sampling,
        violations_by_rule=sink.violations_by_rule,
    )

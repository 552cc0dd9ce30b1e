"""Results: what a run measured, by the contract of results.json (schema 1)."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import Any

import msgspec

from blaster import __version__
from blaster.engine.ledger import (
    ACCEPTED,
    FAILED_SPANS,
    OK_REQUESTS,
    REJECTED,
    RETRIED,
    SCHEDULED_SPANS,
    SENT_BYTES,
    SENT_REQUESTS,
    SENT_SPANS,
    UNKNOWN,
)
from blaster.engine.runner import Point, Run
from blaster.measure.histogram import Histogram
from blaster.sink.counts import SinkCounts
from blaster.sink.rules import RULES
from blaster.transport.base import Status


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
    """Requests, and how they ended."""

    sent: int
    ok: int
    retried: int
    by_status: dict[str, int]


class Bytes(msgspec.Struct):
    """Of the requests' messages, without framing."""

    payload: int
    per_span: float | None


class Rate(msgspec.Struct):
    """Spans per second: asked for (None: max), sent, and accepted."""

    target_spans_per_s: float | None
    achieved_spans_per_s: float
    accepted_spans_per_s: float


class Percentiles(msgspec.Struct):
    """Milliseconds; None where there was nothing to measure."""

    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
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
    """Violating spans that were sent, and those that the target says it detected (None: it was
    not asked). ``of_workload``: those among the injected that are errors or slow spans of the
    workload itself, beside the violation rate."""

    injected: int
    by_rule: dict[str, int]
    of_workload: int
    detected: int | None
    detected_by_rule: dict[str, int] | None
    detection_rate: float | None


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
    """What blaster itself spent: its workers and their parent."""

    workers: int
    cpu_seconds: float
    cpu_percent: AveragePeak
    rss_bytes: Peak
    spans_per_cpu_second: float | None
    lost_workers: list[str]


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


class Results(msgspec.Struct):
    """results.json."""

    schema: int
    scenario: str
    started_at: str
    ended_at: str
    duration_s: float
    seed: int
    interrupted: bool
    host: Host
    configuration: Configuration
    spans: Spans
    requests: Requests
    bytes: Bytes
    rate: Rate
    latency_ms: Latency
    lateness_ms: Lateness
    violations: Violations
    target: Target | None
    generator: Generator
    sink: Sink | None
    messages: dict[str, str]
    series: list[Point]
    verdict: Verdict | None = None
    notes: list[str] = msgspec.field(default_factory=list)


def host() -> Host:
    """This machine; ``cpus`` are those that this process may use."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Host(cpus or 1, platform.release(), platform.python_version(), __version__)


def results_of(run: Run, configuration: Configuration, sink: SinkCounts | None) -> Results:
    """The results of a closed run, without a verdict yet."""
    ledger, seconds = run.ledger, run.offered_ns / 1e9
    sent, accepted = ledger.total(SENT_SPANS), ledger.total(ACCEPTED)
    scheduled, payload = ledger.total(SCHEDULED_SPANS), ledger.total(SENT_BYTES)
    pacer = run.plan.pacer
    lateness = ledger.lateness().summary_ms()
    return Results(
        schema=1,
        scenario=run.plan.scenario.name,
        started_at=_time(run.started_at),
        ended_at=_time(run.started_at + (run.end_ns - run.start_ns) / 1e9),
        duration_s=round(seconds, 6),
        seed=run.plan.seed,
        interrupted=run.interrupted,
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
            by_status={
                Status(status).name: int(count)
                for status, count in enumerate(ledger.statuses())
                if count
            },
        ),
        bytes=Bytes(payload, round(payload / sent, 2) if sent else None),
        rate=Rate(
            None if pacer is None else pacer.total * 1e9 / pacer.duration_ns,
            sent / seconds,
            accepted / seconds,
        ),
        latency_ms=Latency(_percentiles(ledger.response()), _percentiles(ledger.service())),
        lateness_ms=Lateness(lateness["p50"], lateness["p99"], lateness["max"]),
        violations=_violations(run, sink),
        target=_target(run),
        generator=_generator(run, sent),
        sink=_sink(sink),
        messages=run.messages,
        series=run.series,
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _percentiles(histogram: Histogram) -> Percentiles:
    return Percentiles(**histogram.summary_ms())


def _violations(run: Run, sink: SinkCounts | None) -> Violations:
    injected = int(run.violations.sum())
    by_rule = dict(zip(RULES, run.violations.tolist(), strict=True))
    own = int(run.own_violations.sum())
    if sink is None:
        return Violations(injected, by_rule, own, None, None, None)
    detected = sum(sink.violations_by_rule.values())
    rate = round(detected / injected, 6) if injected else None
    return Violations(injected, by_rule, own, detected, sink.violations_by_rule, rate)


def _target(run: Run) -> Target | None:
    if run.target is None:
        return None
    usage = run.target.usage()
    cpu, rss = usage["cpu_percent"], usage["rss_bytes"]
    return Target(
        run.target.processes(),
        AveragePeak(round(cpu["avg"], 2), round(cpu["peak"], 2)),
        AveragePeak(rss["avg"], rss["peak"]),
    )


def _generator(run: Run, sent: int) -> Generator:
    wall = max(run.end_ns - run.start_ns, 1) / 1e9
    cpu = run.generator_cpu_s
    return Generator(
        workers=run.plan.workers,
        cpu_seconds=round(cpu, 6),
        cpu_percent=AveragePeak(round(100 * cpu / wall, 2), run.generator_cpu_peak),
        rss_bytes=Peak(run.generator_rss_peak),
        spans_per_cpu_second=round(sent / cpu, 1) if cpu > 0 else None,
        lost_workers=[f"worker {w.worker} (pid {w.pid}) {w.how}" for w in run.lost_workers],
    )


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

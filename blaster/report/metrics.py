"""The metrics of a run in progress, for Prometheus' text format and OTLP.

Names follow Prometheus' conventions: base units, ``_total`` for counters. Histograms have a bucket
for each power of two of microseconds, and are exact: a bucket's bound is the last whole microsecond
below the power, where buckets of :class:`Histogram` end, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from blaster import __version__
from blaster.engine.control import Progress
from blaster.engine.slab import Slab
from blaster.measure.histogram import Histogram, bounds
from blaster.transport.base import Status

Labels = tuple[tuple[str, str], ...]

BOUNDS_US = [(1 << k) - 1 for k in range(6, 27)]
"""The buckets' upper bounds: 63 µs to 67 s."""

_ENDS = np.searchsorted(bounds()[0], np.array(BOUNDS_US) + 1)


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram. ``counts``: not cumulative, one more than bounds; ``sum_s``: seconds."""

    counts: tuple[int, ...]
    sum_s: float


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. ``kind``: counter, gauge or histogram; ``unit``: in UCUM, for OTLP."""

    name: str
    kind: str
    unit: str
    help: str
    samples: tuple[tuple[Labels, float | Buckets], ...]


def metrics(progress: Progress, endpoint: str, transport: str) -> list[Metric]:
    """The metrics at the end of an interval."""
    run, point = progress.run, progress.point
    ledger, plan = run.ledger, run.plan
    scheduled = sum(point.scheduled for point in run.series.items)
    info = (
        ("version", __version__),
        ("scenario", plan.scenario.name),
        ("endpoint", endpoint),
        ("transport", transport),
    )
    statuses = tuple(
        (((("status", Status(status).name),)), int(count))
        for status, count in enumerate(ledger.statuses())
        if count
    )
    found = [
        _gauge("blaster_info", "1", "The run's version, scenario and target; always 1.", 1, info),
        _gauge("blaster_elapsed_seconds", "s", "Time since the start.", point.t),
        _gauge("blaster_planned_seconds", "s", "All stages' time.", progress.duration_ns / 1e9),
        _gauge("blaster_stage", "1", "The number of the stage, from 1.", _stage(progress)),
        _counter("blaster_scheduled_spans_total", "{span}", "Spans that were due.", scheduled),
        _counter(
            "blaster_sent_spans_total", "{span}", "Spans sent.", ledger.total(Slab.sent_spans)
        ),
        Metric(
            "blaster_ended_spans_total",
            "counter",
            "{span}",
            "Spans by how they ended: accepted, rejected, failed or unknown.",
            tuple(
                ((("outcome", name),), ledger.total(field))
                for name, field in (
                    ("accepted", Slab.accepted),
                    ("rejected", Slab.rejected),
                    ("failed", Slab.failed),
                    ("unknown", Slab.unknown),
                )
            ),
        ),
        _counter(
            "blaster_sent_bytes_total", "By", "Bytes of messages.", ledger.total(Slab.sent_bytes)
        ),
        _counter(
            "blaster_sent_requests_total",
            "{request}",
            "Requests sent.",
            ledger.total(Slab.sent_requests),
        ),
        _counter(
            "blaster_retried_requests_total",
            "{request}",
            "Sent again.",
            ledger.total(Slab.retried_requests),
        ),
        Metric(
            "blaster_ended_requests_total",
            "counter",
            "{request}",
            "Requests by how they ended.",
            statuses,
        ),
        _gauge("blaster_requests_in_flight", "{request}", "Sent, not answered.", point.in_flight),
        _gauge("blaster_backlog_spans", "{span}", "Due and not sent yet.", point.backlog),
        _histogram(
            "blaster_response_seconds", "Latency from the scheduled time.", ledger.response()
        ),
        _histogram("blaster_service_seconds", "Latency from the send.", ledger.service()),
        _gauge(
            "blaster_generator_cpu_ratio", "1", "Of one core, blaster's.", point.generator_cpu / 100
        ),
        _gauge("blaster_generator_memory_bytes", "By", "Resident, blaster's.", point.generator_rss),
    ]
    if point.target_cpu is not None and point.target_rss is not None:
        found += [
            _gauge(
                "blaster_target_cpu_ratio",
                "1",
                "Of one core, the target's.",
                point.target_cpu / 100,
            ),
            _gauge(
                "blaster_target_memory_bytes", "By", "Resident, the target's.", point.target_rss
            ),
        ]
    return found


def exposition(found: Sequence[Metric]) -> str:
    """Prometheus' text format, version 0.0.4."""
    return "".join(line + "\n" for metric in found for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for labels, value in metric.samples:
        if not isinstance(value, Buckets):
            yield f"{metric.name}{_labels(labels)} {value}"
            continue
        running = 0
        for count, bound in zip(value.counts, [*BOUNDS_US, None], strict=True):
            running += count
            le = "+Inf" if bound is None else f"{bound / 1e6:g}"
            yield f"{metric.name}_bucket{_labels((*labels, ('le', le)))} {running}"
        yield f"{metric.name}_sum{_labels(labels)} {value.sum_s}"
        yield f"{metric.name}_count{_labels(labels)} {running}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _gauge(name: str, unit: str, what: str, value: float, labels: Labels = ()) -> Metric:
    return Metric(name, "gauge", unit, what, ((labels, value),))


def _counter(name: str, unit: str, what: str, value: float) -> Metric:
    return Metric(name, "counter", unit, what, (((), value),))


def _histogram(name: str, what: str, histogram: Histogram) -> Metric:
    running = np.concatenate([[0], np.cumsum(histogram.counts)])
    below = [int(running[end]) for end in _ENDS]
    total = int(running[-1])
    counts = np.diff([0, *below, total])
    sum_s = histogram.mean * total / 1e6
    return Metric(name, "histogram", "s", what, (((), Buckets(tuple(counts.tolist()), sum_s)),))


def _stage(progress: Progress) -> int:
    end = 0
    for number, stage in enumerate(progress.run.plan.scenario.stages, 1):
        end += stage.duration_ns
        if progress.point.t * 1e9 < end:
            return number
    return len(progress.run.plan.scenario.stages)

"""Metrics as an OTLP request: opentelemetry-proto's ExportMetricsServiceRequest.

Counters are monotonic, cumulative sums; histograms are cumulative, with explicit bounds in seconds.
Names keep Prometheus' form, so that a Collector can serve them to Prometheus unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2

from blaster import __version__
from blaster.report.metrics import BOUNDS_US, Buckets, Labels, Metric

CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE


def request(found: Sequence[Metric], started_ns: int, now_ns: int) -> bytes:
    """The serialised request; times in nanoseconds since 1970."""
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    resource.resource.attributes.extend(
        _attributes((("service.name", "blaster"), ("service.version", __version__)))
    )
    scope = resource.scope_metrics.add()
    scope.scope.name, scope.scope.version = "blaster", __version__
    for metric in found:
        made = scope.metrics.add(name=metric.name, unit=metric.unit, description=metric.help)
        for labels, value in metric.samples:
            if isinstance(value, Buckets):
                made.histogram.aggregation_temporality = CUMULATIVE
                made.histogram.data_points.add(
                    attributes=_attributes(labels),
                    start_time_unix_nano=started_ns,
                    time_unix_nano=now_ns,
                    count=sum(value.counts),
                    sum=value.sum_s,
                    bucket_counts=value.counts,
                    explicit_bounds=[bound / 1e6 for bound in BOUNDS_US],
                )
                continue
            points = made.gauge.data_points
            if metric.kind == "counter":
                made.sum.is_monotonic = True
                made.sum.aggregation_temporality = CUMULATIVE
                points = made.sum.data_points
            points.add(
                attributes=_attributes(labels),
                start_time_unix_nano=started_ns if metric.kind == "counter" else 0,
                time_unix_nano=now_ns,
                as_double=value,
            )
    return bytes(message.SerializeToString())


def _attributes(labels: Labels) -> list[KeyValue]:
    made = []
    for name, value in labels:
        pair = KeyValue(key=name)
        pair.value.string_value = value
        made.append(pair)
    return made

"""The workload ``flat``: one service's traces as an SDK exports them, one resource a request.

A trace is a root span, an HTTP server span, and (when spans_per_trace > 1) a tree of internal
spans below it, four children to a parent, each inside its parent's time.
"""

from __future__ import annotations

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from blaster.payload.shape import TRACE_PLACEHOLDER, Shape, placeholder_id

MAX_SPANS_PER_TRACE = 1000

BASE_DURATION_NS, LONGEST_NS = 1_000_000, 99_000_000
"""A trace takes 1 to 99 ms, all as likely."""

_CHILDREN = 4
_TIMINGS = 1024


def shape(spans_per_trace: int = 1) -> Shape:
    """The shape of a trace of so many spans.

    A parent's children follow one another inside its middle nine tenths, and none takes more than
    0.45 of it: in a slow trace only the root is longer than the 500 ms that the rule allows.
    """
    starts, ends = [0.0], [1.0]
    for index in range(1, spans_per_trace):
        parent = (index - 1) // _CHILDREN
        width = 0.9 * (ends[parent] - starts[parent]) / _CHILDREN
        start = starts[parent] + 0.05 * (ends[parent] - starts[parent])
        start += width * ((index - 1) % _CHILDREN)
        starts.append(start)
        ends.append(start + width)
    timings = max(1, _TIMINGS // spans_per_trace)
    # Every timing in turn, those of neighbours far apart: the golden ratio's multiples, by rank.
    rank = np.argsort(np.arange(timings) * 0.6180339887498949 % 1)
    duration = BASE_DURATION_NS + (LONGEST_NS - BASE_DURATION_NS) * (rank + 0.5) / timings
    return Shape(
        request=_request(spans_per_trace),
        weight=timings,
        starts=np.outer(duration, starts).astype(np.int64),
        ends=np.outer(duration, ends).astype(np.int64),
        events=np.zeros((timings, 0), np.int64),
    )


def _request(spans_per_trace: int) -> ExportTraceServiceRequest:
    spans = [_root()] + [_child(index) for index in range(1, spans_per_trace)]
    for index, span in enumerate(spans):
        # Placeholders: never zero, since proto3 does not serialise a zero.
        span.trace_id = TRACE_PLACEHOLDER
        span.span_id = placeholder_id(index)
        span.start_time_unix_nano = span.end_time_unix_nano = 1
    scope = ScopeSpans(spans=spans)
    scope.scope.name = "blaster"
    resource = ResourceSpans(scope_spans=[scope])
    resource.resource.attributes.extend(
        [_string("service.name", "blaster"), _string("telemetry.sdk.language", "python")]
    )
    return ExportTraceServiceRequest(resource_spans=[resource])


def _root() -> Span:
    return Span(
        name="api.request",
        kind=Span.SPAN_KIND_SERVER,
        attributes=[
            _string("http.request.method", "GET"),
            _string("http.route", "/api/v1/orders/{order_id}"),
            _string("auth.token", "load-test"),
            KeyValue(key="http.status_code", value=AnyValue(int_value=200)),
        ],
    )


def _child(index: int) -> Span:
    return Span(
        name="process",
        kind=Span.SPAN_KIND_INTERNAL,
        parent_span_id=placeholder_id((index - 1) // _CHILDREN),
        attributes=[
            _string("code.function.name", "orders.process"),
            _string("code.file.path", "orders/process.py"),
        ],
    )


def _string(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))

"""The workload ``flat``: one service's traces as an SDK exports them, one resource a request.

A trace is a root span, an HTTP server span, and (when spans_per_trace > 1) a tree of internal
spans below it, four children to a parent, each inside its parent's time.
"""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from blaster.payload.columns import Timeline
from blaster.payload.template import Template, build, placeholder_id
from blaster.payload.violations import ERROR, MISSING_AUTH, SLOW

MAX_SPANS_PER_TRACE = 1000
_CHILDREN = 4


def template(spans_per_trace: int = 1) -> Template:
    """The template of a trace of so many spans; its variants are the kinds of violation."""
    return build([_request(kind, spans_per_trace) for kind in (0, SLOW, ERROR, MISSING_AUTH)])


def timeline(spans_per_trace: int = 1) -> Timeline:
    """When the spans of such a trace begin and end.

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
    return Timeline(tuple(starts), tuple(ends))


def _request(kind: int, spans_per_trace: int) -> ExportTraceServiceRequest:
    spans = [_root(kind)] + [_child(index) for index in range(1, spans_per_trace)]
    for index, span in enumerate(spans):
        # Placeholders: never zero, since proto3 does not serialise a zero.
        span.trace_id = b"\xff" * 16
        span.span_id = placeholder_id(index)
        span.start_time_unix_nano = span.end_time_unix_nano = 1
    scope = ScopeSpans(spans=spans)
    scope.scope.name = "blaster"
    resource = ResourceSpans(scope_spans=[scope])
    resource.resource.attributes.extend(
        [_string("service.name", "blaster"), _string("telemetry.sdk.language", "python")]
    )
    return ExportTraceServiceRequest(resource_spans=[resource])


def _root(kind: int) -> Span:
    failed = kind == ERROR
    attributes = [
        _string("http.request.method", "GET"),
        _string("http.route", "/api/orders/{id}"),
        _string("auth.token", "load-test"),
        _int("http.status_code", 500 if failed else 200),
    ]
    if kind == MISSING_AUTH:
        attributes = [a for a in attributes if a.key != "auth.token"]
    return Span(
        name="GET /api/orders/{id}",
        kind=Span.SPAN_KIND_SERVER,
        attributes=attributes,
        status=Status(code=Status.STATUS_CODE_ERROR) if failed else None,
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


def _int(key: str, value: int) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(int_value=value))

"""A span in plain values, to be compared with what a store gives back, or told as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from blaster.payload.shape import spans_of

STATUS_ERROR = 2


@dataclass(frozen=True, slots=True)
class Span:
    """Times in ns since 1970; ``status``: 0 unset, 1 ok, 2 error. ``attributes``: as text; None
    for what is no scalar."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, str | None]


def decode(data: bytes) -> list[Span]:
    """The spans of an ExportTraceServiceRequest. DecodeError for what is none."""
    request = ExportTraceServiceRequest.FromString(data)
    return [
        Span(
            span.trace_id,
            span.span_id,
            span.parent_span_id,
            span.name,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code,
            {attribute.key: _text(attribute.value) for attribute in span.attributes},
        )
        for span in spans_of(request)
    ]


def _text(value: AnyValue) -> str | None:
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind == "int_value":
        return str(value.int_value)
    if kind == "bool_value":
        return "true" if value.bool_value else "false"
    return repr(value.double_value) if kind == "double_value" else None

"""One span, to see whether it arrives: slow-operation, two seconds long, a server's."""

from __future__ import annotations

import os

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

NAME, SERVICE = "slow-operation", "blaster"
TOOK_NS = 2_000_000_000


def single_span(now_ns: int) -> tuple[bytes, bytes, bytes]:
    """Its trace ID, its span ID and the bytes of the ExportTraceServiceRequest; it ends at
    ``now_ns`` (ns since 1970). The IDs are random."""
    trace_id, span_id = os.urandom(15) + b"\1", os.urandom(7) + b"\1"  # never zero
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = SERVICE
    scope = resource.scope_spans.add()
    scope.scope.name = "blaster"
    span = scope.spans.add(
        trace_id=trace_id,
        span_id=span_id,
        name=NAME,
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=now_ns - TOOK_NS,
        end_time_unix_nano=now_ns,
    )
    span.attributes.add(key="http.method").value.string_value = "GET"
    return trace_id, span_id, request.SerializeToString()

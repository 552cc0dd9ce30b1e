"""BeTrace's own ingest: the spans of ``POST /v1/spans`` as an ExportTraceServiceRequest."""

from __future__ import annotations

from typing import Any

MOST_SPANS = 10_000
MOST_BYTES = 10 << 20
MOST_ATTRIBUTES = 128


class Refused(Exception):
    """The request is answered with ``status``; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def request_of(body: Any) -> tuple[bytes, int]:
    """The bytes of the request, and its number of spans. Refused where BeTrace would refuse it: one
    wrong span spoils all."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = body.get("spans") if isinstance(body, dict) else None
    if not isinstance(spans, list):
        raise Refused(400, "spans: must be a list")
    if len(spans) > MOST_SPANS:
        raise Refused(400, f"batch too large: {len(spans)} spans exceeds limit of {MOST_SPANS}")
    request = ExportTraceServiceRequest()
    added = request.resource_spans.add().scope_spans.add().spans if spans else None
    for item in spans:
        assert added is not None
        try:
            _fill(added.add(), item)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise Refused(400, f"invalid span: {error}") from None
    return request.SerializeToString(), len(spans)


def _fill(span: Any, item: dict[str, Any]) -> None:
    """ValueError and the like for what the span lacks."""
    span.trace_id = _id(item, "traceId", "trace_id", 16)
    span.span_id = _id(item, "spanId", "span_id", 8)
    parent = _any(item, "parentSpanId", "parent_span_id")
    if parent:
        span.parent_span_id = bytes.fromhex(parent)
    span.name = item.get("name") or ""
    if not span.name:
        raise ValueError("span name is required")
    span.start_time_unix_nano = int(_any(item, "startTime", "start_time") or 0)
    span.end_time_unix_nano = int(_any(item, "endTime", "end_time") or 0)
    duration = int(_any(item, "durationMs", "duration_ms") or 0)
    if duration and not span.end_time_unix_nano:
        span.end_time_unix_nano = span.start_time_unix_nano + duration * 1_000_000
    if str(item.get("status") or "").lower() == "error":
        span.status.code = 2
    attributes = item.get("attributes") or {}
    if len(attributes) > MOST_ATTRIBUTES:
        raise ValueError(f"too many attributes: {len(attributes)} > {MOST_ATTRIBUTES}")
    for key, value in attributes.items():
        span.attributes.add(key=key).value.string_value = value


def _any(item: dict[str, Any], *keys: str) -> Any:
    return next((item[key] for key in keys if key in item), None)


def _id(item: dict[str, Any], camel: str, snake: str, size: int) -> bytes:
    text = _any(item, camel, snake)
    if not text:
        raise ValueError(f"{snake} is required")
    value = bytes.fromhex(text)
    if len(value) != size:
        raise ValueError(f"{snake}: must be {2 * size} hex digits")
    return value

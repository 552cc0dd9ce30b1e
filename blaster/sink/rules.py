"""The rules that the sink evaluates, and the Python twin of native/scan.c over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from blaster._native import ScanCounts

SLOW = "load-test-slow-requests"
ERRORS = "load-test-errors"
MISSING_AUTH = "load-test-missing-auth"

RULES = (SLOW, ERRORS, MISSING_AUTH)
"""The names of the rules, in the order in which every tuple of violations counts them."""

SLOW_NANOSECONDS = 500_000_000


def violations_of(span: Span) -> tuple[bool, bool, bool]:
    """Which of RULES a span breaks: longer than 500 ms; status ERROR; http.route, no auth.token."""
    keys = {attribute.key for attribute in span.attributes}
    return (
        span.end_time_unix_nano - span.start_time_unix_nano > SLOW_NANOSECONDS,
        span.status.code == 2,
        "http.route" in keys and "auth.token" not in keys,
    )


class ScannerTwin:
    """What ``blaster._native.Scanner`` does, in plain Python over opentelemetry-proto.

    Remembers every ID, whatever the capacity. The oracle of the tests; slow.
    """

    def __init__(self) -> None:
        self._ids: set[tuple[bytes, bytes]] = set()
        self._counts: ScanCounts = {
            "requests": 0,
            "malformed": 0,
            "bytes": 0,
            "spans": 0,
            "duplicates": 0,
            "invalid": 0,
            "sampling": 1,
            "violations": (0, 0, 0),
        }

    def request(self, data: bytes) -> int:
        """Scans one ExportTraceServiceRequest; its number of spans, or -1 when malformed."""
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        counts = self._counts
        try:
            request = trace_service_pb2.ExportTraceServiceRequest.FromString(data)
        except DecodeError:
            counts["malformed"] += 1
            return -1
        spans = [
            span
            for resource_spans in request.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]
        counts["requests"] += 1
        counts["bytes"] += len(data)
        counts["spans"] += len(spans)
        for span in spans:
            slow, error, missing = counts["violations"]
            broken = violations_of(span)
            counts["violations"] = (slow + broken[0], error + broken[1], missing + broken[2])
            self._count_id(span.trace_id, span.span_id)
        return len(spans)

    def _count_id(self, trace_id: bytes, span_id: bytes) -> None:
        if len(trace_id) != 16 or len(span_id) != 8 or not any(trace_id) or not any(span_id):
            self._counts["invalid"] += 1
        elif (trace_id, span_id) in self._ids:
            self._counts["duplicates"] += 1
        else:
            self._ids.add((trace_id, span_id))

    def counts(self) -> ScanCounts:
        """What was counted so far."""
        return self._counts.copy()

"""The Python twin of native/scan.c and json_scan.c: the oracle that the tests hold them to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster.otlp.rules import violations_of
from tests.support import otlp_json

if TYPE_CHECKING:
    from blaster._native import ScanCounts


class ScannerTwin:
    """``blaster._native.Scanner`` in plain Python over opentelemetry-proto. It remembers every
    ID, whatever the capacity."""

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
        """Scan one ExportTraceServiceRequest; return its number of spans, or -1 when malformed."""
        return self._scan(data, ExportTraceServiceRequest.FromString)

    def request_json(self, data: bytes) -> int:
        """As request, for the message in OTLP/JSON."""
        return self._scan(data, otlp_json.decode)

    def _scan(self, data: bytes, decode: Callable[[bytes], ExportTraceServiceRequest]) -> int:
        counts = self._counts
        try:
            request = decode(data)
        except (DecodeError, ValueError):
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
        """The counts so far."""
        return self._counts.copy()

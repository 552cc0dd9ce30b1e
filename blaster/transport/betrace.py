"""The betrace transport: BeTrace's own ingest, POST /v1/spans, in JSON.

Batches are stamped as OTLP's protobuf and converted to JSON when they are sent: some tens of
thousands of spans a second. The http transport does the rest.
"""

from __future__ import annotations

from typing import Any

import msgspec

from blaster.layout import Int64
from blaster.payload.span import STATUS_ERROR, Span, decode
from blaster.transport.base import Chunk, SendCounts, send_in_pieces
from blaster.transport.endpoint import Endpoint
from blaster.transport.headers import Headers
from blaster.transport.http import HttpTransport
from blaster.transport.tls import Tls
from blaster.transport.wrapper import TransportWrapper

PIECE_SPANS = 500
"""Spans converted to JSON before the first of them is sent: some 10 ms."""


class BetraceTransport(TransportWrapper):
    """Posts BeTrace's JSON to ``endpoint``; parameters as HttpTransport has them."""

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        tls: Tls | None,
        connections: int,
        timeout_s: float,
        headers: Headers,
        counts: SendCounts,
        stop: Int64,
    ) -> None:
        transport = HttpTransport(
            endpoint=endpoint,
            tls=tls,
            encoding="betrace",
            compression="none",
            connections=connections,
            timeout_s=timeout_s,
            headers=headers,
            counts=counts,
            stop=stop,
        )
        super().__init__(transport)
        self.framing = "buffer"

    def send(self, chunk: Chunk, until: int) -> int:
        return send_in_pieces(
            chunk, chunk.spans, PIECE_SPANS, lambda piece: self._send(piece, until)
        )

    def _send(self, piece: Chunk, until: int) -> int:
        texts = [to_json(piece.batch(index)) for index in range(len(piece))]
        return self._transport.send(
            Chunk.of(texts, piece.scheduled, piece.spans, first=piece.first, again=piece.again),
            until,
        )


def to_json(data: bytes) -> bytes:
    """Return the body of POST /v1/spans with the spans of an ExportTraceServiceRequest."""
    return msgspec.json.encode({"spans": [_fields(span) for span in decode(data)]})


def _fields(span: Span) -> dict[str, Any]:
    took_ms = (span.end_ns - span.start_ns) // 1_000_000
    attributes = {key: value or "" for key, value in span.attributes.items()}
    # For the newer dialect's rules, which see a span's duration in no other way.
    attributes.setdefault("duration_ms", str(took_ms))
    return {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "parentSpanId": span.parent_id.hex(),
        "name": span.name,
        "startTime": span.start_ns,
        "endTime": span.end_ns,
        "durationMs": took_ms,
        "attributes": attributes,
        "status": "error" if span.status == STATUS_ERROR else "ok",
    }

"""OTLP/JSON as the Collector's file exporter writes it and its file receiver reads it."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster.otlp.json_reader import hexadecimal, to_protobuf
from blaster.otlp.malformed import Malformed
from blaster.units import quoted


def decode(data: bytes) -> ExportTraceServiceRequest:
    """Return the request of one JSON object. Raises Malformed, with the JSON path."""
    return ExportTraceServiceRequest.FromString(to_protobuf(data, _read_id))


def encode(request: ExportTraceServiceRequest) -> bytes:
    """Return ``request`` as one line of JSON, without the line's end. Unknown fields are left
    out."""
    document = MessageToDict(request, use_integers_for_enums=True)
    for resource in document.get("resourceSpans", ()):
        for scope in resource.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                _ids_to_hex(span)
                for link in span.get("links", ()):
                    _ids_to_hex(link)
    return msgspec.json.encode(document)


def _ids_to_hex(item: dict[str, Any]) -> None:
    for key in ("traceId", "spanId", "parentSpanId"):
        if key in item:
            item[key] = base64.b64decode(item[key]).hex()


def _read_id(name: str, text: str, width: int) -> bytes:
    data = hexadecimal(name, text, width)
    if len(data) != width:
        wanted = f"must be {2 * width} hexadecimal digits"
        raise Malformed(f"{wanted}, not {quoted(text)}", f".{name}")
    return data

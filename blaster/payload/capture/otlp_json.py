"""OTLP/JSON as people have it: as the Collector's file exporter writes it, and the forms that
trace stores and older versions give.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster.otlp.json_reader import base64_bytes, hexadecimal, to_protobuf
from blaster.otlp.malformed import Malformed
from blaster.units import quoted

_WRAPPERS = ("result", "trace")
"""Jaeger's API v3 and Tempo's v2 wrap OTLP in these."""

_OLD_NAMES = {
    "batches": "resourceSpans",  # Tempo's API v1
    "instrumentationLibrarySpans": "scopeSpans",  # OTLP before 0.15
    "instrumentationLibrary": "scope",
}


class OtlpJsonReader:
    """Reads the JSON objects of one file. Their IDs are all in hexadecimal, as OTLP has them, or
    all in base64, as protobuf's own JSON has them."""

    def __init__(self) -> None:
        self._base64: bool | None = None

    def decode(self, data: bytes) -> ExportTraceServiceRequest:
        """Return the request of one JSON object. Raises Malformed, with the JSON path."""
        return ExportTraceServiceRequest.FromString(to_protobuf(data, self._read_id, _rewritten))

    def _read_id(self, name: str, text: str, width: int) -> bytes:
        is_base64 = len(text) == -(-width // 3) * 4
        wanted = f"must be {2 * width} hexadecimal digits"
        if is_base64:
            data = base64_bytes(name, text)
        elif len(text) == 2 * width:
            data = hexadecimal(name, text, width)
        else:
            raise Malformed(f"{wanted}, not {quoted(text)}", f".{name}")
        if self._base64 is None:
            self._base64 = is_base64
        if self._base64 != is_base64 or len(data) != width:
            wanted = "must be base64 as the IDs before it" if self._base64 else wanted
            raise Malformed(f"{wanted}, not {quoted(text)}", f".{name}")
        return data


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


def _rewritten(document: Any) -> Any:
    """The JSON value without its wrappers, and with the names of today."""
    if isinstance(document, dict) and not document.keys() & {"resourceSpans", "resource_spans"}:
        for name in _WRAPPERS:
            if isinstance(document.get(name), dict):
                return _rewritten(document[name])
    return _renamed(document)


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, item in value.items():
        camel = re.sub("_([a-z])", lambda letter: letter[1].upper(), key)
        name = str(_OLD_NAMES.get(camel, key))
        renamed = _renamed(item)
        if name == "value" and isinstance(renamed, dict) and set(renamed) == {"Value"}:
            renamed = _of_go(renamed["Value"])
        if isinstance(found.get(name), list) and isinstance(renamed, list):
            renamed = found[name] + renamed
        found[name] = renamed
    return found


def _of_go(value: Any) -> Any:
    """An AnyValue as Go's own encoding/json writes it: {"Value": {"StringValue": "x"}}."""
    if not isinstance(value, dict):
        return value
    return {name[:1].lower() + name[1:]: item for name, item in value.items()}

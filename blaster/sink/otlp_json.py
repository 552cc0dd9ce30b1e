"""OTLP/JSON from strangers, turned into the protobuf that the scanner reads.

protobuf's own JSON, but for the IDs, which are hexadecimal
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). As there, unknown names are
ignored and integers may be strings. IDs of a wrong length are not refused: the scanner counts them.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec

from blaster.sink import plain_json
from blaster.sink.plain_json import NotPlain

IDS = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
"""protobuf's JSON takes either form of a name."""


def to_protobuf(data: bytes) -> bytes:
    """The ExportTraceServiceRequest that one JSON object says; ValueError, with why, if none."""
    with contextlib.suppress(NotPlain):
        return plain_json.to_protobuf(data)
    return any_to_protobuf(data)


def any_to_protobuf(data: bytes) -> bytes:
    """The same by protobuf's own JSON: of all that there is, and slower."""
    from google.protobuf.json_format import ParseDict, ParseError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    try:
        document = msgspec.json.decode(data)
        if not isinstance(document, dict):
            raise ValueError("the JSON is no object")
        for span in _spans(document):
            _ids_to_base64(span)
            for link in _objects(span, "links"):
                _ids_to_base64(link)
        request = ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=True)
        return request.SerializeToString()
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None
    except (msgspec.DecodeError, ParseError) as error:
        raise ValueError(f"the JSON is no ExportTraceServiceRequest: {error}") from None
    except (
        AttributeError,
        TypeError,
        KeyError,
        OverflowError,
    ) as error:  # what ParseDict lets slip
        raise ValueError(
            f"the JSON is no ExportTraceServiceRequest: {type(error).__name__}"
        ) from None


def _spans(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in _objects(document, "resourceSpans", "resource_spans"):
        for scope in _objects(resource, "scopeSpans", "scope_spans"):
            yield from _objects(scope, "spans")


def _objects(within: dict[str, Any], *names: str) -> Iterator[dict[str, Any]]:
    """The objects of a list; what is none is left for protobuf to refuse."""
    for name in names:
        items = within.get(name)
        if isinstance(items, list):
            yield from (item for item in items if isinstance(item, dict))


def _ids_to_base64(item: dict[str, Any]) -> None:
    for name in IDS:
        text = item.get(name)
        if isinstance(text, str):
            try:
                data = binascii.unhexlify(text)
            except ValueError:
                raise ValueError(f"{name}: not hexadecimal") from None
            item[name] = binascii.b2a_base64(data, newline=False).decode()

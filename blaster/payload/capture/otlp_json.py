"""OTLP as JSON, as the Collector's file exporter writes it and its file receiver reads it.

It differs from protobuf's own JSON in the IDs, which are hexadecimal
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). Integers of 64 bits may be
strings or numbers, enums numbers or names; unknown names are ignored, as the specification asks.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from blaster.payload.capture.malformed import Malformed, decoded, each
from blaster.units import quoted

MAX_NESTING = 30
"""Values within values: protobuf's decoders take 100 messages within each other, and an attribute
of a span's event is 7 deep, each list of pairs 3 more."""

_Integer = int | str | None


class _Struct(msgspec.Struct, rename="camel", gc=False):
    """Whatever is left out or null is None."""


class _Value(_Struct):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: _Integer = None
    double_value: float | str | None = None
    array_value: _Values | None = None
    kvlist_value: _Pairs | None = None
    bytes_value: str | None = None


class _Values(_Struct):
    values: tuple[_Value, ...] | None = None


class _Pair(_Struct):
    key: str | None = None
    value: _Value | None = None


class _Pairs(_Struct):
    values: tuple[_Pair, ...] | None = None


class _EntityRef(_Struct):
    schema_url: str | None = None
    type: str | None = None
    id_keys: tuple[str, ...] | None = None
    description_keys: tuple[str, ...] | None = None


class _Resource(_Struct):
    attributes: tuple[_Pair, ...] | None = None
    dropped_attributes_count: _Integer = None
    entity_refs: tuple[_EntityRef, ...] | None = None


class _Scope(_Struct):
    name: str | None = None
    version: str | None = None
    attributes: tuple[_Pair, ...] | None = None
    dropped_attributes_count: _Integer = None


class _Event(_Struct):
    time_unix_nano: _Integer = None
    name: str | None = None
    attributes: tuple[_Pair, ...] | None = None
    dropped_attributes_count: _Integer = None


class _Link(_Struct):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    attributes: tuple[_Pair, ...] | None = None
    dropped_attributes_count: _Integer = None
    flags: _Integer = None


class _Status(_Struct):
    message: str | None = None
    code: _Integer = None


class _Span(_Struct):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    parent_span_id: str | None = None
    flags: _Integer = None
    name: str | None = None
    kind: _Integer = None
    start_time_unix_nano: _Integer = None
    end_time_unix_nano: _Integer = None
    attributes: tuple[_Pair, ...] | None = None
    dropped_attributes_count: _Integer = None
    events: tuple[_Event, ...] | None = None
    dropped_events_count: _Integer = None
    links: tuple[_Link, ...] | None = None
    dropped_links_count: _Integer = None
    status: _Status | None = None


class _ScopeSpans(_Struct):
    scope: _Scope | None = None
    spans: tuple[_Span, ...] | None = None
    schema_url: str | None = None


class _ResourceSpans(_Struct):
    resource: _Resource | None = None
    scope_spans: tuple[_ScopeSpans, ...] | None = None
    schema_url: str | None = None


class _Request(_Struct):
    resource_spans: tuple[_ResourceSpans, ...] | None = None


_KINDS: dict[str, int] = dict(Span.SpanKind.items())
_CODES: dict[str, int] = dict(Status.StatusCode.items())

_DECODER = msgspec.json.Decoder(_Request)


def decode(data: bytes) -> ExportTraceServiceRequest:
    """The request that one JSON object says. Malformed otherwise, with the JSON path."""
    request = decoded(_DECODER, data)
    try:
        return ExportTraceServiceRequest(
            resource_spans=each(request.resource_spans, "resourceSpans", _resource_spans)
        )
    except UnicodeError:
        raise Malformed("text with half a surrogate pair") from None


def encode(request: ExportTraceServiceRequest) -> bytes:
    """``request`` as one line of JSON, without the line's end. Unknown fields are left out."""
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


def _resource_spans(item: _ResourceSpans) -> ResourceSpans:
    return ResourceSpans(
        resource=_inside("resource", item.resource, _resource),
        scope_spans=each(item.scope_spans, "scopeSpans", _scope_spans),
        schema_url=item.schema_url or "",
    )


def _resource(item: _Resource) -> Resource:
    return Resource(
        attributes=each(item.attributes, "attributes", pair),
        dropped_attributes_count=_count("droppedAttributesCount", item.dropped_attributes_count),
        entity_refs=(
            EntityRef(
                schema_url=ref.schema_url or "",
                type=ref.type or "",
                id_keys=ref.id_keys,
                description_keys=ref.description_keys,
            )
            for ref in item.entity_refs or ()
        ),
    )


def _scope_spans(item: _ScopeSpans) -> ScopeSpans:
    return ScopeSpans(
        scope=_inside("scope", item.scope, _scope),
        spans=each(item.spans, "spans", _span),
        schema_url=item.schema_url or "",
    )


def _scope(item: _Scope) -> InstrumentationScope:
    return InstrumentationScope(
        name=item.name or "",
        version=item.version or "",
        attributes=each(item.attributes, "attributes", pair),
        dropped_attributes_count=_count("droppedAttributesCount", item.dropped_attributes_count),
    )


def _span(item: _Span) -> Span:
    return Span(
        trace_id=_id("traceId", item.trace_id, 16),
        span_id=_id("spanId", item.span_id, 8),
        trace_state=item.trace_state or "",
        parent_span_id=_id("parentSpanId", item.parent_span_id, 8),
        flags=_count("flags", item.flags),
        name=item.name or "",
        kind=_enum("kind", item.kind, _KINDS),
        start_time_unix_nano=_time("startTimeUnixNano", item.start_time_unix_nano),
        end_time_unix_nano=_time("endTimeUnixNano", item.end_time_unix_nano),
        attributes=each(item.attributes, "attributes", pair),
        dropped_attributes_count=_count("droppedAttributesCount", item.dropped_attributes_count),
        events=each(item.events, "events", _event),
        dropped_events_count=_count("droppedEventsCount", item.dropped_events_count),
        links=each(item.links, "links", _link),
        dropped_links_count=_count("droppedLinksCount", item.dropped_links_count),
        status=_inside("status", item.status, _status),
    )


def _event(item: _Event) -> Span.Event:
    return Span.Event(
        time_unix_nano=_time("timeUnixNano", item.time_unix_nano),
        name=item.name or "",
        attributes=each(item.attributes, "attributes", pair),
        dropped_attributes_count=_count("droppedAttributesCount", item.dropped_attributes_count),
    )


def _link(item: _Link) -> Span.Link:
    return Span.Link(
        trace_id=_id("traceId", item.trace_id, 16),
        span_id=_id("spanId", item.span_id, 8),
        trace_state=item.trace_state or "",
        attributes=each(item.attributes, "attributes", pair),
        dropped_attributes_count=_count("droppedAttributesCount", item.dropped_attributes_count),
        flags=_count("flags", item.flags),
    )


def _status(item: _Status) -> Status:
    return Status(message=item.message or "", code=_enum("code", item.code, _CODES))


def pair(item: _Pair) -> KeyValue:
    """An attribute."""
    return KeyValue(key=item.key or "", value=_inside("value", item.value, _value))


def _value(item: _Value, depth: int = 0) -> AnyValue:
    if depth > MAX_NESTING:
        raise Malformed(f"values within values, more than {MAX_NESTING} deep")
    given = {
        name: value
        for name in _Value.__struct_fields__
        if (value := getattr(item, name)) is not None
    }
    if len(given) > 1:
        raise Malformed(f"more than one value: {', '.join(given)}")
    value = AnyValue()
    if item.string_value is not None:
        value.string_value = item.string_value
    elif item.bool_value is not None:
        value.bool_value = item.bool_value
    elif item.int_value is not None:
        value.int_value = _integer("intValue", item.int_value, -(2**63), 2**63 - 1)
    elif item.double_value is not None:
        value.double_value = _double(item.double_value)
    elif item.bytes_value is not None:
        value.bytes_value = base64_bytes("bytesValue", item.bytes_value)
    elif item.array_value is not None:
        values = each(item.array_value.values, "arrayValue.values", lambda v: _value(v, depth + 1))
        value.array_value.CopyFrom(ArrayValue(values=values))
    elif item.kvlist_value is not None:
        pairs = each(item.kvlist_value.values, "kvlistValue.values", lambda p: _inner(p, depth + 1))
        value.kvlist_value.CopyFrom(KeyValueList(values=pairs))
    return value


def _inner(item: _Pair, depth: int) -> KeyValue:
    value = _inside("value", item.value, lambda v: _value(v, depth))
    return KeyValue(key=item.key or "", value=value)


def _inside(name: str, item: Any, convert: Any) -> Any:
    """``convert(item)``, or None for none; a fault in it names the place ``.name``."""
    if item is None:
        return None
    try:
        return convert(item)
    except Malformed as error:
        raise error.within(f".{name}") from None


def _integer(name: str, value: _Integer, least: int, most: int) -> int:
    number: int | None = None
    if not isinstance(value, str):
        number = value or 0
    elif re.fullmatch("-?[0-9]{1,20}", value):  # int() would take much more
        number = int(value)
    if number is None or not least <= number <= most:
        wanted = f"must be an integer from {least} to {most}"
        raise Malformed(f"{wanted}, not {quoted(value)}", f".{name}")
    return number


def _count(name: str, value: _Integer) -> int:
    return _integer(name, value, 0, 2**32 - 1)


def _time(name: str, value: _Integer) -> int:
    return _integer(name, value, 0, 2**64 - 1)


def _enum(name: str, value: _Integer, numbers: Mapping[str, int]) -> Any:
    if isinstance(value, str) and value in numbers:
        return numbers[value]
    return _integer(name, value, -(2**31), 2**31 - 1)


def _double(value: float | str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = None
    # An infinity that was not written as one is a number too large for a double.
    if number is None or (math.isinf(number) and str(value).strip("-+") not in ("Infinity", "inf")):
        raise Malformed(f"must be a number, not {quoted(value)}", ".doubleValue")
    return number


def _id(name: str, value: str | None, width: int) -> bytes:
    if not value:
        return b""
    try:
        data = bytes.fromhex(value) if value.isalnum() else b""
    except ValueError:
        data = b""
    if len(data) != width:
        raise Malformed(f"must be {2 * width} hexadecimal digits, not {quoted(value)}", f".{name}")
    return data


def base64_bytes(name: str, value: str) -> bytes:
    """The bytes that base64 text says. Malformed otherwise, at ``.name``."""
    try:
        # Either alphabet, padded or not: protobuf's JSON allows all.
        text = value.translate(str.maketrans("-_", "+/")).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"must be base64, not {quoted(value)}", f".{name}") from None

"""OTLP/JSON turned into protobuf. Any JSON may come: it is read with bounds or refused."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from blaster.otlp import json_schema as schema
from blaster.otlp.json_names import known_names
from blaster.otlp.json_schema import Integer
from blaster.otlp.malformed import Malformed, decoded, explained
from blaster.otlp.wire_format import length_delimited, varint_field, write_varint
from blaster.units import quoted

_T = TypeVar("_T")

ReadId = Callable[[str, str, int], bytes]
"""Reads the ID with this name and text, which should have so many bytes. Raises Malformed."""

MAX_NESTING = 30
"""Values within values: protobuf's decoders take 100 messages within each other, and an attribute
of a span's event is 7 deep, each list of pairs 3 more."""

_KINDS = {
    f"SPAN_KIND_{name}": number
    for number, name in enumerate(
        ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
    )
}
_CODES = {f"STATUS_CODE_{name}": number for number, name in enumerate(("UNSET", "OK", "ERROR"))}

_DECODER = msgspec.json.Decoder(schema.Request)
_ANY_DECODER = msgspec.json.Decoder()


def to_protobuf(
    data: bytes,
    read_id: ReadId | None = None,
    rewrite: Callable[[Any], Any] | None = None,
) -> bytes:
    """Return the ExportTraceServiceRequest of one JSON object, as protobuf serialises it.

    ``read_id``: by default hexadecimal of any length, which is the receiver's to judge.
    ``rewrite``: given the JSON value where it isn't as the schema has it, returns one nearer to it.
    Raises Malformed, with the JSON path.
    """
    try:
        request = _DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        request = _with_known_names(data, rewrite)
    try:
        return _Converter(read_id or hexadecimal).request(request)
    except UnicodeError:
        raise Malformed("text with half a surrogate pair") from None


def _with_known_names(data: bytes, rewrite: Callable[[Any], Any] | None) -> schema.Request:
    document = decoded(_ANY_DECODER, data)
    try:
        if rewrite is not None:
            document = rewrite(document)
        return msgspec.convert(known_names(document), schema.Request)
    except msgspec.ValidationError as error:
        raise explained(error) from None
    except RecursionError:
        raise Malformed("nested too deep") from None


def hexadecimal(name: str, text: str, width: int) -> bytes:
    """Return the bytes of hexadecimal text of any length. Raises Malformed."""
    try:
        return binascii.unhexlify(text)
    except ValueError:
        wanted = f"must be {2 * width} hexadecimal digits"
        raise Malformed(f"{wanted}, not {quoted(text)}", f".{name}") from None


def base64_bytes(name: str, text: str) -> bytes:
    """Return the bytes of base64 text of either alphabet, padded or not, as protobuf's JSON allows.
    Raises Malformed."""
    try:
        standard = text.translate(str.maketrans("-_", "+/")).rstrip("=")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"must be base64, not {quoted(text)}", f".{name}") from None


class _Converter:
    """Returns the bytes of each message; the fields in the order of their numbers."""

    def __init__(self, read_id: ReadId) -> None:
        self._read_id = read_id

    def request(self, item: schema.Request) -> bytes:
        return _each(1, "resourceSpans", item.resource_spans, self._resource_spans)

    def _resource_spans(self, item: schema.ResourceSpans) -> bytes:
        return (
            _inner(1, "resource", item.resource, _resource)
            + _each(2, "scopeSpans", item.scope_spans, self._scope_spans)
            + _text(3, item.schema_url)
        )

    def _scope_spans(self, item: schema.ScopeSpans) -> bytes:
        return (
            _inner(1, "scope", item.scope, _scope)
            + _each(2, "spans", item.spans, self._span)
            + _text(3, item.schema_url)
        )

    def _span(self, item: schema.Span) -> bytes:
        return b"".join(
            (
                self._id(1, "traceId", item.trace_id, 16),
                self._id(2, "spanId", item.span_id, 8),
                _text(3, item.trace_state),
                self._id(4, "parentSpanId", item.parent_span_id, 8),
                _text(5, item.name),
                _enum(6, "kind", item.kind, _KINDS),
                _time(b"\x39", "startTimeUnixNano", item.start_time_unix_nano),
                _time(b"\x41", "endTimeUnixNano", item.end_time_unix_nano),
                _attributes(9, item.attributes),
                _count(10, "droppedAttributesCount", item.dropped_attributes_count),
                _each(11, "events", item.events, _event),
                _count(12, "droppedEventsCount", item.dropped_events_count),
                _each(13, "links", item.links, self._link),
                _count(14, "droppedLinksCount", item.dropped_links_count),
                _inner(15, "status", item.status, _status),
                _flags(b"\x85\x01", item.flags),
            )
        )

    def _link(self, item: schema.Link) -> bytes:
        return b"".join(
            (
                self._id(1, "traceId", item.trace_id, 16),
                self._id(2, "spanId", item.span_id, 8),
                _text(3, item.trace_state),
                _attributes(4, item.attributes),
                _count(5, "droppedAttributesCount", item.dropped_attributes_count),
                _flags(b"\x35", item.flags),
            )
        )

    def _id(self, number: int, name: str, text: str | None, width: int) -> bytes:
        return length_delimited(number, self._read_id(name, text, width)) if text else b""


def _resource(item: schema.Resource) -> bytes:
    return (
        _attributes(1, item.attributes)
        + _count(2, "droppedAttributesCount", item.dropped_attributes_count)
        + _each(3, "entityRefs", item.entity_refs, _entity_ref)
    )


def _entity_ref(item: schema.EntityRef) -> bytes:
    return b"".join(
        (
            _text(1, item.schema_url),
            _text(2, item.type),
            *(length_delimited(3, key.encode()) for key in item.id_keys or ()),
            *(length_delimited(4, key.encode()) for key in item.description_keys or ()),
        )
    )


def _scope(item: schema.InstrumentationScope) -> bytes:
    return (
        _text(1, item.name)
        + _text(2, item.version)
        + _attributes(3, item.attributes)
        + _count(4, "droppedAttributesCount", item.dropped_attributes_count)
    )


def _event(item: schema.Event) -> bytes:
    return (
        _time(b"\x09", "timeUnixNano", item.time_unix_nano)
        + _text(2, item.name)
        + _attributes(3, item.attributes)
        + _count(4, "droppedAttributesCount", item.dropped_attributes_count)
    )


def _status(item: schema.Status) -> bytes:
    return _text(2, item.message) + _enum(3, "code", item.code, _CODES)


def _attributes(number: int, items: Sequence[schema.KeyValue] | None) -> bytes:
    return _each(number, "attributes", items, _key_value) if items else b""


def _key_value(item: schema.KeyValue, depth: int = 0) -> bytes:
    key, value = item.key, item.value
    head = length_delimited(1, key.encode()) if key else b""
    if value is None:
        return head
    try:
        return head + length_delimited(2, _value(value, depth))
    except Malformed as error:
        raise error.within(".value") from None


def _value(item: schema.AnyValue, depth: int) -> bytes:
    if depth > MAX_NESTING:
        raise Malformed(f"values within values, more than {MAX_NESTING} deep")
    values = msgspec.structs.astuple(item)
    if (missing := values.count(None)) < len(values) - 1:
        names = zip(item.__struct_fields__, values, strict=True)
        given = ", ".join(name for name, value in names if value is not None)
        raise Malformed(f"more than one value: {given}")
    if missing == len(values):
        return b""
    if item.string_value is not None:
        return length_delimited(1, item.string_value.encode())
    if item.array_value is not None or item.kvlist_value is not None:
        return _values(item, depth + 1)
    return _scalar(item)


def _scalar(item: schema.AnyValue) -> bytes:
    if item.bool_value is not None:
        return b"\x10\x01" if item.bool_value else b"\x10\x00"
    if item.int_value is not None:
        number = _integer("intValue", item.int_value, -(1 << 63), (1 << 63) - 1)
        return b"\x18" + write_varint(number % (1 << 64))
    if item.double_value is not None:
        return b"\x21" + struct.pack("<d", _double(item.double_value))
    return length_delimited(7, base64_bytes("bytesValue", item.bytes_value or ""))


def _values(item: schema.AnyValue, depth: int) -> bytes:
    if item.array_value is not None:
        values = item.array_value.values
        inner = _each(1, "arrayValue.values", values, lambda value: _value(value, depth))
        return length_delimited(5, inner)
    pairs = item.kvlist_value.values if item.kvlist_value else ()
    inner = _each(1, "kvlistValue.values", pairs, lambda pair: _key_value(pair, depth))
    return length_delimited(6, inner)


def _each(
    number: int, name: str, items: Sequence[_T] | None, convert: Callable[[_T], bytes]
) -> bytes:
    """Return the repeated field ``number``; a fault in an item names the place ``.name[index]``."""
    if not items:
        return b""
    out: list[bytes] = []
    try:
        for item in items:
            out.append(length_delimited(number, convert(item)))
    except Malformed as error:
        raise error.within(f".{name}[{len(out)}]") from None
    return b"".join(out)


def _inner(number: int, name: str, item: _T | None, convert: Callable[[_T], bytes]) -> bytes:
    """Return the field ``number`` with a message, or none; a fault in it names ``.name``."""
    if item is None:
        return b""
    try:
        return length_delimited(number, convert(item))
    except Malformed as error:
        raise error.within(f".{name}") from None


def _text(number: int, text: str | None) -> bytes:
    return length_delimited(number, text.encode()) if text else b""


def _integer(name: str, value: Integer, least: int, most: int) -> int:
    number: int | None = None
    if value is None:
        number = 0
    elif isinstance(value, int):
        number = value
    elif isinstance(value, float):
        number = int(value) if value.is_integer() else None
    elif value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 20:
        number = int(value)  # of more digits int() would take much more time
    if number is None or not least <= number <= most:
        wanted = f"must be an integer from {least} to {most}"
        raise Malformed(f"{wanted}, not {quoted(value)}", f".{name}")
    return number


def _count(number: int, name: str, value: Integer) -> bytes:
    count = _integer(name, value, 0, (1 << 32) - 1) if value else 0
    return varint_field(number, count) if count else b""


def _flags(tag: bytes, value: Integer) -> bytes:
    flags = _integer("flags", value, 0, (1 << 32) - 1) if value else 0
    return tag + flags.to_bytes(4, "little") if flags else b""


def _time(tag: bytes, name: str, value: Integer) -> bytes:
    time = _integer(name, value, 0, (1 << 64) - 1) if value else 0
    return tag + time.to_bytes(8, "little") if time else b""


def _enum(number: int, name: str, value: Integer, numbers: Mapping[str, int]) -> bytes:
    if not value:
        return b""
    if isinstance(value, str) and value in numbers:
        value = numbers[value]
    code = _integer(name, value, -(1 << 31), (1 << 31) - 1)
    return varint_field(number, code % (1 << 64)) if code else b""


def _double(value: float | str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = None
    # An infinity that was not written as one is a number too large for a double.
    if number is None or (math.isinf(number) and str(value).strip("-+") not in ("Infinity", "inf")):
        raise Malformed(f"must be a number, not {quoted(value)}", ".doubleValue")
    return number

"""OTLP/JSON as exporters write it, turned into protobuf without protobuf's own JSON, which takes
some hundred microseconds a span. What is not plain (events, links, lists, unknown names, numbers
written in unusual ways) raises NotPlain, and is left to blaster.sink.otlp_json.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Sequence

import msgspec

from blaster.otlp.wire_format import write_varint

_Integer = int | str


class NotPlain(Exception):
    """There is more in it than is understood here, or less."""


class _Struct(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """Of what is left out there is the default."""


class _Value(_Struct):
    string_value: str | None = None
    int_value: _Integer | None = None
    bool_value: bool | None = None
    double_value: float | None = None


class _Pair(_Struct):
    key: str
    value: _Value


class _Status(_Struct):
    message: str = ""
    code: int = 0


class _Span(_Struct):
    trace_id: str
    span_id: str
    trace_state: str = ""
    parent_span_id: str = ""
    name: str = ""
    kind: int = 0
    start_time_unix_nano: _Integer = 0
    end_time_unix_nano: _Integer = 0
    attributes: tuple[_Pair, ...] = ()
    status: _Status | None = None
    flags: int = 0


class _Scope(_Struct):
    name: str = ""
    version: str = ""
    attributes: tuple[_Pair, ...] = ()


class _ScopeSpans(_Struct):
    scope: _Scope | None = None
    spans: tuple[_Span, ...] = ()
    schema_url: str = ""


class _Resource(_Struct):
    attributes: tuple[_Pair, ...] = ()


class _ResourceSpans(_Struct):
    resource: _Resource | None = None
    scope_spans: tuple[_ScopeSpans, ...] = ()
    schema_url: str = ""


class _Request(_Struct):
    resource_spans: tuple[_ResourceSpans, ...] = ()


_DECODER = msgspec.json.Decoder(_Request)


def to_protobuf(data: bytes) -> bytes:
    """The ExportTraceServiceRequest, as protobuf serialises it. Raises NotPlain."""
    try:
        request = _DECODER.decode(data)
        return b"".join(_field(1, _resource_spans(item)) for item in request.resource_spans)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError, struct.error):
        raise NotPlain from None


def _resource_spans(item: _ResourceSpans) -> bytes:
    resource = b"" if item.resource is None else _field(1, _pairs(1, item.resource.attributes))
    scopes = [_field(2, _scope_spans(scope)) for scope in item.scope_spans]
    return b"".join((resource, *scopes, _text(3, item.schema_url)))


def _scope_spans(item: _ScopeSpans) -> bytes:
    scope = b""
    if item.scope is not None:
        said = _text(1, item.scope.name) + _text(2, item.scope.version)
        scope = _field(1, said + _pairs(3, item.scope.attributes))
    return b"".join((scope, *[_field(2, _span(s)) for s in item.spans], _text(3, item.schema_url)))


def _span(item: _Span) -> bytes:
    status = b""
    if item.status is not None:
        code = b"\x18" + write_varint(_positive(item.status.code)) if item.status.code else b""
        status = _field(15, _text(2, item.status.message) + code)
    return b"".join(
        (
            *(_id(1, item.trace_id), _id(2, item.span_id), _text(3, item.trace_state)),
            *(_id(4, item.parent_span_id), _text(5, item.name)),
            b"\x30" + write_varint(_positive(item.kind)) if item.kind else b"",
            *(_time(b"\x39", item.start_time_unix_nano), _time(b"\x41", item.end_time_unix_nano)),
            *(_pairs(9, item.attributes), status),
            b"\x85\x01" + struct.pack("<I", item.flags) if item.flags else b"",
        )
    )


def _pairs(number: int, pairs: Sequence[_Pair]) -> bytes:
    return b"".join(
        [_field(number, _text(1, pair.key) + _field(2, _value(pair.value))) for pair in pairs]
    )


def _value(value: _Value) -> bytes:
    out = b""
    if value.string_value is not None:
        out += _field(1, value.string_value.encode())
    if value.bool_value is not None:
        out += b"\x10\x01" if value.bool_value else b"\x10\x00"
    if value.int_value is not None:
        number = _integer(value.int_value)
        if not -(1 << 63) <= number < 1 << 63:
            raise NotPlain
        out += b"\x18" + write_varint(number % (1 << 64))
    if value.double_value is not None:
        out += b"\x21" + struct.pack("<d", value.double_value)
    given = (value.string_value, value.bool_value, value.int_value, value.double_value)
    if given.count(None) < 3:
        raise NotPlain  # more than one
    return out


def _id(number: int, text: str) -> bytes:
    return _field(number, binascii.unhexlify(text)) if text else b""


def _time(tag: bytes, time: _Integer) -> bytes:
    number = _integer(time)
    return tag + number.to_bytes(8, "little") if number else b""


def _integer(value: _Integer) -> int:
    if isinstance(value, int):
        return value
    if not (value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 20):
        raise NotPlain
    return int(value)


def _positive(number: int) -> int:
    if not 0 <= number < 1 << 31:
        raise NotPlain
    return number


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode()) if text else b""


def _field(number: int, data: bytes) -> bytes:
    size = len(data)
    if size < 128:
        return bytes((number << 3 | 2, size)) + data
    return bytes((number << 3 | 2,)) + write_varint(size) + data

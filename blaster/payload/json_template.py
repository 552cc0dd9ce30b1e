"""The JSON template: the same traces as a Template's, as OTLP's JSON, and the slots in it.

The protobuf bytes of each variant are walked by the messages' descriptors and written as JSON; what
a slot filled there is filled here, with digits. The encoding is OTLP's own
(https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): proto3's JSON with names in
lowerCamelCase, enums as integers, 64-bit integers as strings, and the IDs of traces and spans in
hexadecimal digits.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import replace

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from blaster.otlp.wire_format import Field, fields, read_varint
from blaster.payload.template import (
    DIGITS,
    END,
    START,
    TIME_DIGITS,
    Frame,
    Slot,
    Template,
    TextFraming,
    Variant,
)

_IDS = frozenset(["trace_id", "span_id", "parent_span_id"])
_QUOTED = frozenset(
    [
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    ]
)
_SIGNED = frozenset(
    [FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM]
)


def json_template(template: Template) -> Template:
    """The same template, in JSON; its numbers and its variants' entries and draws stay."""
    framings: list[TextFraming] = []
    for framing in template.framings:
        if not framing:
            framings.append((b'{"resourceSpans":[', b"]}"))
        else:
            framings.append(_framing(*framing))
    # Without frames a variant holds whole ResourceSpans, within them its spans alone.
    element = ResourceSpans.DESCRIPTOR if template.framings == ((),) else Span.DESCRIPTOR
    variants = tuple(_variant(variant, element) for variant in template.variants)
    return template._replace(framings=tuple(framings), variants=variants)


def _framing(resource: Frame, scope: Frame) -> TextFraming:
    """What the frames of a resource and of a scope hold, up to the list of spans, and the end."""
    head = b'{"resourceSpans":[{' + _members(resource.prefix, ResourceSpans.DESCRIPTOR)
    head += b'"scopeSpans":[{' + _members(scope.prefix, ScopeSpans.DESCRIPTOR) + b'"spans":['
    return head, b"]}]}]}"


def _members(data: bytes, descriptor: Descriptor) -> bytes:
    """The members of a message, each with the comma that follows it."""
    writer = _Writer(data, ())
    writer.message(0, len(data), descriptor)
    inside = bytes(writer.out[1:-1])
    return inside + b"," if inside else b""


def _variant(variant: Variant, element: Descriptor) -> Variant:
    """The messages of the variant, a comma before each."""
    writer = _Writer(variant.data, variant.slots)
    for field in fields(variant.data):
        writer.out += b","
        writer.message(field.start, field.end, element)
    if len(writer.slots) != len(variant.slots):
        raise ValueError("a slot lies in no field that JSON has")
    slots = tuple(sorted(writer.slots))
    return replace(variant, data=bytes(writer.out), slots=slots, text=True)


class _Writer:
    """Writes messages of ``data`` into ``out``; ``slots``: those of ``data``, as they lie there."""

    def __init__(self, data: bytes, slots: Iterable[Slot]) -> None:
        self._data = data
        self._given = {slot.offset: slot for slot in slots}
        self.out = bytearray()
        self.slots: list[Slot] = []

    def message(self, start: int, end: int, descriptor: Descriptor) -> None:
        by_number: dict[int, list[Field]] = {}
        for field in fields(self._data, start, end):
            by_number.setdefault(field.number, []).append(field)
        self.out += b"{"
        separator = b""
        for number, found in by_number.items():
            member = descriptor.fields_by_number.get(number)
            if member is None:
                continue
            self.out += separator + json.dumps(member.json_name).encode() + b":"
            separator = b","
            if not _is_repeated(member):
                self._value(found[-1], member)
                continue
            self.out += b"["
            for index, field in enumerate(found):
                self.out += b"," if index else b""
                self._value(field, member)
            self.out += b"]"
        self.out += b"}"

    def _value(self, field: Field, member: FieldDescriptor) -> None:
        kind = member.type
        if kind == FieldDescriptor.TYPE_MESSAGE:
            assert member.message_type is not None
            self.message(field.start, field.end, member.message_type)
        elif kind == FieldDescriptor.TYPE_STRING:
            self._string(field)
        elif kind == FieldDescriptor.TYPE_BYTES and member.name in _IDS:
            self._id(field)
        elif kind == FieldDescriptor.TYPE_BYTES:
            self.out += b'"' + base64.b64encode(self._data[field.start : field.end]) + b'"'
        elif kind == FieldDescriptor.TYPE_DOUBLE:
            self.out += _double(*struct.unpack("<d", self._data[field.start : field.end]))
        elif field.start in self._given:
            # Of the numbers only times have slots.
            self._place(field.start, (START, END), self.out, 1, TIME_DIGITS)
            self.out += b'"' + b"0" * TIME_DIGITS + b'"'
        else:
            text = str(self._number(field, kind)).encode()
            if kind == FieldDescriptor.TYPE_BOOL:
                text = b"false" if text == b"0" else b"true"
            self.out += b'"' + text + b'"' if kind in _QUOTED else text

    def _number(self, field: Field, kind: int) -> int:
        raw = self._data[field.start : field.end]
        if kind in (FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_FIXED32):
            return int.from_bytes(raw, "little")
        if kind in (FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_SFIXED32):
            return int.from_bytes(raw, "little", signed=True)
        value, _ = read_varint(self._data, field.start, field.end)
        return value - (1 << 64) if kind in _SIGNED and value >= 1 << 63 else value

    def _id(self, field: Field) -> None:
        self.out += b'"'
        for at in range(field.start, field.end):
            if at in self._given:
                self._place(at, None, self.out, 0, 16)
            self.out += b"%02x" % self._data[at]
        self.out += b'"'

    def _string(self, field: Field) -> None:
        """The text, in pieces: what stands before a slot may grow when it is escaped."""
        self.out += b'"'
        begin = field.start
        for at in range(field.start, field.end):
            if at in self._given:
                self.out += _escaped(self._data[begin:at])
                begin = at
                self._place(at, (DIGITS,), self.out, 0, self._given[at].width)
        self.out += _escaped(self._data[begin : field.end]) + b'"'

    def _place(
        self, at: int, columns: tuple[int, ...] | None, out: bytearray, ahead: int, width: int
    ) -> None:
        """Notes that the slot at ``at`` of the data comes next in ``out``, as so many digits."""
        given = self._given[at]
        if columns is not None and given.column not in columns:
            raise ValueError(f"a slot of column {given.column} where none can be")
        self.slots.append(
            Slot(len(out) + ahead, width, given.column, _shift(given.column, given.shift))
        )


def _is_repeated(member: FieldDescriptor) -> bool:
    # protobuf 5 has the label alone, 7 the property alone.
    found: bool | None = getattr(member, "is_repeated", None)
    return getattr(member, "label", 0) == 3 if found is None else found


def _shift(column: int, shift: int) -> int:
    """The shift of binary words as that of their digits."""
    if column in (START, END):
        return shift // 8 * TIME_DIGITS
    return shift if column == DIGITS else 2 * shift


def _escaped(text: bytes) -> bytes:
    return json.dumps(text.decode(), ensure_ascii=False)[1:-1].encode()


def _double(value: float) -> bytes:
    if math.isnan(value):
        return b'"NaN"'
    if math.isinf(value):
        return b'"Infinity"' if value > 0 else b'"-Infinity"'
    return json.dumps(value).encode()

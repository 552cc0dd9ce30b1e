"""Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/).

Bounds are checked at every step: the bytes may come from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, LENGTH_DELIMITED, START_GROUP, END_GROUP, FIXED32 = range(6)

MAX_GROUPS = 100
"""Groups within each other: protobuf's decoders take no more."""


class Field(NamedTuple):
    """One field: its number, its wire type, the offset of its tag, and those of its value."""

    number: int
    wire_type: int
    tag: int
    start: int
    end: int


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the varint at ``at`` and the offset after it. Raises ValueError if it does not end."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"byte {at}: a varint does not end")


def write_varint(value: int) -> bytes:
    """Return ``value`` (0 or more) as a varint of the fewest bytes."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_field(number: int, value: int) -> bytes:
    """Return the field ``number`` (below 16) with a varint."""
    return bytes((number << 3 | VARINT,)) + write_varint(value)


def length_delimited(number: int, data: bytes) -> bytes:
    """Return the field ``number`` (below 16) with a string, bytes or a message."""
    size = len(data)
    if size < 0x80:
        return bytes((number << 3 | LENGTH_DELIMITED, size)) + data
    return bytes((number << 3 | LENGTH_DELIMITED,)) + write_varint(size) + data


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Iterate over the fields of the message in ``data[start:end]``. Raises ValueError on malformed
    bytes."""
    end = len(data) if end is None else end
    at = start
    while at < end:
        tag_at = at
        tag, at = read_varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        value_at = at
        if wire_type == VARINT:
            _, at = read_varint(data, at, end)
        elif wire_type == FIXED64:
            at += 8
        elif wire_type == FIXED32:
            at += 4
        elif wire_type == LENGTH_DELIMITED:
            length, value_at = read_varint(data, at, end)
            at = value_at + length
        elif wire_type == START_GROUP:
            at = _end_of_group(data, at, end, number)
        else:
            raise ValueError(f"byte {tag_at}: wire type {wire_type} has no place here")
        if number == 0 or at > end:
            raise ValueError(f"byte {tag_at}: field {number} does not fit into its message")
        yield Field(number, wire_type, tag_at, value_at, at)


def _end_of_group(data: bytes, start: int, end: int, number: int) -> int:
    """The offset after a group, which OTLP has none of: an unknown field."""
    at, open_groups = start, [number]
    while open_groups:
        tag, at = read_varint(data, at, end)
        wire_type = tag & 7
        if wire_type == START_GROUP and len(open_groups) < MAX_GROUPS:
            open_groups.append(tag >> 3)
        elif wire_type == END_GROUP and tag >> 3 == open_groups[-1]:
            open_groups.pop()
        elif wire_type == VARINT:
            _, at = read_varint(data, at, end)
        elif wire_type == LENGTH_DELIMITED:
            length, at = read_varint(data, at, end)
            at += length
        elif wire_type in (FIXED64, FIXED32):
            at += 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"byte {at}: a group does not end as it should")
    return at

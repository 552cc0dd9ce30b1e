"""OTLP as protobuf: one message, or many with their lengths before them.

A file of one ExportTraceServiceRequest or TracesData is read block by block: each is nothing but
ResourceSpans at field 1. The Collector's file exporter, told ``format: proto``, writes each message
after its length in 4 bytes, big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster.otlp.malformed import Malformed
from blaster.otlp.wire_format import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, fields

MAX_DEPTH = 100
"""Messages within each other: protobuf's decoders take no more."""

FIRST_BYTE = ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER << 3 | LENGTH_DELIMITED

_LENGTH = struct.Struct(">I")
_WIDTHS = {FIXED64: 8, FIXED32: 4}


def frame(message: bytes) -> bytes:
    """``message`` with its length before it."""
    return _LENGTH.pack(len(message)) + message


def framed(file: BinaryIO, most: int) -> Iterator[tuple[int, bytes]]:
    """The offset and bytes of each message in a file of messages with lengths, one at a time.

    Malformed, with the offset, for one that is cut short or longer than ``most`` bytes.
    """
    at = file.tell()
    while prefix := file.read(_LENGTH.size):
        if len(prefix) < _LENGTH.size:
            raise Malformed(f"byte {at}: cut short: {len(prefix)} of a length's 4 bytes")
        (length,) = _LENGTH.unpack(prefix)
        yield at + _LENGTH.size, _take(file, at, length, most)
        at += _LENGTH.size + length


def blocks(file: BinaryIO, most: int) -> Iterator[tuple[int, bytes]]:
    """The offset and bytes of each top-level field of a message, its tag included, one at a time.

    Each is a request of its own. Malformed as in :func:`framed`.
    """
    at = file.tell()
    while first := file.read(1):
        tag, head = _varint(file, at, first)
        if tag & 7 == LENGTH_DELIMITED:
            length, more = _varint(file, at, file.read(1))
            head += more
        elif tag & 7 == VARINT:
            head += _varint(file, at, file.read(1))[1]
            length = 0
        elif tag & 7 in _WIDTHS:
            length = _WIDTHS[tag & 7]
        else:
            raise Malformed(f"byte {at}: not OTLP: wire type {tag & 7} has no place here")
        yield at, head + _take(file, at, length, most)
        at += len(head) + length


def _take(file: BinaryIO, at: int, length: int, most: int) -> bytes:
    if length > most:
        raise Malformed(f"byte {at}: a message of {length:,} bytes: must be at most {most:,}")
    data = file.read(length)
    if len(data) < length:
        raise Malformed(f"byte {at}: cut short: {len(data):,} of {length:,} bytes")
    return data


def _varint(file: BinaryIO, at: int, first: bytes) -> tuple[int, bytes]:
    data = first
    while data and data[-1] >= 0x80 and len(data) < 10:
        more = file.read(1)
        if not more:
            break
        data += more
    if not data or data[-1] >= 0x80:
        raise Malformed(f"byte {at}: cut short, or a varint that does not end")
    return sum((byte & 0x7F) << 7 * i for i, byte in enumerate(data)), data


def decode(data: bytes, offset: int = 0) -> ExportTraceServiceRequest:
    """The request in ``data``, which lies at ``offset`` in its file. Malformed, with the offset."""
    try:
        return ExportTraceServiceRequest.FromString(data)
    except DecodeError:
        at, message = _fault(data, 0, len(data), ExportTraceServiceRequest.DESCRIPTOR)
        raise Malformed(f"byte {offset + at}: not OTLP: {message}") from None


def _fault(data: bytes, start: int, end: int, kind: Descriptor, depth: int = 0) -> tuple[int, str]:
    """Where in a message that does not decode the fault lies, and what it is."""
    found = _first_fault(data, start, end, kind, depth)
    return found if found is not None else (start, f"not a {kind.name}")


def _first_fault(
    data: bytes, start: int, end: int, kind: Descriptor, depth: int
) -> tuple[int, str] | None:
    if depth > MAX_DEPTH:
        return start, f"messages within messages, more than {MAX_DEPTH} deep"
    at = start
    try:
        for field in fields(data, start, end):
            at = field.end
            known = kind.fields_by_number.get(field.number)
            if known is None or field.wire_type != LENGTH_DELIMITED:
                continue
            if known.message_type is not None:
                inner = _first_fault(data, field.start, field.end, known.message_type, depth + 1)
                if inner is not None:
                    return inner
            elif known.type == FieldDescriptor.TYPE_STRING:
                try:
                    data[field.start : field.end].decode()
                except UnicodeDecodeError:
                    return field.start, f"{kind.name}.{known.name} is not UTF-8"
    except ValueError:
        return at, f"a {kind.name} with a field that does not fit or does not end"
    return None

"""Captured files: what they are is seen from their first bytes, never from their names.

Read a record at a time, so that memory does not grow with the file: a line of JSON, a message, or
a Jaeger export as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import StrEnum
from typing import BinaryIO, NamedTuple

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster.errors import UsageError
from blaster.otlp.malformed import Malformed, decoded
from blaster.payload.capture import jaeger_json, otlp_proto
from blaster.payload.capture.otlp_json import OtlpJsonReader
from blaster.scenario.toml_file import opened
from blaster.units import in_line, quoted

MAX_FILE_BYTES = 256 << 20
MAX_RECORD_BYTES = 16 << 20
"""The longest line, message or Jaeger export: one made to hurt takes 70 times that of memory."""

_BOM = b"\xef\xbb\xbf"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
_WANTED = "must be OTLP JSON lines, OTLP protobuf or a Jaeger JSON export"


class Format(StrEnum):
    """What a captured file holds."""

    OTLP_JSON = "OTLP JSON lines"
    OTLP_PROTO = "OTLP protobuf"
    OTLP_PROTO_FRAMED = "OTLP protobuf with lengths"
    JAEGER_JSON = "Jaeger JSON"


class Record(NamedTuple):
    """One record: its file's format, where it stands (``FILE:LINE`` or ``FILE: byte N``), and the
    spans in it."""

    format: Format
    place: str
    request: ExportTraceServiceRequest


class _Head(msgspec.Struct):
    """The names that tell a Jaeger export from OTLP; their values are not read yet."""

    data: msgspec.Raw = msgspec.Raw()
    spans: msgspec.Raw = msgspec.Raw()

    @property
    def layout(self) -> jaeger_json.Layout | None:
        """The layout of a Jaeger export; None for OTLP."""
        if bytes(self.data):
            return jaeger_json.Layout.EXPORT
        return jaeger_json.Layout.TRACE if bytes(self.spans) else None


_HEAD = msgspec.json.Decoder(_Head)


def records(path: str) -> Iterator[Record]:
    """The records of the captured file ``path``. UsageError in one line: file, place, fault."""
    shown = in_line(path)
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise UsageError(
                f"{shown}: {size:,} bytes: must be at most {MAX_FILE_BYTES:,}: cut it at a "
                "record's end"
            )
        yield from _records(file, shown)


def _records(file: BinaryIO, shown: str) -> Iterator[Record]:
    head = file.read(64)
    for magic, name in _PACKED.items():
        if head.startswith(magic):
            raise UsageError(f"{shown}: compressed with {name}: unpack it first")
    if not head:
        raise UsageError(f"{shown}: empty: {_WANTED}")
    start = len(_BOM) if head.startswith(_BOM) else 0
    file.seek(start)
    if head[0] < otlp_proto.FIRST_BYTE:
        # The first byte of a length below 160 MiB.
        yield from _messages(file, shown, Format.OTLP_PROTO_FRAMED)
    elif head[start:].lstrip().startswith(b"["):
        yield _document(file, shown, OtlpJsonReader())
    elif head[start:].lstrip().startswith(b"{") or not head[start:].strip():
        yield from _json(file, shown)
    elif head[0] == otlp_proto.FIRST_BYTE:
        yield from _messages(file, shown, Format.OTLP_PROTO)
    else:
        raise UsageError(f"{shown}: begins with {quoted(head[:8])}: {_WANTED}")


def _messages(file: BinaryIO, shown: str, kind: Format) -> Iterator[Record]:
    cut = otlp_proto.framed if kind is Format.OTLP_PROTO_FRAMED else otlp_proto.blocks
    try:
        for offset, data in cut(file, MAX_RECORD_BYTES):
            yield Record(kind, f"{shown}: byte {offset}", otlp_proto.decode(data, offset))
    except Malformed as error:
        raise UsageError(f"{shown}: {error}") from None


def _json(file: BinaryIO, shown: str) -> Iterator[Record]:
    """Lines of OTLP, or one document: then its first line is no JSON by itself, or it is the whole
    file."""
    start = file.tell()
    reader = OtlpJsonReader()
    number = 0
    while line := file.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if not line.strip():
            continue
        place = f"{shown}:{number}"
        _check_length(line, place)
        if number == 1 and _is_part_or_export(line):
            file.seek(start)
            yield _document(file, shown, reader)
            return
        try:
            yield Record(Format.OTLP_JSON, place, reader.decode(line))
        except Malformed as error:
            raise UsageError(f"{place}: {error}") from None


def _is_part_or_export(line: bytes) -> bool:
    try:
        return decoded(_HEAD, line).layout is not None
    except Malformed:
        return True


def _document(file: BinaryIO, shown: str, reader: OtlpJsonReader) -> Record:
    text = file.read(MAX_RECORD_BYTES + 1)
    _check_length(text, shown)
    try:
        if text.lstrip().startswith(b"["):
            layout: jaeger_json.Layout | None = jaeger_json.Layout.TRACES
        else:
            layout = decoded(_HEAD, text).layout
        if layout is None:
            return Record(Format.OTLP_JSON, shown, reader.decode(text))
        return Record(Format.JAEGER_JSON, shown, jaeger_json.decode(text, layout))
    except Malformed as error:
        raise UsageError(f"{shown}: {error}") from None


def _check_length(text: bytes, place: str) -> None:
    if len(text) > MAX_RECORD_BYTES:
        raise UsageError(f"{place}: more than {MAX_RECORD_BYTES:,} bytes of JSON in one piece")

"""ExportTraceServiceResponse: how many spans of a request were rejected, and why.

https://opentelemetry.io/docs/specs/otlp/#partial-success
"""

from __future__ import annotations

import json
from typing import NamedTuple

import msgspec

from blaster.otlp.wire_format import (
    LENGTH_DELIMITED,
    VARINT,
    fields,
    length_delimited,
    read_varint,
    varint_field,
)

_PARTIAL_SUCCESS, _REJECTED, _ERROR_MESSAGE = 1, 1, 2


class PartialSuccess(NamedTuple):
    """Spans that were rejected (0: none), and a message."""

    rejected: int = 0
    message: str = ""


def encode(partial: PartialSuccess) -> bytes:
    """Return the response in protobuf."""
    inner = varint_field(_REJECTED, partial.rejected)
    inner += length_delimited(_ERROR_MESSAGE, partial.message.encode())
    return length_delimited(_PARTIAL_SUCCESS, inner)


def encode_json(partial: PartialSuccess) -> bytes:
    """Return the response in JSON."""
    inner = {"rejectedSpans": str(partial.rejected), "errorMessage": partial.message}
    return json.dumps({"partialSuccess": inner}).encode()


def decode(body: bytes) -> PartialSuccess:
    """Return the partial success of a response in protobuf. Raises ValueError for what is none."""
    rejected, message = 0, ""
    for outer in fields(body):
        if (outer.number, outer.wire_type) != (_PARTIAL_SUCCESS, LENGTH_DELIMITED):
            continue
        for field in fields(body, outer.start, outer.end):
            if (field.number, field.wire_type) == (_REJECTED, VARINT):
                rejected, _ = read_varint(body, field.start, field.end)
                rejected -= 1 << 64 if rejected >= 1 << 63 else 0
            elif (field.number, field.wire_type) == (_ERROR_MESSAGE, LENGTH_DELIMITED):
                message = body[field.start : field.end].decode("utf-8", "replace")
    return PartialSuccess(rejected, message)


class _Partial(msgspec.Struct, rename="camel"):
    rejected_spans: int | str = 0
    error_message: str = ""


class _Response(msgspec.Struct, rename="camel"):
    partial_success: _Partial | None = None


_JSON_DECODER = msgspec.json.Decoder(_Response)


def decode_json(body: bytes) -> PartialSuccess:
    """Return the partial success of a response in JSON. Raises ValueError for what is none."""
    try:
        partial = _JSON_DECODER.decode(body).partial_success
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if partial is None:
        return PartialSuccess()
    return PartialSuccess(int(partial.rejected_spans), partial.error_message)

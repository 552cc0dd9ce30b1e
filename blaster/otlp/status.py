"""google.rpc.Status: the error of a gRPC call or of an OTLP/HTTP response, and when to retry.

https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto and error_details.proto
"""

from __future__ import annotations

import json
from enum import IntEnum

import msgspec

from blaster.otlp.wire_format import (
    LENGTH_DELIMITED,
    VARINT,
    Field,
    fields,
    length_delimited,
    read_varint,
    varint_field,
)

DETAILS_TRAILER = "grpc-status-details-bin"
"""The trailer of gRPC that carries a Status with its details."""

_CODE, _MESSAGE, _DETAILS = 1, 2, 3
_TYPE_URL, _VALUE = 1, 2
_RETRY_DELAY, _SECONDS, _NANOS = 1, 1, 2
_TYPE = b"/google.rpc.RetryInfo"
_MAX_NS = (1 << 63) - 1


class Code(IntEnum):
    """google.rpc.Code: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto"""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


def encode(code: int, message: str = "", *, retry_ns: int | None = None) -> bytes:
    """Return a Status, with RetryInfo if ``retry_ns`` is given."""
    status = varint_field(_CODE, code)
    if message:
        status += length_delimited(_MESSAGE, message.encode())
    if retry_ns is not None:
        seconds, nanos = divmod(retry_ns, 10**9)
        delay = varint_field(_SECONDS, seconds) + (varint_field(_NANOS, nanos) if nanos else b"")
        info = length_delimited(_RETRY_DELAY, delay)
        detail = length_delimited(_TYPE_URL, b"type.googleapis.com" + _TYPE) + length_delimited(
            _VALUE, info
        )
        status += length_delimited(_DETAILS, detail)
    return status


def encode_json(code: int, message: str) -> bytes:
    """Return a Status as JSON."""
    return json.dumps({"code": code, "message": message}).encode()


def message(status: bytes) -> str:
    """Return the message of a Status. Raises ValueError on malformed bytes."""
    return "".join(
        status[field.start : field.end].decode("utf-8", "replace")
        for field in fields(status)
        if (field.number, field.wire_type) == (_MESSAGE, LENGTH_DELIMITED)
    )


class _JsonStatus(msgspec.Struct):
    message: str = ""


_JSON_DECODER = msgspec.json.Decoder(_JsonStatus)


def message_in_json(status: bytes) -> str:
    """Return the message of a Status in JSON. Raises ValueError for what is none."""
    try:
        return _JSON_DECODER.decode(status).message
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None


def retry_delay(status: bytes) -> int:
    """Return the nanoseconds of a Status' RetryInfo; -1 if it has none or it is invalid."""
    try:
        for detail in fields(status):
            if (detail.number, detail.wire_type) == (_DETAILS, LENGTH_DELIMITED):
                parts = {f.number: f for f in fields(status, detail.start, detail.end)}
                url, value = parts.get(_TYPE_URL), parts.get(_VALUE)
                if url is not None and status[url.start : url.end].endswith(_TYPE):
                    return 0 if value is None else _delay(status, value)
    except ValueError:
        pass
    return -1


def _delay(status: bytes, info: Field) -> int:
    for field in fields(status, info.start, info.end):
        if (field.number, field.wire_type) == (_RETRY_DELAY, LENGTH_DELIMITED):
            parts = {
                f.number: read_varint(status, f.start, f.end)[0]
                for f in fields(status, field.start, field.end)
                if f.wire_type == VARINT
            }
            seconds, nanos = parts.get(_SECONDS, 0), parts.get(_NANOS, 0)
            # A negative number is a varint of 2^63 and more.
            if seconds >= 1 << 63 or nanos >= 10**9:
                return -1
            return min(seconds * 10**9 + nanos, _MAX_NS)
    return 0

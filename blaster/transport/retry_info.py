"""RetryInfo: after which time a gRPC peer wants a request again.

It comes as a detail of google.rpc.Status, in the trailer STATUS_DETAILS:
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
"""

from __future__ import annotations

from blaster.otlp.wire_format import LENGTH_DELIMITED, VARINT, Field, fields, read_varint

STATUS_DETAILS = "grpc-status-details-bin"
_TYPE = b"/google.rpc.RetryInfo"
_DETAILS, _TYPE_URL, _VALUE, _RETRY_DELAY, _SECONDS, _NANOS = 3, 1, 2, 1, 1, 2
_MAX_NS = (1 << 63) - 1


def retry_delay(status: bytes) -> int:
    """The nanoseconds in the RetryInfo of a serialised google.rpc.Status; -1: there is none, or it
    makes no sense."""
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

"""What a response of OTLP/HTTP says of a request's spans.

https://opentelemetry.io/docs/specs/otlp/#otlphttp-response
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec

from blaster.otlp.wire_format import LENGTH_DELIMITED, VARINT, fields, read_varint
from blaster.transport.base import Status
from blaster.transport.http_response import Response

CONTENT_TYPES = {
    "protobuf": b"application/x-protobuf",
    "json": b"application/json",
    "betrace": b"application/json",
}

MAX_DELAY_S = 10**9

# ExportTraceServiceResponse, ExportTracePartialSuccess and google.rpc.Status.
_PARTIAL_SUCCESS, _REJECTED, _ERROR_MESSAGE, _STATUS_MESSAGE = 1, 1, 2, 2


class Answer(NamedTuple):
    """``rejected``: spans, of a partial success. ``delay``: nanoseconds after which the peer wants
    the request again (Retry-After); -1: it did not say."""

    status: int
    rejected: int
    message: str
    delay: int


class _PartialSuccess(msgspec.Struct):
    rejectedSpans: int | str = 0
    errorMessage: str = ""


class _JsonResponse(msgspec.Struct):
    partialSuccess: _PartialSuccess | None = None


class _BetraceResponse(msgspec.Struct):
    accepted: int | str
    rejected: int | str = 0
    errors: list[str] = []


class _JsonStatus(msgspec.Struct):
    message: str = ""


def read_answer(response: Response, spans: int, encoding: str) -> Answer:
    """What became of a request of so many spans that was sent in ``encoding``.

    Any status but 2xx is an answer: the spans failed. A 2xx that does not say so in OTLP's terms is
    INVALID_RESPONSE: nobody knows what became of them.
    """
    if not 200 <= response.status < 300:
        return Answer(response.status, 0, _error_message(response, encoding), retry_after(response))
    if not response.body:
        return Answer(Status.OK, 0, "", -1)
    kind = _content_type(response)
    if not kind:
        kind = CONTENT_TYPES[encoding]
    if b"content-encoding" in response.fields or kind not in CONTENT_TYPES.values():
        return _invalid(f"the answer is {kind.decode('latin-1')[:80]}, encoded or not OTLP's")
    try:
        if encoding == "betrace":
            rejected, message = _betrace_rejected(response.body, spans)
        elif kind == CONTENT_TYPES["json"]:
            rejected, message = _json_partial_success(response.body)
        else:
            rejected, message = _partial_success(response.body)
    except ValueError:
        return _invalid("the answer is not an ExportTraceServiceResponse")
    if not 0 <= rejected <= spans:
        return _invalid(f"the answer rejects {rejected} of {spans} spans")
    return Answer(Status.OK, rejected, message, -1)


def retry_after(response: Response) -> int:
    """Retry-After in nanoseconds from now: seconds or a date (RFC 9110, 10.2.3); -1: there is none,
    or it makes no sense."""
    text = response.fields.get(b"retry-after", b"").decode("latin-1")
    if text.isascii() and text.isdigit():
        return min(int(text[:12]), MAX_DELAY_S) * 10**9
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, IndexError, OverflowError):
        return -1
    return round(max(0.0, min(seconds, MAX_DELAY_S)) * 1e9)


def _invalid(message: str) -> Answer:
    return Answer(Status.INVALID_RESPONSE, 0, message, -1)


def _content_type(response: Response) -> bytes:
    return response.fields.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _partial_success(body: bytes) -> tuple[int, str]:
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
    return rejected, message


def _json_partial_success(body: bytes) -> tuple[int, str]:
    try:
        partial = msgspec.json.decode(body, type=_JsonResponse).partialSuccess
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if partial is None:
        return 0, ""
    return int(partial.rejectedSpans), partial.errorMessage


def _betrace_rejected(body: bytes, spans: int) -> tuple[int, str]:
    """What BeTrace's own ingest says: {accepted, rejected, errors}, which must add up."""
    try:
        said = msgspec.json.decode(body, type=_BetraceResponse)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if int(said.accepted) + int(said.rejected) != spans:
        raise ValueError("what was accepted and what was rejected are not what was sent")
    return int(said.rejected), "; ".join(said.errors[:3])


def _error_message(response: Response, encoding: str) -> str:
    """The message of the google.rpc.Status that the body should be, or the body's own words."""
    kind = _content_type(response) or CONTENT_TYPES[encoding]
    said = ""
    try:
        if kind == CONTENT_TYPES["json"]:
            said = msgspec.json.decode(response.body, type=_JsonStatus).message
        elif kind == CONTENT_TYPES["protobuf"]:
            said = "".join(
                response.body[field.start : field.end].decode("utf-8", "replace")
                for field in fields(response.body)
                if (field.number, field.wire_type) == (_STATUS_MESSAGE, LENGTH_DELIMITED)
            )
    except (ValueError, msgspec.MsgspecError, RecursionError):
        pass
    if not said and kind.startswith(b"text/"):
        said = response.body[:300].decode("utf-8", "replace")
    if not said and 300 <= response.status < 400:
        said = "redirects, which are not followed"
    return "".join(c if c.isprintable() else " " for c in said)

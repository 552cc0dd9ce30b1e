"""The meaning of an OTLP/HTTP response for the spans of its request.

https://opentelemetry.io/docs/specs/otlp/#otlphttp-response
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec

from blaster.otlp import response as otlp_response
from blaster.otlp import status
from blaster.otlp.response import PartialSuccess
from blaster.transport.base import Status
from blaster.transport.http_response import Response

CONTENT_TYPES = {
    "protobuf": b"application/x-protobuf",
    "json": b"application/json",
    "betrace": b"application/json",
}

MAX_DELAY_S = 10**9


class Answer(NamedTuple):
    """The outcome of a request. ``rejected``: the spans that a partial success rejects. ``delay``:
    nanoseconds after which the peer wants the request again (Retry-After); -1: none."""

    status: int
    rejected: int
    message: str
    delay: int


class _BetraceResponse(msgspec.Struct):
    accepted: int | str
    rejected: int | str = 0
    errors: list[str] = []


def read_answer(response: Response, spans: int, encoding: str) -> Answer:
    """Return the outcome of a request of ``spans`` spans that was sent in ``encoding``.

    With any status but 2xx the spans failed. A 2xx whose body is not OTLP's is INVALID_RESPONSE:
    whether the spans were accepted is unknown.
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
            rejected, message = otlp_response.decode_json(response.body)
        else:
            rejected, message = otlp_response.decode(response.body)
    except ValueError:
        return _invalid("the answer is not an ExportTraceServiceResponse")
    if not 0 <= rejected <= spans:
        return _invalid(f"the answer rejects {rejected} of {spans} spans")
    return Answer(Status.OK, rejected, message, -1)


def retry_after(response: Response) -> int:
    """Retry-After in nanoseconds from now: seconds or a date (RFC 9110, 10.2.3); -1: none, or
    invalid."""
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


def _betrace_rejected(body: bytes, spans: int) -> PartialSuccess:
    """The answer of BeTrace's own ingest: {accepted, rejected, errors}, which must add up."""
    try:
        answer = msgspec.json.decode(body, type=_BetraceResponse)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if int(answer.accepted) + int(answer.rejected) != spans:
        raise ValueError("accepted and rejected spans do not add up to those sent")
    return PartialSuccess(int(answer.rejected), "; ".join(answer.errors[:3]))


def _error_message(response: Response, encoding: str) -> str:
    """The message of the body's google.rpc.Status, or the beginning of a text body."""
    kind = _content_type(response) or CONTENT_TYPES[encoding]
    said = ""
    try:
        if kind == CONTENT_TYPES["json"]:
            said = status.message_in_json(response.body)
        elif kind == CONTENT_TYPES["protobuf"]:
            said = status.message(response.body)
    except ValueError:
        pass
    if not said and kind.startswith(b"text/"):
        said = response.body[:300].decode("utf-8", "replace")
    if not said and 300 <= response.status < 400:
        where = response.fields.get(b"location", b"").decode("latin-1")
        said = f"it redirects to {where or 'nowhere'}; redirects are not followed"
    return "".join(c if c.isprintable() else " " for c in said)

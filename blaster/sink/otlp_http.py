"""OTLP/HTTP without HTTP: what a request is answered, and its message.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: POST /v1/traces; the answer has the request's
content type; an error's body is a google.rpc.Status.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from blaster.otlp.wire_format import write_varint
from blaster.sink.inflate import TooLarge, Unknown, inflate
from blaster.sink.otlp_json import to_protobuf

PATH = b"/v1/traces"
PROTOBUF, JSON = "application/x-protobuf", "application/json"

INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = 3, 8, 12, 14
"""Codes of google.rpc.Status."""


@dataclass(slots=True)
class Request:
    """One request, as far as OTLP asks for it."""

    method: bytes = b""
    path: bytes = b""
    content_type: str = ""
    encoding: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. ``close``: the connection ends with it."""

    status: int
    content_type: str = PROTOBUF
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


ACCEPTED = Answer(200)
ACCEPTED_JSON = Answer(200, JSON, b"{}")


class Refused(Exception):
    """A request that carries no message; ``answer`` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def accepted(content_type: str) -> Answer:
    """All was accepted."""
    return ACCEPTED_JSON if content_type == JSON else ACCEPTED


def partly_accepted(content_type: str, rejected: int, why: str) -> Answer:
    """An ExportTraceServiceResponse with its partial_success."""
    if content_type == JSON:
        body = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": why}}
        return Answer(200, JSON, json.dumps(body).encode())
    return Answer(200, PROTOBUF, partial_success(rejected, why))


def error(
    status: int,
    code: int,
    message: str,
    content_type: str = PROTOBUF,
    *headers: tuple[str, str],
    close: bool = False,
) -> Answer:
    """A response with a google.rpc.Status."""
    if content_type == JSON:
        body = json.dumps({"code": code, "message": message}).encode()
    else:
        body = b"\x08" + write_varint(code) + _text(2, message)
        content_type = PROTOBUF
    return Answer(status, content_type, body, headers, close)


def partial_success(rejected: int, why: str) -> bytes:
    """ExportTraceServiceResponse.partial_success = 1 {rejected_spans = 1; error_message = 2}."""
    inside = b"\x08" + write_varint(rejected) + _text(2, why)
    return b"\x0a" + write_varint(len(inside)) + inside


def _text(field: int, text: str) -> bytes:
    data = text.encode()
    return bytes([field << 3 | 2]) + write_varint(len(data)) + data


def check_head(request: Request) -> None:
    """Raises Refused for what no body could make good."""
    if request.path.partition(b"?")[0] != PATH:
        raise Refused(error(404, UNIMPLEMENTED, "nothing here; there is /v1/traces"))
    if request.method != b"POST":
        raise Refused(error(405, UNIMPLEMENTED, "only POST", PROTOBUF, ("Allow", "POST")))
    if request.content_type not in (PROTOBUF, JSON):
        raise Refused(error(415, INVALID_ARGUMENT, f"Content-Type: {PROTOBUF} or {JSON}"))


def message_of(request: Request, limit: int) -> bytes:
    """The bytes of the ExportTraceServiceRequest; whether they are one is the scanner's to say.

    Raises Refused when there are none, or more than ``limit``.
    """
    kind = request.content_type
    try:
        data = inflate(request.encoding, request.body, limit)
    except TooLarge:
        raise Refused(too_large(kind)) from None
    except Unknown:
        why = "Content-Encoding: it is not known here"
        raise Refused(
            error(415, INVALID_ARGUMENT, why, kind, ("Accept-Encoding", "gzip"))
        ) from None
    except ValueError as reason:
        raise Refused(error(400, INVALID_ARGUMENT, str(reason), kind)) from None
    return data


def protobuf_of(request: Request, data: bytes) -> bytes:
    """The message in protobuf. Raises ValueError when it is JSON and no such message."""
    return to_protobuf(data) if request.content_type == JSON else data


def too_large(content_type: str = PROTOBUF, *, close: bool = False) -> Answer:
    """The message is longer than the limit."""
    why = "the message is larger than the receiver allows"
    return error(413, RESOURCE_EXHAUSTED, why, content_type, close=close)

"""OTLP/HTTP without HTTP: what a request is answered, and its message.

https://opentelemetry.io/docs/specs/otlp/#otlphttp: POST /v1/traces; the answer has the request's
content type; an error's body is a google.rpc.Status.
"""

from __future__ import annotations

from dataclasses import dataclass

from blaster.otlp import response, status
from blaster.otlp.response import PartialSuccess
from blaster.otlp.status import Code
from blaster.sink.inflate import TooLarge, Unknown, inflate

PATH = b"/v1/traces"
PROTOBUF, JSON = "application/x-protobuf", "application/json"


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


def partly_accepted(content_type: str, partial: PartialSuccess) -> Answer:
    """An ExportTraceServiceResponse with its partial_success."""
    if content_type == JSON:
        return Answer(200, JSON, response.encode_json(partial))
    return Answer(200, PROTOBUF, response.encode(partial))


def error(
    http_status: int,
    code: Code,
    message: str,
    content_type: str = PROTOBUF,
    *headers: tuple[str, str],
    close: bool = False,
) -> Answer:
    """A response with a google.rpc.Status."""
    if content_type == JSON:
        body = status.encode_json(code, message)
    else:
        body = status.encode(code, message)
        content_type = PROTOBUF
    return Answer(http_status, content_type, body, headers, close)


def check_head(request: Request) -> None:
    """Raises Refused for what no body could make good."""
    if request.path.partition(b"?")[0] != PATH:
        raise Refused(error(404, Code.UNIMPLEMENTED, "nothing here; there is /v1/traces"))
    if request.method != b"POST":
        raise Refused(error(405, Code.UNIMPLEMENTED, "only POST", PROTOBUF, ("Allow", "POST")))
    if request.content_type not in (PROTOBUF, JSON):
        raise Refused(error(415, Code.INVALID_ARGUMENT, f"Content-Type: {PROTOBUF} or {JSON}"))


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
            error(415, Code.INVALID_ARGUMENT, why, kind, ("Accept-Encoding", "gzip"))
        ) from None
    except ValueError as reason:
        raise Refused(error(400, Code.INVALID_ARGUMENT, str(reason), kind)) from None
    return data


def too_large(content_type: str = PROTOBUF, *, close: bool = False) -> Answer:
    """The message is longer than the limit."""
    why = "the message is larger than the receiver allows"
    return error(413, Code.RESOURCE_EXHAUSTED, why, content_type, close=close)

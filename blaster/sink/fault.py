"""Fault: one way in which the sink misbehaves on purpose.

Which spans count as received: of a request that is answered with an error, none: it is thrown away
unread, so that a refused request is never counted. Where only the answer is lost or spoilt (reset,
half-close, garbage, frames, oversize), all: the request was read, and its sender can't know. A
wrong content type refuses a call of gRPC, which then has no status; over HTTP the status says 200,
and the spans count. So accepted <= sink.spans <= accepted + unknown holds for every sender that
books the answers it got.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from blaster.otlp import status

ALL = 1 << 32
"""The share of all requests, and of all spans."""
FOREVER = (1 << 63) - 1

WIRE, GRPC, HTTP = "wire", "grpc", "http"
"""The receivers: OTLP/gRPC native and on grpcio, OTLP/HTTP."""


class Kind(IntEnum):
    """The kinds of fault: enum fault_kind in native/receiver_faults.h."""

    DELAY = 1
    STATUS = 2
    HTTP = 3
    PARTIAL = 4
    FREEZE = 5
    SLOW_READ = 6
    RST = 7
    GOAWAY = 8
    RESET = 9
    REFUSE = 10
    HALF_CLOSE = 11
    GARBAGE = 12
    FRAMES = 13
    OVERSIZE = 14
    CONTENT_TYPE = 15


EVERYWHERE = frozenset((WIRE, GRPC, HTTP))
SOCKETS = frozenset((WIRE, HTTP))

RECEIVERS: Mapping[Kind, frozenset[str]] = {
    Kind.DELAY: EVERYWHERE,
    Kind.STATUS: frozenset((WIRE, GRPC)),
    Kind.HTTP: SOCKETS,
    Kind.PARTIAL: EVERYWHERE,
    Kind.FREEZE: EVERYWHERE,
    Kind.SLOW_READ: SOCKETS,
    Kind.RST: frozenset((WIRE,)),
    Kind.GOAWAY: frozenset((WIRE,)),
    Kind.RESET: SOCKETS,
    Kind.REFUSE: SOCKETS,
    Kind.HALF_CLOSE: SOCKETS,
    Kind.GARBAGE: EVERYWHERE,
    Kind.FRAMES: SOCKETS,
    Kind.OVERSIZE: EVERYWHERE,
    Kind.CONTENT_TYPE: SOCKETS,
}
"""The receivers that can show a fault of each kind."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, as ``text`` specifies it. Times in ns since the first request.

    ``low`` and ``high``: the parameter of the kind: ns (a delay is uniform between them), a code,
    bytes, or a share of the spans, of ALL. ``exponential``: ``low`` is the mean of an exponential
    distribution. ``share`` of the requests, of ALL. ``once``: it meets one request only.
    ``retry_ns``: RetryInfo or Retry-After; ``date``: the latter as a date.
    """

    text: str
    kind: Kind
    low: int = 0
    high: int = 0
    exponential: bool = False
    share: int = ALL
    from_ns: int = 0
    until_ns: int = FOREVER
    once: bool = False
    retry_ns: int | None = None
    date: bool = False

    @property
    def retry_after_s(self) -> int | None:
        """``retry_ns`` in whole seconds, as Retry-After has it."""
        return None if self.retry_ns is None else -(-self.retry_ns // 10**9)

    def status_details(self) -> bytes:
        """google.rpc.Status with the code and, in its details, RetryInfo."""
        return status.encode(self.low, retry_ns=self.retry_ns)

    def row(self) -> tuple[int, int, int, int, int, int, bool, bool, bytes]:
        """The fault as native/receiver_faults.h has it."""
        answer = b""
        if self.retry_ns is not None and self.kind == Kind.STATUS:
            answer = base64.b64encode(self.status_details()).rstrip(b"=")
        elif self.retry_ns is not None:
            answer = str(self.retry_after_s).encode()
        return (
            int(self.kind),
            self.share,
            self.from_ns,
            self.until_ns,
            self.low,
            self.high,
            self.exponential,
            self.once,
            answer,
        )

"""WireTransport sends over HTTP/2 with the C client of ``blaster._wire``."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence

import numpy as np

from blaster import __version__
from blaster._wire import OUTCOME_FIELDS, RAISED_FIELDS, Client
from blaster.errors import TargetUnreachable, UsageError
from blaster.layout import Int64
from blaster.transport.base import (
    EXPORT_METHOD,
    OUTCOME,
    Chunk,
    Framing,
    Outcome,
    Outcomes,
    SendCounts,
)
from blaster.transport.compression import NONE
from blaster.transport.tls import Tls
from blaster.units import quoted

_RAISED = (
    SendCounts.sent_requests,
    SendCounts.sent_spans,
    SendCounts.sent_bytes,
    SendCounts.behind_ns,
    SendCounts.backpressure_ns,
    SendCounts.capped_ns,
)
"""The words that the C client raises, in its order: the first three and the last three in a row."""

if Outcome._fields != OUTCOME_FIELDS or tuple(word.name for word in _RAISED) != RAISED_FIELDS:
    raise ImportError("blaster._wire was built from other sources: build it again")


class WireTransport:
    """A Transport over ``connections`` HTTP/2 connections, paced in C. ``tls``: None for
    plaintext. ``encoding``: the compression of the batches.

    Batches are made right before they are framed and written, so that they are still in the caches
    when the socket copies them. ``send`` returns when the last request of the chunk was offered;
    its bytes may still wait to be written, and a chunk's buffer is in use until they are: see
    :meth:`holds`.
    """

    framing: Framing = "made"

    def __init__(
        self,
        *,
        host: str,
        port: int,
        connections: int,
        in_flight: int,
        timeout_s: float,
        metadata: Sequence[tuple[str, str]],
        tls: Tls | None = None,
        encoding: str = NONE,
        counts: SendCounts,
        stop: Int64,
    ) -> None:
        self._name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        encrypted = None
        if tls is not None:
            encrypted = (host, tls.ca, tls.certificate, tls.key, tls.verify)
        try:
            self._client = Client(
                hosts=_addresses(host, port, self._name),
                port=str(port),
                fields=_fields(self._name, timeout_s, metadata, encoding, tls),
                sent=counts.array(SendCounts.sent_requests, SendCounts.sent_bytes),
                blocked=counts.array(SendCounts.behind_ns, SendCounts.capped_ns),
                stop=stop,
                connections=connections,
                in_flight=in_flight,
                timeout_ns=round(timeout_s * 1e9),
                compressed=encoding != NONE,
                tls=encrypted,
            )
        except ValueError as error:  # a number out of its range, or too much metadata
            raise UsageError(f"{self._name}: {error}") from None

    def connect(self, timeout_s: float) -> None:
        """Opens the connections and exports an empty request on each."""
        reason = self._client.connect(time.monotonic_ns() + round(timeout_s * 1e9))
        if reason is not None:
            raise TargetUnreachable(f"{self._name}: {reason}")

    def send(self, chunk: Chunk, until: int) -> int:
        """Offers the batches of ``chunk`` and returns how many, from the first, were offered."""
        return self._client.send(
            chunk.buffer if chunk.made is None else chunk.made.source,
            chunk.offsets,
            chunk.scheduled,
            chunk.spans,
            until,
            chunk.first,
            chunk.again,
        )

    def holds(self, chunk: Chunk) -> bool:
        """Whether the buffer of ``chunk`` is still in use, and must not be changed."""
        return self._client.holds(chunk.buffer)

    def wait(self, until: int) -> None:
        """Handles answers until CLOCK_MONOTONIC reaches ``until``."""
        self._client.wait(until)

    def drain(self, until: int) -> None:
        """Waits for the answers to all that was sent; at ``until`` the rest is ABANDONED."""
        self._client.drain(until)

    def outcomes(self) -> Outcomes:
        """Takes the Outcomes gathered since the last call."""
        return np.frombuffer(self._client.take(), OUTCOME)

    def in_flight(self) -> int:
        """Requests offered and not yet ended."""
        return self._client.in_flight()

    def messages(self) -> dict[int, str]:
        """The first message that came with each status."""
        return self._client.messages()

    def close(self) -> None:
        """Closes the connections; what is in flight is ABANDONED."""
        self._client.close()


def _addresses(host: str, port: int, name: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetUnreachable(f"{name}: {error.strerror}") from None
    # "addr%scope" where the family has scopes: getaddrinfo has put it into the text.
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))[:16]


def _fields(
    authority: str,
    timeout_s: float,
    metadata: Sequence[tuple[str, str]],
    encoding: str,
    tls: object,
) -> tuple[tuple[bytes, bytes], ...]:
    """The header fields of every request, in the order of gRPC's PROTOCOL-HTTP2.md."""
    fields = [
        (":method", "POST"),
        (":scheme", "http" if tls is None else "https"),
        (":path", EXPORT_METHOD),
        (":authority", authority),
        ("te", "trailers"),
        ("grpc-timeout", _grpc_timeout(timeout_s)),
        ("content-type", "application/grpc"),
        ("user-agent", f"blaster/{__version__}"),
    ]
    if encoding != NONE:
        fields.append(("grpc-encoding", encoding))
    for name, value in metadata:
        # What gRPC allows (PROTOCOL-HTTP2.md, Custom-Metadata), and values of RFC 9110, 5.5.
        if not re.fullmatch(r"(?!grpc-)[0-9a-z_.-]+", name.lower()) or re.search(
            r"[\0\r\n]", value
        ):
            raise UsageError(f"metadata {quoted(name)}: not a name and a value that gRPC can carry")
        fields.append((name.lower(), value.strip(" \t")))
    return tuple((name.encode("ascii"), value.encode()) for name, value in fields)


def _grpc_timeout(timeout_s: float) -> str:
    """At most eight digits, and a unit fine enough to matter (PROTOCOL-HTTP2.md, Timeout)."""
    for unit, scale in (("u", 1_000_000), ("m", 1_000)):
        value = max(1, round(timeout_s * scale))
        if value < 10**8:
            return f"{value}{unit}"
    return f"{min(round(timeout_s), 10**8 - 1)}S"

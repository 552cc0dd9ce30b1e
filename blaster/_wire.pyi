"""HTTP/2 for OTLP over gRPC: the wire transport's client and the sink's receiver."""

from typing import TypedDict, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

from blaster._native import ScanCounts

TLS: int
"""1 where it was built with OpenSSL: the client can encrypt then."""

ZSTD: int
"""1 where it was built with libzstd: it takes zstd then, else only gzip."""

OUTCOME_FIELDS: tuple[str, ...]
"""Names of the int64 fields of an outcome, in their order: see ``Client.take``."""

RAISED_FIELDS: tuple[str, ...]
"""Names of the words of a client's ``sent``, and then of its ``blocked``, in their order."""

MAX_CONNECTIONS: int
"""The most connections that one ``Client`` may have."""

MAX_IN_FLIGHT: int
"""The most requests that one ``Client`` may have in flight."""

class Traffic(TypedDict):
    """Connections and calls as the receiver saw them; see native/wire_receiver.h."""

    connections: int
    accepted: int
    turned_away: int
    connection_errors: int
    refused: int
    buffered: int

@final
class Receiver:
    """Receives OTLP traces over cleartext gRPC and scans every span.

    Listens from the start on (OSError when it can't), serves while ``run`` runs. ``port`` 0 is any
    free one. With ``scan=False`` messages are counted and thrown away unread. ``max_message``
    bounds a message before and after decompression; ``max_buffered`` the memory of messages that
    have come in part, over all connections. ``capacity``, if not 0, is the spans a second that it
    pretends to manage: beyond, a call is refused, or with ``queue`` answered in its turn.
    ``patience_s``: how long the backlog may be when another call is taken, which is the token
    bucket's depth, or the queue's. ``service_time_s``: what each answer takes besides. Raises
    ValueError when a number is out of its range.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        scanner_capacity: int = 4194304,
        max_message: int = 4194304,
        max_connections: int = 1024,
        max_streams: int = 1024,
        max_buffered: int = 1073741824,
        scan: bool = True,
        handshake_timeout_s: float = 10.0,
        request_timeout_s: float = 60.0,
        idle_timeout_s: float = 300.0,
        capacity: int = 0,
        queue: bool = False,
        patience_s: float = 0.02,
        service_time_s: float = 0.0,
    ) -> None: ...
    @property
    def port(self) -> int:
        """The port listened on."""

    def run(self, stop: Buffer, /) -> None:
        """Serves, without the GIL, until the int64 in ``stop`` is not 0 (seen within 20 ms).

        May be called again. Raises RuntimeError when it runs already, ValueError once closed.
        """

    def counts(self) -> ScanCounts:
        """What was counted so far. Any thread may ask; everything that was answered is in it."""

    def traffic(self) -> Traffic:
        """Connections open, accepted, turned away and ended by connection errors; and more."""

    def watch(self, rules: int, /) -> None:
        """As Scanner.watch: keeps the spans that break one of these rules. Any thread may ask."""

    def take(self) -> tuple[bytes, int]:
        """As Scanner.take: the spans that were kept. Any thread may ask; empty once closed."""

    def scan(self, data: Buffer, json: bool, share: int, random: int, /) -> tuple[int, int]:
        """Scans a message that came another way, in protobuf or in ``json``: (spans, rejected);
        spans -1: it is malformed.

        Of a share (of 2**32) of its spans nothing counts; see Scanner.partly. Any thread may ask.
        Raises ValueError once closed, when nothing is scanned, and for a share above 1.
        """

    def fault(
        self,
        seed: int,
        rows: tuple[tuple[int, int, int, int, int, int, bool, bool, bytes], ...],
        /,
    ) -> None:
        """From now on requests meet these faults; see blaster.sink.fault. Any thread may ask.

        Raises ValueError when a number is out of its range.
        """

    def fault_hits(self) -> tuple[int, ...]:
        """How often each fault was met."""

    def freeze(self, seconds: float, /) -> None:
        """Stands still so long, as if the process were stopped. Any thread may ask."""

    def close(self) -> None:
        """Closes the port and all connections; the counts stay readable. Not while it runs."""

@final
class Client:
    """Sends OTLP batches over HTTP/2, each at its scheduled time; see native/wire_client.h.

    ``until`` is CLOCK_MONOTONIC in nanoseconds; ``sent`` and ``blocked`` take three int64 each,
    ``stop`` has one. All calls belong to one thread.
    """

    def __new__(
        cls,
        hosts: tuple[str, ...],
        port: str,
        fields: tuple[tuple[bytes, bytes], ...],
        sent: npt.NDArray[np.int64],
        blocked: npt.NDArray[np.int64],
        stop: npt.NDArray[np.int64],
        connections: int,
        in_flight: int,
        timeout_ns: int,
        compressed: bool = False,
        tls: tuple[str, str | None, str | None, str | None, bool] | None = None,
    ) -> Client: ...
    def connect(self, until: int, /) -> str | None: ...
    def send(
        self,
        buffer: object,
        offsets: npt.NDArray[np.int64],
        scheduled: npt.NDArray[np.int64],
        spans: npt.NDArray[np.int64],
        until: int,
        first: int,
        again: bool,
        /,
    ) -> int: ...
    def wait(self, until: int, /) -> None: ...
    def drain(self, until: int, /) -> None: ...
    def close(self) -> None: ...
    def take(self) -> bytes: ...
    def messages(self) -> dict[int, str]: ...
    def in_flight(self) -> int: ...
    def holds(self, buffer: Buffer, /) -> bool: ...

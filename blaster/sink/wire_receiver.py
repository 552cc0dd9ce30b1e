"""OTLP/gRPC on the native receiver: the same face as GrpcReceiver, at a fraction of its cost."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence

from blaster._wire import Receiver
from blaster.address import cannot_listen
from blaster.sink.capacity import NO_LIMIT, Capacity
from blaster.sink.counts import SinkCounts
from blaster.sink.fault import WIRE, Fault

MOST_MESSAGE_BYTES = (1 << 31) - (1 << 17)
"""A message has to fit into a stream's window, which HTTP/2 lets be 2**31 - 1 bytes."""


class WireReceiver:
    """Listens for OTLP/gRPC and scans what comes, in one thread without the GIL."""

    kind = WIRE

    def __init__(
        self,
        host: str,
        port: int,
        remember: int,
        max_message_bytes: int,
        capacity: Capacity = NO_LIMIT,
    ) -> None:
        self._host = host
        self._port = port
        self._remember = remember
        self._capacity = capacity
        self._max_message = min(max_message_bytes, MOST_MESSAGE_BYTES)
        self._stop = array("q", [0])
        self._thread: threading.Thread | None = None
        self._receiver: Receiver | None = None

    def start(self) -> int:
        """Listens; returns the port. Raises UsageError when the address can't be listened on."""
        try:
            receiver = Receiver(
                self._host,
                self._port,
                scanner_capacity=self._remember,
                max_message=self._max_message,
                capacity=self._capacity.spans_per_s,
                queue=self._capacity.queue,
                patience_s=self._capacity.patience_s,
                service_time_s=self._capacity.service_time_s,
            )
        except OSError as error:
            raise cannot_listen("--grpc-port", self._host, self._port, error) from None
        self._receiver = receiver
        self._thread = threading.Thread(
            target=receiver.run, args=(self._stop,), name="wire", daemon=True
        )
        self._thread.start()
        return receiver.port

    def stop(self, grace_s: float = 1.0) -> None:
        """Stops listening and closes the connections, within ``grace_s`` seconds.

        What came whole was answered at once, so no request is cut short that could still end,
        unless it waits for its turn.
        """
        if self._thread is None or self._receiver is None:
            return
        self._stop[0] = 1
        self._thread.join(grace_s)
        if not self._thread.is_alive():
            self._receiver.close()

    def scan(self, data: bytes, json: bool, share: int, random: int) -> tuple[int, int]:
        """Scans a message that came another way: (spans, rejected); see Receiver in server."""
        assert self._receiver is not None, "start() comes first"
        return self._receiver.scan(data, json, share, random)

    def set_faults(self, faults: Sequence[Fault], seed: int) -> None:
        """Replace the faults; their time begins with the next request."""
        assert self._receiver is not None, "start() comes first"
        self._receiver.fault(seed, tuple(fault.row() for fault in faults))

    def fault_hits(self) -> Sequence[int]:
        """How often each was met."""
        assert self._receiver is not None, "start() comes first"
        return self._receiver.fault_hits()

    def freeze(self, seconds: float) -> None:
        """Answers nobody for so long."""
        assert self._receiver is not None, "start() comes first"
        self._receiver.freeze(seconds)

    def watch(self, rules: int) -> None:
        """From now on keeps the spans that break one of these rules; see sink.kept."""
        assert self._receiver is not None, "start() comes first"
        self._receiver.watch(rules)

    def take(self) -> tuple[bytes, int]:
        """Takes the spans that were kept; see sink.kept."""
        assert self._receiver is not None, "start() comes first"
        return self._receiver.take()

    def counts(self) -> SinkCounts:
        """What was counted so far."""
        assert self._receiver is not None, "start() comes first"
        return SinkCounts.from_scan(self._receiver.counts())

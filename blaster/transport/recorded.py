"""RecordedTransport: any transport, with a Recording of what was offered through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from blaster.payload.capture.recording import Recording
from blaster.transport.base import Chunk, Int64, Transport

PIECE_SPANS = 1000
"""Spans sent before they are written: some 100 ms as JSON, so that a stop is seen soon enough."""


class RecordedTransport:
    """``transport``, all of whose offered batches go into ``recording``, too.

    They are written a piece at a time, between sends: that makes the worker late, as lateness and
    not_offered then say, and changes no count.
    """

    def __init__(self, transport: Transport, recording: Recording) -> None:
        self._transport, self._recording = transport, recording
        self.framing: Literal["bytes", "buffer"] = transport.framing

    def connect(self, timeout_s: float) -> None:
        self._transport.connect(timeout_s)

    def send(self, chunk: Chunk, until: int) -> int:
        offered = 0
        while offered < len(chunk):
            piece = chunk.part(offered, offered + _size(chunk.spans[offered:]))
            sent = self._transport.send(piece, until)
            spans = piece.spans.tolist()
            self._recording.add((piece.batch(i), spans[i]) for i in range(sent))
            offered += sent
            if sent < len(piece):
                break
        return offered

    def wait(self, until: int) -> None:
        self._transport.wait(until)

    def drain(self, until: int) -> None:
        self._transport.drain(until)

    def outcomes(self) -> np.ndarray[Any, np.dtype[np.void]]:
        return self._transport.outcomes()

    def in_flight(self) -> int:
        return self._transport.in_flight()

    def messages(self) -> dict[int, str]:
        return self._transport.messages()

    def close(self) -> None:
        self._transport.close()


def recorded(
    make: Callable[[Int64, Int64], Transport], recording: Recording | None
) -> Callable[[Int64, Int64], Transport]:
    """``make`` for transports whose batches go into ``recording``; for None, ``make`` itself."""
    if recording is None:
        return make
    return lambda sent, stop: RecordedTransport(make(sent, stop), recording)


def _size(spans: Int64) -> int:
    """How many of the first requests have PIECE_SPANS spans, or one that has more."""
    return max(1, int(np.searchsorted(np.cumsum(spans), PIECE_SPANS, side="right")))

"""CapturingTransport: any transport, whose batches are written to a capture file, too."""

from __future__ import annotations

from blaster.payload.capture.batch_capture import BatchCapture
from blaster.transport.base import Chunk, Transport, TransportFactory, send_in_pieces
from blaster.transport.wrapper import TransportWrapper

PIECE_SPANS = 1000
"""Spans sent before they are written: some 100 ms as JSON, so that a stop is noticed in time."""


class CapturingTransport(TransportWrapper):
    """``transport``, all of whose offered batches are added to ``capture``.

    They are written a piece at a time, between sends. That makes the worker late, which lateness
    and not_offered show; it changes no count.
    """

    def __init__(self, transport: Transport, capture: BatchCapture) -> None:
        super().__init__(transport)
        self.framing = "buffer"
        self._capture = capture

    def send(self, chunk: Chunk, until: int) -> int:
        return send_in_pieces(
            chunk, chunk.spans, PIECE_SPANS, lambda piece: self._send(piece, until)
        )

    def _send(self, piece: Chunk, until: int) -> int:
        sent = self._transport.send(piece, until)
        spans = piece.spans.tolist()
        self._capture.add((piece.batch(i), spans[i]) for i in range(sent))
        return sent


def capture_batches(make: TransportFactory, capture: BatchCapture | None) -> TransportFactory:
    """Wrap ``make``: its transports' batches go into ``capture``. For None, ``make`` itself."""
    if capture is None:
        return make
    return lambda counts, stop: CapturingTransport(make(counts, stop), capture)

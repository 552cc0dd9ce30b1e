"""CompressingTransport: any transport, with batches compressed in the worker.

gzip uses isal if it is installed (some six times as fast as zlib's fastest level, at the same
ratio), zlib otherwise; zstd needs zstandard. ``blaster[compression]`` installs both.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
import zlib
from collections.abc import Callable

from blaster.transport.base import Chunk, SendCounts, Transport, send_in_pieces
from blaster.transport.wrapper import TransportWrapper

NONE, GZIP, ZSTD = NAMES = ("none", "gzip", "zstd")

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""zlib's window size for gzip framing."""

_LEVEL = 1
"""The fastest level of each library; others gain little on spans, see
bench/bench_compression.py."""

_PIECE_BYTES = 1 << 20
"""Bytes compressed at a time, some 3 ms: no request is later than that for it."""

Compress = Callable[[memoryview], bytes]


def library(name: str) -> str | None:
    """The library for this compression; None if it is not installed."""
    if name == GZIP:
        return "isal" if importlib.util.find_spec("isal") else "zlib"
    return "zstandard" if importlib.util.find_spec("zstandard") else None


def compressor(name: str) -> Compress:
    """Return a function that compresses one batch with ``name`` (gzip or zstd) into one frame."""
    if name == ZSTD:
        # Its header holds the size, so that a receiver can refuse too large a batch at once.
        compress: Compress = (
            importlib.import_module("zstandard").ZstdCompressor(level=_LEVEL).compress
        )
        return compress
    if library(GZIP) == "isal":
        isal = importlib.import_module("isal.isal_zlib")
        return lambda data: bytes(isal.compress(data, _LEVEL, _GZIP_WINDOW))
    return lambda data: zlib.compress(data, _LEVEL, _GZIP_WINDOW)


class CompressingTransport(TransportWrapper):
    """``transport``, which must declare the encoding ``name`` itself. Bytes before and after
    compression, and its CPU time, are added to ``counts``."""

    def __init__(self, transport: Transport, name: str, counts: SendCounts) -> None:
        super().__init__(transport)
        self.framing = "buffer"
        self._compress, self._counts = compressor(name), counts

    def send(self, chunk: Chunk, until: int) -> int:
        return send_in_pieces(
            chunk, chunk.sizes(), _PIECE_BYTES, lambda piece: self._send(piece, until)
        )

    def _send(self, piece: Chunk, until: int) -> int:
        began = time.thread_time_ns()
        batches = [self._compress(piece.view(i)) for i in range(len(piece))]
        self._counts.compression_ns += time.thread_time_ns() - began
        small = Chunk.of(
            batches, piece.scheduled, piece.spans, first=piece.first, again=piece.again
        )
        before, after = piece.sizes(), small.sizes()
        # Before they can leave, as with all counts of what is sent.
        self._counts.uncompressed_bytes += int(before.sum())
        self._counts.compressed_bytes += int(after.sum())
        took = self._transport.send(small, until)
        self._counts.uncompressed_bytes -= int(before[took:].sum())
        self._counts.compressed_bytes -= int(after[took:].sum())
        return took

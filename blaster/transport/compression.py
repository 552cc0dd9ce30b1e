"""CompressingTransport: a transport, whose batches are compressed on the worker before it.

gzip is isal's where that is installed (some six times as quick as zlib at its fastest, for the same
ratio) and zlib's where it is not; zstd needs zstandard. Both come with ``blaster[compression]``:
only those who compress need them.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
import zlib
from collections.abc import Callable

from blaster.transport.base import (
    COMPRESSED_FROM,
    COMPRESSED_TO,
    COMPRESSION_NS,
    Chunk,
    Int64,
    Transport,
    send_in_pieces,
)
from blaster.transport.wrapper import TransportWrapper

NONE, GZIP, ZSTD = NAMES = ("none", "gzip", "zstd")

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""zlib's sign for gzip's framing."""

_LEVEL = 1
"""The fastest that each library has but no compression; others gain little on spans, see
bench/bench_compression.py."""

_PIECE_BYTES = 1 << 20
"""What is compressed at a time, some 3 ms: requests due by then are no later than that."""

Compress = Callable[[memoryview], bytes]


def library(name: str) -> str | None:
    """The library that compresses so; None where it is not installed."""
    if name == GZIP:
        return "isal" if importlib.util.find_spec("isal") else "zlib"
    return "zstandard" if importlib.util.find_spec("zstandard") else None


def compressor(name: str) -> Compress:
    """What compresses one batch as ``name`` (gzip or zstd) says, into one frame."""
    if name == ZSTD:
        # With the size in its header: a receiver can refuse what is too large at once.
        compress: Compress = (
            importlib.import_module("zstandard").ZstdCompressor(level=_LEVEL).compress
        )
        return compress
    if library(GZIP) == "isal":
        isal = importlib.import_module("isal.isal_zlib")
        return lambda data: bytes(isal.compress(data, _LEVEL, _GZIP_WINDOW))
    return lambda data: zlib.compress(data, _LEVEL, _GZIP_WINDOW)


class CompressingTransport(TransportWrapper):
    """``transport``, which says of the batches that they are compressed so. What goes in and comes
    out of the compression, and its CPU time, are raised in ``sent`` (RAISED)."""

    def __init__(self, transport: Transport, name: str, sent: Int64) -> None:
        super().__init__(transport)
        self.framing = "buffer"
        self._compress, self._sent = compressor(name), sent

    def send(self, chunk: Chunk, until: int) -> int:
        return send_in_pieces(
            chunk, chunk.sizes(), _PIECE_BYTES, lambda piece: self._send(piece, until)
        )

    def _send(self, piece: Chunk, until: int) -> int:
        began = time.thread_time_ns()
        batches = [self._compress(piece.view(i)) for i in range(len(piece))]
        self._sent[COMPRESSION_NS] += time.thread_time_ns() - began
        small = Chunk.of(
            batches, piece.scheduled, piece.spans, first=piece.first, again=piece.again
        )
        before, after = piece.sizes(), small.sizes()
        # Before they can leave, as all that is sent.
        self._sent[COMPRESSED_FROM] += int(before.sum())
        self._sent[COMPRESSED_TO] += int(after.sum())
        took = self._transport.send(small, until)
        self._sent[COMPRESSED_FROM] -= int(before[took:].sum())
        self._sent[COMPRESSED_TO] -= int(after[took:].sum())
        return took

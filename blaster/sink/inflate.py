"""What a Content-Encoding hides, up to a limit: a bomb costs no more than a message may have."""

from __future__ import annotations

import importlib
import zlib

GZIP_ONLY = 16 + zlib.MAX_WBITS
ZSTD_WINDOW = 8 << 20
"""What decoders should at least take, and need not go beyond: RFC 8878, 3.1.1.1.2."""


class TooLarge(Exception):
    """More comes out than the limit."""


class Unknown(Exception):
    """An encoding that is not known, or whose library is not installed."""


def inflate(encoding: str, data: bytes, limit: int) -> bytes:
    """``data`` without its encoding (identity, gzip or zstd).

    Raises TooLarge, Unknown, or ValueError when it is not what it claims to be.
    """
    if encoding in ("", "identity"):
        if len(data) > limit:
            raise TooLarge
        return data
    if encoding == "gzip":
        return _gunzip(data, limit)
    if encoding == "zstd":
        return _unzstd(data, limit)
    raise Unknown(encoding)


def _gunzip(data: bytes, limit: int) -> bytes:
    pieces, left = [], limit
    while True:  # RFC 1952, 2.2: a series of members, one after the other
        member = zlib.decompressobj(GZIP_ONLY)
        try:
            piece = member.decompress(data, left + 1)
        except zlib.error:
            raise ValueError("the body is not gzip") from None
        if len(piece) > left:
            raise TooLarge
        if not member.eof:
            raise ValueError("the body is not gzip, or ends too early")
        pieces.append(piece)
        left -= len(piece)
        data = member.unused_data
        if not data:
            return b"".join(pieces)


def _unzstd(data: bytes, limit: int) -> bytes:
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError:
        raise Unknown("zstd") from None
    try:
        said = zstandard.frame_content_size(data)
        reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(
            data, read_across_frames=True
        )
        with reader:
            out: bytes = reader.read(limit + 1)
    except zstandard.ZstdError:
        raise ValueError("the body is not zstd") from None
    if len(out) > limit:
        raise TooLarge
    if said > len(out):
        raise ValueError("the body is not zstd, or ends too early")
    return out

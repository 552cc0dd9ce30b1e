"""The variable-length integers of protobuf's wire format."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Of a number that is not negative."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)

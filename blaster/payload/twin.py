"""The Python twin of the C kernel: slow, plain, and the oracle that the tests hold it to."""

from __future__ import annotations

from blaster.payload.columns import Columns
from blaster.payload.template import Template
from blaster.payload.wire_format import write_varint


def stamp(template: Template, columns: Columns) -> list[bytes]:
    """The batches that the kernel must stamp from these columns, byte for byte."""
    rows = [memoryview(array.tobytes()) for array in columns.arrays]
    cursors = [0] * len(rows)
    batches = []
    first = 0
    for count in columns.counts.tolist():
        inner = b""
        framing = 0
        for trace in reversed(range(first, first + count)):
            framing = template.variants[columns.variants[trace]].framing
        for trace in range(first, first + count):
            variant = template.variants[columns.variants[trace]]
            data = bytearray(variant.data)
            for offset, width, column, shift in variant.slots:
                at = cursors[column] + shift
                data[offset : offset + width] = rows[column][at : at + width]
            inner += data
            for column, stride in enumerate(variant.strides):
                cursors[column] += stride
        first += count
        for frame in reversed(template.framings[framing]):
            inner = frame.prefix + inner
            inner = bytes([frame.tag]) + write_varint(len(inner)) + inner
        batches.append(inner)
    return batches

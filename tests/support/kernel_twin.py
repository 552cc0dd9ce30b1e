"""The Python twin of the C kernel: slow, plain, and the oracle that the tests hold it to."""

from __future__ import annotations

import numpy as np

from blaster.otlp.wire_format import write_varint
from blaster.payload.columns import Columns, odd_multiplier
from blaster.payload.mix import Mix
from blaster.payload.shape import Int64
from blaster.payload.template import Frame, Template, TextFraming
from blaster.payload.violations import SLOW, slowed

_WORD = 2**64 - 1
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def columns(
    seed: int, mix: Mix, first: Int64, counts: Int64, ended: Int64, parts: Int64, quota: Int64
) -> tuple[list[list[int]], list[int], list[int]]:
    """The expected result of ColumnSource.make: arrays without the digits, variants, spans."""
    odd_trace, odd_span = (int(odd_multiplier(seed, purpose)) for purpose in ("trace", "span"))
    most = max(shape.spans for shape in mix.shapes)
    arrays: list[list[int]] = [[], [], [], [], []]
    variants, spans = [], []
    for batch, part in enumerate(parts.tolist()):
        spans.append(0)
        for n in range(int(counts[batch])):
            number = int(first[batch]) + n + 1
            (cell,) = mix.cells(quota[batch : batch + 1] + n)
            shape, row = mix.shapes[mix.cell_shape[cell]], mix.cell_row[cell]
            kind = int(mix.cell_kind[cell])
            variants.append(mix.template.numbers[int(mix.cell_shape[cell]), kind][part])
            variant = mix.template.variants[variants[-1]]
            spans[-1] += len(variant.spans)
            ends = slowed(shape, np.array([row]))[0] if kind == SLOW else shape.ends[row]
            starts = [*shape.starts[row].tolist(), *shape.events[row].tolist()]
            ends = [*ends.tolist(), *shape.events[row].tolist()]
            begun = int(ended[batch]) - max(ends)
            low = _fold(number * odd_trace & _WORD, 32)
            arrays[0].append(_fold(low * _MIX_2 & _WORD, 29))
            arrays[1].append(_fold(low * _MIX_1 & _WORD, 29))
            for entry in variant.entries:
                word = _fold((number * most + entry) * odd_span & _WORD, 32)
                arrays[2].append(_fold(word * _MIX_1 & _WORD, 29))
                arrays[3].append(begun + starts[entry])
                arrays[4].append(begun + ends[entry])
    return arrays, variants, spans


def _fold(word: int, bits: int) -> int:
    return word ^ word >> bits


def stamp(template: Template, columns: Columns) -> list[bytes]:
    """The batches that the kernel must stamp from these columns, byte for byte."""
    rows = _digits(columns) if template.text else [array.tobytes() for array in columns.arrays]
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
        batches.append(_framed(template.framings[framing], inner))
    return batches


def _framed(framing: tuple[Frame, ...] | TextFraming, inner: bytes) -> bytes:
    if framing and isinstance(framing[0], bytes):
        head, tail = framing
        return b"".join([head, b" " if inner else b"", inner[1:], tail])
    for frame in reversed(framing):
        assert isinstance(frame, Frame)
        inner = frame.prefix + inner
        inner = bytes([frame.tag]) + write_varint(len(inner)) + inner
    return inner


def _digits(columns: Columns) -> list[bytes]:
    """The columns as a text takes them."""
    *ids, start, end, drawn = columns.arrays
    times = ("".join(f"{t:019d}" for t in times.tolist()) for times in (start, end))
    return [*(i.tobytes().hex().encode() for i in ids), *map(str.encode, times), drawn.tobytes()]

"""Columns: the IDs, times and drawn numbers of many batches at a time, made by numpy.

IDs are bijections of the trace's (or span's) number, so that they are unique without being
remembered. Multiplying by an odd number and x ^= x >> k are bijections of 64-bit words that map
only 0 to 0 (the steps of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014). Numbers begin at 1, so no ID is zero; the odd multipliers drawn from the
seed make another sequence for each seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from blaster.payload.mix import Mix
from blaster.payload.shape import Int64, Source
from blaster.payload.template import NUMBER_DIGITS, Draw, Variant
from blaster.payload.violations import SLOW, slowed

UInt64 = npt.NDArray[np.uint64]
_Scalar = TypeVar("_Scalar", bound=np.generic)
Length = Int64 | int
"""Rows of each trace: one number where all have as many."""

_ARENA_BYTES = 16 << 20

_BINS = 1 << 12
"""The pieces of straight line by which a source's inverse distribution is drawn."""


def odd_multiplier(seed: int, purpose: str) -> np.uint64:
    """An odd 64-bit number drawn from ``seed`` (any int) for ``purpose``."""
    digest = blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little") | 1)


def _fold(x: UInt64, bits: np.uint64) -> None:
    """x ^= x >> bits, in place."""
    np.bitwise_xor(x, x >> bits, out=x)


_29, _32 = np.uint64(29), np.uint64(32)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Columns:
    """What one chunk's slots are filled with.

    ``arrays``: by the numbers of the columns, uint64: trace_high and trace_low (one a trace),
    span_id, start, end (one an entry; the times in ns since the epoch), and the digits (uint8, 16
    a draw), trace after trace. ``variants`` (uint16): the template's variant for each trace.
    ``counts`` (int64): the traces of each batch.
    """

    arrays: tuple[npt.NDArray[np.generic], ...]
    variants: npt.NDArray[np.uint16]
    counts: Int64


class ColumnSource:
    """Makes the Columns of any traces, by their numbers: the same seed and numbers, the same IDs.

    Traces are numbered from 0 over the whole run, whatever worker sends them.
    """

    def __init__(self, seed: int, mix: Mix) -> None:
        # glibc gives memory back to the system at every call, only to take it again with a fault
        # a page, unless it once saw a block as large as this come and go (mallopt(3)).
        np.empty(_ARENA_BYTES, np.uint8)
        self._mix = mix
        self._odd_trace = odd_multiplier(seed, "trace")
        self._odd_span = odd_multiplier(seed, "span")
        self._odd_value = odd_multiplier(seed, "value")
        with np.errstate(over="ignore"):
            most = max(shape.spans for shape in mix.shapes)
            self._span_step = self._odd_span * np.uint64(most)
        self._entries = _Entries(mix, self._odd_span)
        self._draws = _Draws(mix)

    def make(
        self,
        first: Int64,
        counts: Int64,
        ended: Int64,
        *,
        parts: Int64 | None = None,
        quota_first: Int64 | None = None,
    ) -> Columns:
        """The columns of batches: batch i holds part ``parts[i]`` (default: 0) of ``counts[i]``
        traces, from number ``first[i]`` on, which all ended at ``ended[i]`` (ns since the epoch)
        and are what their numbers from ``quota_first[i]`` on (default: ``first``) make them.
        """
        index, per_batch = _ranges(first, counts)
        # Numbers count from 1: the mixing maps 0 to 0, and an ID of zero is invalid.
        number = (index + 1).view(np.uint64)
        high, low = self._trace_words(number)

        if quota_first is not None:
            index, _ = _ranges(quota_first, counts)
        cells = self._mix.cells(index)
        where = cells * self._mix.parts
        if self._mix.parts > 1 and parts is not None:
            where += _spread(parts, per_batch)
        variants = self._entries.variants[where]

        entries = self._entries
        base = _spread(ended, per_batch) - entries.extents[cells]
        length = entries.lengths(variants)
        rows = _rows(entries.first[where], length)
        span_ids = _spread(number * self._span_step, length)
        if entries.most > 1:
            span_ids = span_ids + entries.span_steps[rows]
        _fold(span_ids, _32)
        np.multiply(span_ids, _MIX_1, out=span_ids)
        _fold(span_ids, _29)
        begin = _spread(base, length)
        start = begin + entries.starts[rows]
        end = begin + entries.ends[rows]
        digits = self._draws.digits(number * self._odd_value, variants)
        return Columns((high, low, span_ids, start, end, digits), variants, counts)

    def trace_ids(self, index: Int64) -> list[bytes]:
        """The IDs of the traces of these numbers."""
        high, low = self._trace_words((index + 1).view(np.uint64))
        data = np.stack([high, low], axis=1).tobytes()
        return [data[at : at + 16] for at in range(0, len(data), 16)]

    def _trace_words(self, number: UInt64) -> tuple[UInt64, UInt64]:
        """The two halves of the IDs of traces that are counted from 1."""
        low = number * self._odd_trace
        _fold(low, _32)
        high = low * _MIX_2
        _fold(high, _29)
        np.multiply(low, _MIX_1, out=low)
        _fold(low, _29)
        return high, low


class _Entries:
    """Tables of what the cells' parts take of SPAN_ID, START and END.

    ``first[cell * parts + part]``: where the entries of that part begin in ``span_steps``,
    ``starts`` and ``ends`` (ns from the trace's beginning).
    """

    def __init__(self, mix: Mix, odd_span: np.uint64) -> None:
        template, cells = mix.template, len(mix.cell_shape)
        self.variants = np.zeros(cells * mix.parts, np.uint16)
        self.first = np.zeros(cells * mix.parts, np.int64)
        self.extents = np.zeros(cells, np.int64)
        self._lengths = np.array([len(v.entries) for v in template.variants], np.int64)
        self.most = int(self._lengths.max())
        self._uniform = bool((self._lengths == self.most).all())
        steps, starts, ends, at = [], [], [], 0
        for (index, kind), numbers in template.numbers.items():
            shape = mix.shapes[index]
            here = np.flatnonzero((mix.cell_shape == index) & (mix.cell_kind == kind))
            row = mix.cell_row[here]
            end_times = slowed(shape, row) if kind == SLOW else shape.ends[row]
            begun = np.concatenate([shape.starts[row], shape.events[row]], axis=1)
            ended = np.concatenate([end_times, shape.events[row]], axis=1)
            self.extents[here] = ended.max(axis=1)
            for part, number in enumerate(numbers):
                entries = np.array(template.variants[number].entries, np.int64)
                self.variants[here * mix.parts + part] = number
                self.first[here * mix.parts + part] = at + np.arange(len(here)) * len(entries)
                at += len(here) * len(entries)
                starts.append(begun[:, entries].ravel())
                ends.append(ended[:, entries].ravel())
                steps.append(np.tile(entries.astype(np.uint64) * odd_span, len(here)))
        self.span_steps = np.concatenate(steps)
        self.starts = np.concatenate(starts)
        self.ends = np.concatenate(ends)

    def lengths(self, variants: npt.NDArray[np.uint16]) -> Length:
        """The entries of these variants."""
        return self.most if self._uniform else self._lengths[variants]


class _Draws:
    """Tables of the numbers that the variants draw."""

    def __init__(self, mix: Mix) -> None:
        variants: tuple[Variant, ...] = mix.template.variants
        self._lengths = np.array([len(v.draws) for v in variants], np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._lengths)[:-1]]).astype(np.int64)
        draws: list[Draw] = [draw for variant in variants for draw in variant.draws]
        sources = list(dict.fromkeys(draw.source for draw in draws))
        self._any = bool(draws)
        self._source = np.array([sources.index(d.source) * (_BINS + 1) for d in draws], np.int64)
        self._salt = np.array([_salt(draw) for draw in draws], np.uint64)
        tables = [_inverse(source) for source in sources]
        self._low = np.concatenate([np.zeros(0), *tables])
        self._tens = _ascii_numbers()

    def digits(self, traces: UInt64, variants: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint32]:
        """The digits of all draws of these variants, for traces of these words."""
        if not self._any:
            return np.zeros(0, np.uint32)
        length = self._lengths[variants]
        rows = _rows(self._first[variants], length)
        # The sum of two words, each of them mixed, does not repeat: then SplitMix64's finish.
        word = np.repeat(traces, length) ^ self._salt[rows]
        _fold(word, np.uint64(30))
        np.multiply(word, _MIX_1, out=word)
        _fold(word, np.uint64(27))
        np.multiply(word, _MIX_2, out=word)
        _fold(word, np.uint64(31))
        at = self._source[rows] + (word >> np.uint64(52)).view(np.int64)
        part = (word & np.uint64((1 << 52) - 1)).astype(np.float64) * 2.0**-52
        low = self._low[at]
        value = (low + (self._low[at + 1] - low) * part).astype(np.int64)
        text = np.empty((len(value), NUMBER_DIGITS // 4), np.uint32)
        for column in reversed(range(NUMBER_DIGITS // 4)):
            above = value // 10_000
            text[:, column] = self._tens[value - above * 10_000]
            value = above
        return text


def _salt(draw: Draw) -> int:
    text = f"{draw.source.name}:{-1 if draw.source.per_trace else draw.span}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _inverse(source: Source) -> npt.NDArray[np.float64]:
    """The inverse of the distribution of the source's numbers, at _BINS + 1 even steps; a number
    is what stands before the point."""
    share = np.linspace(0, 1, _BINS + 1)
    if source.zipf == 0:
        table = share * source.distinct
    else:
        chances = np.arange(1, source.distinct + 1, dtype=np.float64) ** -source.zipf
        below = np.concatenate([[0.0], np.cumsum(chances)])
        table = np.interp(share, below / below[-1], np.arange(source.distinct + 1))
    # No sum may round up to the number behind the last.
    table[-1] = np.nextafter(source.distinct, 0)
    return table


def _ascii_numbers() -> npt.NDArray[np.uint32]:
    """0000 to 9999 as four ASCII digits each."""
    return np.frombuffer("".join(f"{n:04d}" for n in range(10_000)).encode(), np.uint32)


def _ranges(first: Int64, counts: Int64) -> tuple[Int64, Length]:
    """``counts[i]`` numbers from each ``first[i]`` on, and the counts, as one where all are so."""
    if len(counts) and (counts == counts[0]).all():
        per_batch = int(counts[0])
        return (first[:, None] + np.arange(per_batch)).ravel(), per_batch
    return _rows(first, counts), counts


def _rows(first: Int64, length: Length) -> Int64:
    """``length[i]`` numbers from each ``first[i]`` on."""
    if isinstance(length, int):
        return first if length == 1 else (first[:, None] + np.arange(length)).ravel()
    before = np.cumsum(length) - length
    rows = np.repeat(first - before, length)
    rows += np.arange(len(rows))
    return rows


def _spread(values: npt.NDArray[_Scalar], length: Length) -> npt.NDArray[_Scalar]:
    """Each value as often as its trace has rows; new memory."""
    if isinstance(length, int) and length == 1:
        return values.copy()
    return np.repeat(values, length)

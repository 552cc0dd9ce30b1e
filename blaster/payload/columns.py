"""Columns: the IDs, times and drawn numbers of many batches at a time.

IDs are bijections of the trace's (or span's) number, so that they are unique without being
remembered. Multiplying by an odd number and x ^= x >> k are bijections of 64-bit words that map
only 0 to 0 (the steps of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014). Numbers begin at 1, so no ID is zero; the odd multipliers drawn from the
seed make another sequence for each seed.

IDs and times are made in C: numpy took 18 ns a span for what are some 20 operations, in as many
passes over memory, and a third of what a span costs altogether. Drawn numbers, which few spans
have, are made by numpy.

For protobuf the columns are those of one batch, made when it is sent: those of many, and their
bytes, would go from the caches to memory and back, which cost a quarter of all that a span costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from blaster import _native
from blaster.payload.mix import Mix
from blaster.payload.shape import Int64, Source
from blaster.payload.template import NUMBER_DIGITS, Draw, Variant

UInt64 = npt.NDArray[np.uint64]
_ARENA_BYTES = 16 << 20

_NO_DIGITS = np.zeros(0, np.uint32)

_BINS = 1 << 12
"""The pieces of straight line by which a source's inverse distribution is drawn."""


def odd_multiplier(seed: int, purpose: str) -> np.uint64:
    """An odd 64-bit number drawn from ``seed`` (any int) for ``purpose``."""
    digest = blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little") | 1)


def _fold(x: UInt64, bits: np.uint64) -> None:
    """x ^= x >> bits, in place."""
    np.bitwise_xor(x, x >> bits, out=x)


_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Columns:
    """What one chunk's slots are filled with.

    ``arrays``: by the numbers of the columns, uint64: trace_high and trace_low (one a trace),
    span_id, start, end (one an entry; the times in ns since the epoch), and the digits (uint8, 16
    a draw), trace after trace. ``variants`` (uint16): the template's variant for each trace.
    ``counts`` (int64): the traces of each batch. ``spans`` (int64): the spans of each batch.
    """

    arrays: tuple[npt.NDArray[np.generic], ...]
    variants: npt.NDArray[np.uint16]
    counts: Int64
    spans: Int64


class ColumnSource:
    """Makes the Columns of any traces, by their numbers: the same seed and numbers, the same IDs.

    Traces are numbered from 0 over the whole run, whatever worker sends them.
    """

    def __init__(self, seed: int, mix: Mix) -> None:
        # glibc gives memory back to the system at every call, only to take it again with a fault
        # a page, unless it once saw a block as large as this come and go (mallopt(3)).
        np.empty(_ARENA_BYTES, np.uint8)
        self._odd_value = odd_multiplier(seed, "value")
        self._draws = _Draws(mix)
        lengths = {len(variant.entries) for variant in mix.template.variants}
        # The entries of every trace, where all have as many.
        self._uniform = lengths.pop() if len(lengths) == 1 else None
        self._kernel = _kernel(seed, mix)

    def batches(self, template: _native.Template) -> _native.Batches:
        """What makes the batches of :meth:`begin`, each when it is asked for."""
        return _native.Batches(self._kernel, template)

    def begin(
        self,
        batches: _native.Batches,
        first: Int64,
        counts: Int64,
        ended: Int64,
        *,
        parts: Int64 | None = None,
        quota_first: Int64 | None = None,
    ) -> Int64:
        """Has ``batches`` make these batches next, which are as :meth:`make` says, in protobuf;
        returns the spans of each."""
        parts = np.zeros_like(counts) if parts is None else parts
        quota = first if quota_first is None else quota_first
        digits = _NO_DIGITS
        if self._draws.any:
            variants = np.empty(int(counts.sum()), np.uint16)
            self._kernel.variants(quota, counts, parts, variants)
            digits = self._drawn(first, counts, variants)
        spans = np.empty(len(counts), np.int64)
        batches.begin(first, counts, parts, quota, ended, digits, spans)
        return spans

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
        ValueError for a part that there is not and for numbers outside 0 to 2^43.
        """
        parts = np.zeros_like(counts) if parts is None else parts
        quota = first if quota_first is None else quota_first
        traces = int(counts.sum())
        if self._uniform is None:
            entries = self._kernel.entries(quota, counts, parts)
        else:
            entries = traces * self._uniform
        high, low = np.empty(traces, np.uint64), np.empty(traces, np.uint64)
        span_ids = np.empty(entries, np.uint64)
        starts, ends = np.empty(entries, np.int64), np.empty(entries, np.int64)
        variants, spans = np.empty(traces, np.uint16), np.empty(len(counts), np.int64)
        self._kernel.fill(
            *(first, counts, parts, quota, ended),
            *(high, low, span_ids, starts, ends, variants, spans),
        )
        digits = self._drawn(first, counts, variants) if self._draws.any else _NO_DIGITS
        return Columns((high, low, span_ids, starts, ends, digits), variants, counts, spans)

    def _drawn(
        self, first: Int64, counts: Int64, variants: npt.NDArray[np.uint16]
    ) -> npt.NDArray[np.uint32]:
        number = (_rows(first, counts) + 1).view(np.uint64)
        return self._draws.digits(number * self._odd_value, variants)

    def trace_ids(self, index: Int64) -> list[bytes]:
        """The IDs of the traces of these numbers."""
        made = self.make(index, np.ones_like(index), np.zeros_like(index))
        data = np.stack(made.arrays[:2], axis=1).tobytes()
        return [data[at : at + 16] for at in range(0, len(data), 16)]


def _kernel(seed: int, mix: Mix) -> _native.ColumnKernel:
    """The kernel's tables of the mix: a row for each part of each cell, and the entries (their step
    from span to span, and their times from the trace's beginning) that the rows point to."""
    odd_trace, odd_span = odd_multiplier(seed, "trace"), odd_multiplier(seed, "span")
    cells = np.zeros((len(mix.cell_shape), mix.parts, 5), np.int64)
    entries: list[Int64] = []
    at = 0
    for (index, kind), numbers in mix.template.numbers.items():
        here, span_starts, span_ends = mix.timed(index, kind)
        events = mix.shapes[index].events[mix.cell_row[here]]
        starts = np.concatenate([span_starts, events], axis=1)
        ends = np.concatenate([span_ends, events], axis=1)
        extent = ends.max(axis=1)
        for part, number in enumerate(numbers):
            taken = np.array(mix.template.variants[number].entries, np.int64)
            cells[here, part, 0] = at + np.arange(len(here)) * len(taken)
            cells[here, part, 1] = len(taken)
            cells[here, part, 2] = extent
            cells[here, part, 3] = mix.cell_spans[here, part]
            cells[here, part, 4] = number
            steps = np.tile(taken.astype(np.uint64) * odd_span, len(here)).view(np.int64)
            times = (starts[:, taken].ravel(), ends[:, taken].ravel())
            entries.append(np.stack([steps, *times], axis=1))
            at += len(here) * len(taken)
    most = max(shape.spans for shape in mix.shapes)
    return _native.ColumnKernel(
        odd_trace=int(odd_trace),
        span_step=int(odd_span) * most % 2**64,
        share=mix.quota.share,
        of=mix.quota.of,
        cycles=tuple(mix.lengths),
        parts=mix.parts,
        cells=cells,
        entries=np.concatenate(entries),
    )


class _Draws:
    """Tables of the numbers that the variants draw; ``any``: whether they draw at all."""

    def __init__(self, mix: Mix) -> None:
        variants: tuple[Variant, ...] = mix.template.variants
        self._lengths = np.array([len(v.draws) for v in variants], np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._lengths)[:-1]]).astype(np.int64)
        draws: list[Draw] = [draw for variant in variants for draw in variant.draws]
        sources = list(dict.fromkeys(draw.source for draw in draws))
        self.any = bool(draws)
        self._source = np.array([sources.index(d.source) * (_BINS + 1) for d in draws], np.int64)
        self._salt = np.array([_salt(draw) for draw in draws], np.uint64)
        tables = [_inverse(source) for source in sources]
        self._low = np.concatenate([np.zeros(0), *tables])
        self._tens = _ascii_numbers()

    def digits(self, traces: UInt64, variants: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint32]:
        """The digits of all draws of these variants, for traces of these words."""
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


def _rows(first: Int64, length: Int64) -> Int64:
    """``length[i]`` numbers from each ``first[i]`` on."""
    before = np.cumsum(length) - length
    rows = np.repeat(first - before, length)
    rows += np.arange(len(rows))
    return rows

"""Columns: the IDs and times of many batches at a time, made by numpy.

IDs are bijections of the trace's (or span's) number, so that they are unique without being
remembered. Multiplying by an odd number and x ^= x >> k are bijections of 64-bit words that map
only 0 to 0 (the steps of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014). Numbers begin at 1, so no ID is zero; the odd multipliers drawn from the
seed make another sequence for each seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from blaster.payload.violations import SLOW, Quota

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]

TRACE_HIGH, TRACE_LOW, SPAN_ID, START, END = range(5)
"""The columns, in the order in which a Template's slots name them."""

BASE_DURATION_NS = 1_000_000
SLOW_EXTRA_NS = 600_000_000
"""A trace takes 1 to 99 ms; a slow one 600 ms more, so that it is well past the rule's 500 ms."""

_DURATION_BITS = np.uint64(44)
_DURATION_STEP_NS = np.uint64(94)


def odd_multiplier(seed: int, purpose: str) -> np.uint64:
    """An odd 64-bit number drawn from ``seed`` (any int) for ``purpose``."""
    digest = blake2b(f"{purpose}:{seed}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little") | 1)


def _fold(x: UInt64, bits: np.uint64, scratch: UInt64) -> None:
    """x ^= x >> bits, in place."""
    np.right_shift(x, bits, out=scratch)
    np.bitwise_xor(x, scratch, out=x)


_29, _32 = np.uint64(29), np.uint64(32)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Columns:
    """What one chunk's slots are filled with, for n traces of s spans each.

    ``arrays``: trace_high, trace_low (uint64, n), span_id, start, end (uint64, n x s; the times in
    ns since the epoch). ``variants`` (uint8, n): the template's variant for each trace.
    ``counts`` (int64): the traces of each batch; they add up to n.
    """

    arrays: tuple[UInt64, UInt64, UInt64, UInt64, UInt64]
    variants: npt.NDArray[np.uint8]
    counts: Int64


@dataclass(frozen=True, slots=True)
class Timeline:
    """Where a trace's spans begin and end, each as a share of the trace's duration from its start.

    ``starts`` and ``ends``: one for each span, 0 ≤ start < end ≤ 1; span 0 is the root (0, 1).
    """

    starts: tuple[float, ...]
    ends: tuple[float, ...]


class ColumnSource:
    """Makes the Columns of any traces, by their numbers: the same seed and numbers, the same IDs.

    Traces are numbered from 0 over the whole run, whatever worker sends them. Not for use by
    several threads: scratch memory is kept between calls.
    """

    def __init__(self, seed: int, violation_rate: Fraction, timeline: Timeline) -> None:
        self.quota = Quota(violation_rate)
        # Fixed point: a duration is under 2^30 ns, so that the product stays inside 64 bits.
        self._starts = np.array([int(x * 2**20) for x in timeline.starts], np.uint64)
        self._ends = np.array([int(x * 2**20) for x in timeline.ends], np.uint64)
        self._odd_trace = odd_multiplier(seed, "trace")
        self._odd_span = odd_multiplier(seed, "span")
        with np.errstate(over="ignore"):
            self._span_step = self._odd_span * np.uint64(len(self._starts))
        self._reserve(0)

    def make(
        self, first: Int64, per_batch: int, ended: Int64, quota_first: Int64 | None = None
    ) -> Columns:
        """The columns of batches of ``per_batch`` traces each: batch i holds the traces from
        number ``first[i]`` on, which ended at ``ended[i]`` (ns since the epoch) and count for the
        quota of violations from ``quota_first[i]`` on (default: ``first``).

        The arrays are overwritten by the next call.
        """
        traces = len(first) * per_batch
        if max(traces, per_batch) > self._per_trace.shape[1]:
            self._reserve(max(traces, per_batch))
        number, scratch, high, low, start, end = self._per_trace[:, :traces]
        # Numbers count from 1: the mixing maps 0 to 0, and an ID of zero is invalid.
        by_batch = number.reshape(len(first), per_batch)
        np.add((first + 1).astype(np.uint64)[:, None], self._ramp[:per_batch], out=by_batch)

        np.multiply(number, self._odd_trace, out=low)
        _fold(low, _32, scratch)
        np.multiply(low, _MIX_2, out=high)
        _fold(high, _29, scratch)
        np.multiply(low, _MIX_1, out=low)
        _fold(low, _29, scratch)

        spans = len(self._starts)
        span_ids, span_scratch = self._per_span[:, :traces]
        np.multiply(number[:, None], self._span_step, out=span_ids)
        if spans > 1:
            np.add(span_ids, self._ramp[:spans] * self._odd_span, out=span_ids)
        _fold(span_ids, _32, span_scratch)
        np.multiply(span_ids, _MIX_1, out=span_ids)
        _fold(span_ids, _29, span_scratch)

        variants = self.quota.kinds(first if quota_first is None else quota_first, per_batch)
        duration = np.right_shift(low, _DURATION_BITS, out=number)
        np.multiply(duration, _DURATION_STEP_NS, out=duration)
        np.add(duration, np.uint64(BASE_DURATION_NS), out=duration)
        duration[np.flatnonzero(variants == SLOW)] += np.uint64(SLOW_EXTRA_NS)
        np.copyto(end.reshape(by_batch.shape), ended.astype(np.uint64)[:, None])
        np.subtract(end, duration, out=start)
        starts, ends = start[:, None], end[:, None]
        if spans > 1:
            ends = starts + (duration[:, None] * self._ends >> np.uint64(20))
            starts = starts + (duration[:, None] * self._starts >> np.uint64(20))
        counts = np.full(len(first), per_batch, np.int64)
        return Columns((high, low, span_ids, starts, ends), variants, counts)

    def _reserve(self, traces: int) -> None:
        spans = len(self._starts)
        self._ramp = np.arange(max(traces, spans), dtype=np.uint64)
        self._per_trace = np.zeros((6, traces), np.uint64)
        self._per_span = np.zeros((2, traces, spans), np.uint64)

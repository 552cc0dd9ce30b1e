"""Latencies in log-linear buckets: HdrHistogram's layout, merged by addition.

The layout is that of HdrHistogram (Gil Tene; hdrhistogram.org, and HdrHistogram_c's
``hdr_histogram.c``) for 3 significant digits, a unit of 1 µs and a highest value of 10 minutes.
Values below 2048 µs have a bucket each; from there on every doubling has 1024 buckets, so that a
bucket is never wider than 1/1024 of the values in it.

Everything, count, minimum, maximum and mean included, is derived from the buckets, as
HdrHistogram's own tools derive it from an exported histogram. The array therefore holds nothing but
counts: merging is one addition, the difference of two moments one subtraction, and a reader in
another process can never see a sum that does not go with its counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

UNIT_NS = 1000
"""Nanoseconds in one unit of the histogram: 1 µs."""

HIGHEST_US = 600 * 10**6
"""The highest value: 10 minutes. What lasts longer is recorded as this."""

_HALF_BITS = 10
_HALF = 1 << _HALF_BITS  # 2 * 10**3 distinct values at 3 digits, up to a power of two, halved
_LINEAR = 2 * _HALF
_BUCKETS = HIGHEST_US.bit_length() - _HALF_BITS

SIZE = (_BUCKETS + 1) * _HALF
"""Length of the counts array: 21,504 int64, 172 kB."""

COARSE_BITS = 7
"""What :func:`coarse` keeps of a value: its 7 highest bits, so that none moves by 1 %."""

_FEW = 16  # below, a Python loop costs less than numpy's calls


def bounds() -> tuple[Int64, Int64]:
    """The lowest and the highest value of each bucket, in µs (int64, SIZE)."""
    index = np.arange(SIZE, dtype=np.int64)
    bucket = np.maximum((index >> _HALF_BITS) - 1, 0)
    sub = np.where(index < _LINEAR, index, (index & (_HALF - 1)) + _HALF)
    return sub << bucket, ((sub + 1) << bucket) - 1


_LOWEST, _HIGHEST = bounds()
# HdrHistogram's median equivalent value: lowest + size // 2.
_MEDIAN = _LOWEST + (_HIGHEST - _LOWEST + 1) // 2


def _groups() -> tuple[Int64, Int64]:
    bits = np.frexp(_LOWEST.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(bits - COARSE_BITS, 0)
    middle = (_LOWEST >> shift << shift) + (1 << shift) // 2
    bucket = np.frexp((middle | (_LINEAR - 1)).astype(np.float64))[1] - (_HALF_BITS + 1)
    places = (bucket.astype(np.int64) << _HALF_BITS) + (middle >> bucket)
    first = np.flatnonzero(np.diff(places, prepend=-1))
    return first, places[first]


_GROUP_FIRST, _GROUP_PLACE = _groups()


def coarse(counts: Int64) -> Int64:
    """Counts (int64, SIZE) as many as these, each bucket's moved to the middle one of its group:
    1,600 buckets at most are left, so that what is told of them stays small."""
    grouped = np.zeros(SIZE, np.int64)
    grouped[_GROUP_PLACE] = np.add.reduceat(counts, _GROUP_FIRST)
    return grouped


class Histogram:
    """Counts of durations, recorded in nanoseconds and told in microseconds.

    ``counts`` is int64 of length SIZE, in shared memory if so wished, and is used as it is (not
    copied, not cleared); None: a new array of zeros. One process writes it, any may read it.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Int64 | None = None) -> None:
        if counts is None:
            counts = np.zeros(SIZE, dtype=np.int64)
        elif counts.dtype != np.int64 or counts.shape != (SIZE,):
            raise ValueError(
                f"counts must be int64 of shape ({SIZE},), not {counts.dtype} of {counts.shape}"
            )
        self.counts = counts

    def record(self, values_ns: Int64) -> None:
        """Adds durations, int64 nanoseconds of any length, each rounded to the nearest µs.

        What exceeds HIGHEST_US counts as HIGHEST_US, what is below 0 as 0.
        """
        if len(values_ns) <= _FEW:
            counts = self.counts
            for value in values_ns.tolist():
                us = min(max((value + UNIT_NS // 2) // UNIT_NS, 0), HIGHEST_US)
                bucket = (us | (_LINEAR - 1)).bit_length() - (_HALF_BITS + 1)
                counts[(bucket << _HALF_BITS) + (us >> bucket)] += 1
            return
        # Clipped first, so that rounding cannot overflow.
        us_all = np.clip(values_ns, 0, HIGHEST_US * UNIT_NS)
        us_all += UNIT_NS // 2
        us_all //= UNIT_NS
        # frexp's exponent is the bit length, exactly, for integers below 2**53.
        bits = np.frexp((us_all | (_LINEAR - 1)).astype(np.float64))[1]
        shift = bits.astype(np.int64) - (_HALF_BITS + 1)
        np.add.at(self.counts, (shift << _HALF_BITS) + (us_all >> shift), 1)

    def __iadd__(self, other: Histogram) -> Self:
        self.counts += other.counts
        return self

    def copy(self) -> Histogram:
        """A histogram of its own memory with the same counts."""
        return Histogram(self.counts.copy())

    def diff(self, earlier: Histogram) -> Histogram:
        """What was recorded since ``earlier``, a :meth:`copy` of this histogram."""
        return Histogram(self.counts - earlier.counts)

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return int(self.counts.sum())

    @property
    def min(self) -> int:
        """The lowest value equivalent to the least one recorded, in µs; 0 when empty."""
        filled = self.counts.nonzero()[0]
        return int(_LOWEST[filled[0]]) if len(filled) else 0

    @property
    def max(self) -> int:
        """The highest value equivalent to the greatest one recorded, in µs; 0 when empty."""
        filled = self.counts.nonzero()[0]
        return int(_HIGHEST[filled[-1]]) if len(filled) else 0

    @property
    def mean(self) -> float:
        """Σ count · median equivalent value / count, in µs; 0 when empty."""
        filled = self.counts.nonzero()[0]
        if not len(filled):
            return 0.0
        weights = self.counts[filled]
        # In floats: counts times 6e8 µs can pass 2**63.
        return float(np.dot(weights.astype(np.float64), _MEDIAN[filled]) / weights.sum())

    def percentile(self, percent: float) -> int:
        """The value in µs that ``percent`` (0 to 100) of the recorded ones do not exceed."""
        return self.percentiles([percent])[0]

    def percentiles(self, percents: Sequence[float]) -> list[int]:
        """The values in µs at ``percents`` (0 to 100, any order); zeros when empty.

        As in HdrHistogram: the highest value equivalent to that of rank
        max(1, ⌊percent · count / 100 + ½⌋); for percent 0 the lowest value equivalent to it.
        ValueError for a percent outside 0 to 100.
        """
        if not all(0 <= percent <= 100 for percent in percents):
            raise ValueError(f"percentiles must lie from 0 to 100, not {list(percents)}")
        running = np.cumsum(self.counts)
        total = int(running[-1])
        if not total:
            return [0] * len(percents)
        ranks = [max(1, int(percent * total / 100 + 0.5)) for percent in percents]
        places = np.searchsorted(running, ranks)
        return [
            int(_HIGHEST[place] if percent else _LOWEST[place])
            for percent, place in zip(percents, places, strict=True)
        ]

    def summary_ms(self) -> dict[str, float | None]:
        """p50, p90, p95, p99, p999 (99.9), p9999 (99.99), max and mean in milliseconds; None for
        all when empty."""
        keys = ("p50", "p90", "p95", "p99", "p999", "p9999", "max", "mean")
        values = [*self.percentiles([50, 90, 95, 99, 99.9, 99.99, 100]), self.mean]
        if not self.counts.any():
            return dict.fromkeys(keys)
        return {key: round(value / 1000, 6) for key, value in zip(keys, values, strict=True)}

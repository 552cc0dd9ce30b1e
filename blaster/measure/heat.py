"""The heat map of a run: how many requests took how long, interval by interval.

Rows are quarters of a doubling: [2^k, 2^(k+1)) µs in four equal parts, which the buckets of a
:class:`Histogram` never straddle, so that every count is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from blaster.measure.histogram import SIZE, Histogram, bounds

MOST_COLUMNS = 240
"""What is kept of a run, however long; neighbours are merged by addition (even)."""

_PARTS = 4


def _rows() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    low = bounds()[0]
    doubling = np.frexp(np.maximum(low, 1).astype(np.float64))[1] - 1  # exact: floor(log2)
    row = _PARTS * (doubling - 1) + (low >> np.maximum(doubling - 2, 0)) - _PARTS
    return np.where(low < _PARTS, low, row).astype(np.int64)


_ROW = _rows()
"""The row of each bucket of a Histogram (int64, SIZE)."""


def row_begin_us(row: int) -> int:
    """The least duration that belongs to a row, in µs."""
    doubling, part = divmod(row, _PARTS)
    return row if not doubling else (_PARTS + part) << (doubling - 1)


@dataclass(frozen=True, slots=True)
class Column:
    """The response times recorded up to ``end_s`` after the start: counts by row."""

    end_s: float
    counts: dict[int, int]

    @classmethod
    def of(cls, end_s: float, histogram: Histogram) -> Column:
        """The column of what was recorded in one interval."""
        filled = histogram.counts.nonzero()[0]
        rows, place = np.unique(_ROW[filled], return_inverse=True)
        sums = np.zeros(len(rows), np.int64)
        np.add.at(sums, place, histogram.counts[filled])
        return cls(end_s, dict(zip(rows.tolist(), sums.tolist(), strict=True)))


def merge_columns(one: Column, next_one: Column) -> Column:
    """The two intervals as one."""
    counts = dict(one.counts)
    for row, count in next_one.counts.items():
        counts[row] = counts.get(row, 0) + count
    return Column(next_one.end_s, counts)


class Heat(msgspec.Struct):
    """Requests by time and by response time.

    ``ends_s``: when each column ends, in seconds since the start, ascending; ``bounds_ms``: the
    ends of the rows, one more than there are rows; ``counts``: for each column the numbers of the
    rows that are not empty, each followed by its count.
    """

    ends_s: list[float]
    bounds_ms: list[float]
    counts: list[list[int]]


def heat_of(columns: Sequence[Column]) -> Heat | None:
    """The map of a run's columns, its rows from the least to the highest that was used; None
    where nothing was recorded."""
    used = [row for column in columns for row in column.counts]
    if not used:
        return None
    first, last = min(used), max(used)
    return Heat(
        [column.end_s for column in columns],
        [row_begin_us(row) / 1000 for row in range(first, last + 2)],
        [
            [number for row in sorted(c.counts) for number in (row - first, c.counts[row])]
            for c in columns
        ],
    )


assert len(_ROW) == SIZE

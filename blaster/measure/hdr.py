"""Histograms in HdrHistogram's interchange formats, which its own tools and its plotter read.

The encoding is V2 of HdrHistogram's ``EncodableHistogram``: a header, and the counts as ZigZag
LEB128 numbers, in which a negative one stands for so many zeros; compressed with zlib, in base64.
An interval log (format 1.3) has a line for each interval. A percentile distribution (``.hgrm``) is
the text that ``outputPercentileDistribution`` writes. Logs count in microseconds and say so by
their Interval_Max; distributions are in milliseconds.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from blaster.measure.histogram import HIGHEST_US, SIZE, Histogram

_COOKIE, _COMPRESSED_COOKIE = 0x1C849303 | 0x10, 0x1C849304 | 0x10
_DIGITS = 3
_TICKS_PER_HALF = 5
_SUB_BUCKETS, _BUCKETS = 2048, SIZE // 1024 - 1

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sparse:
    """A histogram's filled buckets: where they are, and their counts."""

    places: Int64
    counts: Int64

    @classmethod
    def of(cls, histogram: Histogram) -> Sparse:
        """The filled buckets of ``histogram``."""
        places = histogram.counts.nonzero()[0].astype(np.int64)
        return cls(places, histogram.counts[places])

    def whole(self) -> Histogram:
        """The histogram again."""
        histogram = Histogram()
        histogram.counts[self.places] = self.counts
        return histogram


@dataclass(frozen=True, slots=True)
class Interval:
    """The latencies that were recorded from ``begin_s`` to ``end_s`` after the start."""

    begin_s: float
    end_s: float
    response: Sparse
    service: Sparse

    @classmethod
    def of(cls, begin_s: float, end_s: float, response: Histogram, service: Histogram) -> Interval:
        """An interval with a copy of what is in the histograms."""
        return cls(begin_s, end_s, Sparse.of(response), Sparse.of(service))


@dataclass(frozen=True, slots=True)
class Latencies:
    """The latencies of a run, the warm-up left out of ``response`` but not of ``intervals``.

    ``started_at``: seconds since 1970."""

    started_at: float
    response: Histogram
    intervals: Sequence[Interval]


def merge_intervals(one: Interval, next_one: Interval) -> Interval:
    """The two intervals as one."""

    def added(a: Sparse, b: Sparse) -> Histogram:
        histogram = a.whole()
        histogram += b.whole()
        return histogram

    return Interval.of(
        one.begin_s,
        next_one.end_s,
        added(one.response, next_one.response),
        added(one.service, next_one.service),
    )


def encode(histogram: Histogram) -> str:
    """The compressed V2 encoding, in base64, in µs."""
    filled = histogram.counts.nonzero()[0]
    payload = bytearray()
    at = 0
    for place in filled.tolist():
        if place > at:
            _zigzag(payload, at - place)
        _zigzag(payload, int(histogram.counts[place]))
        at = place + 1
    head = struct.pack(">iiiiqqd", _COOKIE, len(payload), 0, _DIGITS, 1, HIGHEST_US, 1.0)
    packed = zlib.compress(head + payload)
    return base64.b64encode(struct.pack(">ii", _COMPRESSED_COOKIE, len(packed)) + packed).decode()


def _zigzag(out: bytearray, value: int) -> None:
    """Appends a number as ZigZag LEB128-64b9B: seven bits a byte, the ninth byte whole."""
    number = (value << 1) ^ (value >> 63)
    for _ in range(8):
        if number < 0x80:
            break
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number & 0xFF)


def interval_log(intervals: Iterable[Interval], started_at: float, version: str) -> Iterator[str]:
    """The lines of an interval log: each interval twice, tagged ``response`` and ``service``.

    ``started_at``: seconds since 1970. Interval_Max is in milliseconds.
    """
    when = datetime.fromtimestamp(started_at, UTC).strftime("%a %b %d %H:%M:%S UTC %Y")
    yield f"#[Logged with blaster {version}]\n"
    yield "#[Histogram log format version 1.3]\n"
    yield f"#[StartTime: {started_at:.3f} (seconds since epoch), {when}]\n"
    yield f"#[BaseTime: {started_at:.3f} (seconds since epoch)]\n"
    yield '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    for interval in intervals:
        length = interval.end_s - interval.begin_s
        for tag, sparse in (("response", interval.response), ("service", interval.service)):
            histogram = sparse.whole()
            yield (
                f"Tag={tag},{interval.begin_s:.3f},{length:.3f},{histogram.max / 1000:.3f},"
                f"{encode(histogram)}\n"
            )


def distribution(histogram: Histogram) -> Iterator[str]:
    """The lines of a percentile distribution in milliseconds, five steps to each half distance."""
    yield f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n"
    for value, share, count in steps(histogram):
        inverse = f"{1 / (1 - share):14.2f}" if share < 1 else ""
        yield f"{value / 1000:12.3f} {share:2.12f} {count:10d} {inverse}".rstrip() + "\n"
    mean = histogram.mean / 1000
    yield f"#[Mean    = {mean:12.3f}, StdDeviation   = {_deviation(histogram) / 1000:12.3f}]\n"
    yield f"#[Max     = {histogram.max / 1000:12.3f}, TotalCount     = {histogram.count:12d}]\n"
    yield f"#[Buckets = {_BUCKETS:12d}, SubBuckets     = {_SUB_BUCKETS:12d}]\n"


def steps(histogram: Histogram) -> Iterator[tuple[int, float, int]]:
    """The points of a percentile distribution, five to each half of the distance to 1: a value in
    µs, the share (0 to 1) that does not exceed it, and their count; none when empty."""
    total, percent = histogram.count, 0.0
    filled = histogram.counts.nonzero()[0]
    highest = _highest(filled)
    for place, value in zip(np.cumsum(histogram.counts[filled]).tolist(), highest, strict=True):
        while place * 100 / total >= percent:
            yield value, percent / 100, place
            if percent >= 100:
                return
            if place == total:
                percent = 100.0
                continue
            halves = int(math.log2(100 / (100 - percent))) + 1
            percent += 100 / (_TICKS_PER_HALF * 2**halves)


def _highest(places: Int64) -> list[int]:
    """The highest value of each bucket, in µs."""
    shift = np.maximum((places >> 10) - 1, 0)
    sub = np.where(places < _SUB_BUCKETS, places, (places & 1023) + 1024)
    return [int(value) for value in ((sub + 1) << shift) - 1]


def _deviation(histogram: Histogram) -> float:
    filled = histogram.counts.nonzero()[0]
    if not len(filled):
        return 0.0
    shift = np.maximum((filled >> 10) - 1, 0)
    middle = np.array(_highest(filled)) + 1 - (1 << shift) + (1 << shift) // 2
    weights = histogram.counts[filled]
    square = float(np.dot(weights, (middle - histogram.mean) ** 2)) / float(weights.sum())
    return math.sqrt(square)

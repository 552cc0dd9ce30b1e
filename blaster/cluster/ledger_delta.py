"""LedgerDelta: a slab's words as they travel between hosts: only those that changed, packed.

Once a second a host reports how its words changed, with the histograms made coarse: some hundred
buckets, however many requests there were. At its end it sends all of them, as they are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from blaster.engine.ledger import Ledger
from blaster.engine.segments import Segments
from blaster.engine.slab import PLAIN_WORDS, Segment, Slab, SpanCounts, segment_words
from blaster.layout import Int64
from blaster.measure.histogram import SIZE, Histogram, coarse

_BYTES_EACH = 12  # four of the distance to the word before, eight of the value


def pack(places: Int64, values: Int64) -> bytes:
    """Pack words ``values`` (int64) at ``places`` (int64, ascending)."""
    steps = np.diff(places, prepend=0).astype("<u4")
    return zlib.compress(steps.tobytes() + values.astype("<i8").tobytes(), 1)


def unpack(data: bytes, length: int) -> tuple[Int64, Int64]:
    """Return the places and values again; ValueError unless they are words of a slab so long."""
    machine = zlib.decompressobj()
    try:
        raw = machine.decompress(data, length * _BYTES_EACH + 1)
    except zlib.error as error:
        raise ValueError(f"not packed words: {error}") from None
    count, odd = divmod(len(raw), _BYTES_EACH)
    if odd or not machine.eof:
        raise ValueError("not packed words: too long or cut off")
    places = np.cumsum(np.frombuffer(raw, "<u4", count), dtype=np.int64)
    values = np.frombuffer(raw, "<i8", count, 4 * count).astype(np.int64)
    if count and places[-1] >= length:
        raise ValueError(f"not packed words: word {places[-1]} of {length}")
    return places, values


class LedgerDelta:
    """The changes of a host's ledger since they were last reported."""

    def __init__(self, ledger: Ledger, segments: Segments, start_ns: int) -> None:
        self._ledger, self._start_ns = ledger, start_ns
        self._known = np.zeros(len(segments), np.int64)
        self._now = np.zeros(len(ledger.slabs[0].all_words), np.int64)
        self._reported = np.zeros_like(self._now)

    def change(self) -> bytes:
        """Return how the words changed since the last call, histograms coarse; packed."""
        places, values = [], []
        for part in self._changed():
            difference = part.words - self._reported[part.where]
            found = np.flatnonzero(difference)
            self._reported[part.where] = part.words
            places.append(found + part.where.start)
            values.append(difference[found])
        return pack(np.concatenate(places), np.concatenate(values))

    def all_words(self) -> bytes:
        """Return all words as they are; packed."""
        self._ledger.added(self._now, self._start_ns, np.full_like(self._known, -1))
        found = np.flatnonzero(self._now)
        return pack(found, self._now[found])

    def _changed(self) -> Iterator[_Part]:
        known = self._ledger.added(self._now, self._start_ns, self._known)
        yield _Part(PLAIN_WORDS, self._now[PLAIN_WORDS].copy())
        for number in np.flatnonzero(known > self._known).tolist():
            where = segment_words(number)
            yield _Part(where, _coarse(self._now[where]))
        self._known = known


class _Part:
    __slots__ = ("where", "words")

    def __init__(self, where: slice, words: Int64) -> None:
        self.where, self.words = where, words


def _coarse(words: Int64) -> Int64:
    """A segment's words with its histograms made coarse."""
    made = words.copy()
    segment = Segment(made)
    for histogram in (segment.response, segment.service, segment.lateness):
        assert len(histogram.counts) == SIZE
        histogram.counts[:] = coarse(histogram.counts)
    return made


def latencies(places: Int64, values: Int64) -> tuple[Histogram, Histogram]:
    """The response and service times in changed words, over all segments."""
    histograms = (places - Slab.size) % Segment.size - SpanCounts.size
    made = []
    for number in range(2):
        inside = (places >= Slab.size) & (histograms >= 0) & (histograms // SIZE == number)
        histogram = Histogram()
        np.add.at(histogram.counts, histograms[inside] - number * SIZE, values[inside])
        made.append(histogram)
    return made[0], made[1]


class Sum:
    """Words of a host that were reported in changes, kept as few as they are. ``plain``: those
    that belong to no segment."""

    MOST_PENDING = 32

    def __init__(self, length: int) -> None:
        self._length = length
        self.plain = np.zeros(Slab.size, np.int64)
        self._places = np.zeros(0, np.int64)
        self._values = np.zeros(0, np.int64)
        self._pending: list[tuple[Int64, Int64]] = []

    def add(self, places: Int64, values: Int64) -> None:
        """Add a change."""
        self._pending.append((places, values))
        end = int(np.searchsorted(places, len(self.plain)))
        self.plain[places[:end]] += values[:end]
        if len(self._pending) > self.MOST_PENDING:
            self._settle()

    def whole(self) -> Int64:
        """All words (int64)."""
        self._settle()
        words = np.zeros(self._length, np.int64)
        words[self._places] = self._values
        return words

    def _settle(self) -> None:
        places = np.concatenate([self._places, *(p for p, _ in self._pending)])
        values = np.concatenate([self._values, *(v for _, v in self._pending)])
        self._places, where = np.unique(places, return_inverse=True)
        self._values = np.zeros(len(self._places), np.int64)
        np.add.at(self._values, where, values)
        self._pending.clear()

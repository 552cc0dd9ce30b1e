"""The Ledger: counts of spans and requests of all workers, in shared memory.

Each worker writes its own slab; the parent only reads and adds.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable, Sequence

import numpy as np

from blaster.engine.segments import Segments
from blaster.engine.slab import (
    PLAIN_WORDS,
    SEND_COUNTS,
    TEXT_BYTES,
    Segment,
    Slab,
    SpanCounts,
    WorkerState,
    segment_words,
)
from blaster.layout import Int64, Layout, Word, Words
from blaster.measure.histogram import Histogram
from blaster.pacing.hold import Hold

_COPIES, _COPY_PAUSE_S = 50, 0.0005
"""How often a slab is copied until no worker wrote to it meanwhile; one that was killed as it wrote
stays as it is."""

MOST_HOLDS = 32


class ControlBlock(Layout):
    """What the parent tells all workers, in CLOCK_MONOTONIC ns: when the run starts and when it was
    stopped (0: not yet), and until when workers may send whatever else is said (0: no such limit).
    ``hold_steps``: how often the rate was held or released; ``hold_words``: the holds, three words
    each."""

    start_ns = Word()
    stop_ns = Word()
    lease_ns = Word()
    hold_steps = Word()
    hold_words = Words(3 * MOST_HOLDS)


class Ledger:
    """The slabs of all workers and the control block, in anonymous memory that forks share.

    ``epoch_ns``: when CLOCK_MONOTONIC was 0, ns since 1970.
    """

    def __init__(self, workers: int, segments: Segments) -> None:
        # One for all workers: the parts of a trace that several of them send agree on its times.
        self.epoch_ns = time.time_ns() - time.monotonic_ns()
        self._segments = segments
        self._slab_words = segment_words(len(segments)).start
        words = ControlBlock.size + workers * self._slab_words
        self._lay(
            workers,
            np.frombuffer(mmap.mmap(-1, words * 8), np.int64),
            memoryview(mmap.mmap(-1, workers * TEXT_BYTES)),
        )

    def _lay(self, workers: int, words: Int64, texts: memoryview) -> None:
        self.control = ControlBlock(words)
        self.slabs = []
        for worker in range(workers):
            first = ControlBlock.size + worker * self._slab_words
            text = texts[worker * TEXT_BYTES : (worker + 1) * TEXT_BYTES]
            part = words[first : first + self._slab_words]
            self.slabs.append(Slab(part, text, self._segments.starts))

    def snapshot(self) -> Ledger:
        """A ledger of its own memory with the counts of this moment."""
        copy = Ledger.__new__(Ledger)
        copy._segments, copy._slab_words = self._segments, self._slab_words
        copy.epoch_ns = self.epoch_ns
        words = ControlBlock.size + len(self.slabs) * self._slab_words
        texts = memoryview(bytearray(len(self.slabs) * TEXT_BYTES))
        copy._lay(len(self.slabs), np.zeros(words, np.int64), texts)
        copy.control.words[:] = self.control.words
        for ours, its in zip(self.slabs, copy.slabs, strict=True):
            for _ in range(_COPIES):
                before = ours.revision
                its.copy(ours)
                if before % 2 == 0 and before == ours.revision:
                    break
                time.sleep(_COPY_PAUSE_S)
        return copy

    def holds(self) -> list[Hold]:
        """The holds so far; the last may be open."""
        count = (self.control.hold_steps + 1) // 2
        words = self.control.hold_words[: 3 * count].tolist()
        return [Hold(*words[i : i + 3]) for i in range(0, len(words), 3)]

    def put_holds(self, holds: Sequence[Hold]) -> None:
        """Tells the workers: one hold more than there were, or the last one released."""
        words = [n for hold in holds for n in (hold.begin_ns, hold.rate, hold.duration_ns)]
        self.control.hold_words[: len(words)] = words
        self.control.hold_steps += 1  # last: who sees it sees the words

    def stop(self) -> None:
        """Tells the workers to stop. The first call counts."""
        if self.control.stop_ns == 0:
            self.control.stop_ns = time.monotonic_ns()

    @property
    def stopped_ns(self) -> int:
        """When the run was stopped; 0: it was not."""
        return self.control.stop_ns

    @property
    def stop_word(self) -> Int64:
        """The same, as transports watch it (int64, 1)."""
        return self.control.array(ControlBlock.stop_ns)

    def total(self, word: Word) -> int:
        """The sum of one word of a Slab over the workers."""
        return sum(slab.ints[word] for slab in self.slabs)

    def lost_spans(self) -> int:
        """Spans that were sent and, by now, will not be accepted, or may not have been."""
        return self.total(Slab.rejected) + self.total(Slab.failed) + self.total(Slab.unknown)

    def statuses(self) -> Int64:
        """Requests by Status over all workers."""
        total: Int64 = np.sum([slab.statuses for slab in self.slabs], axis=0)
        return total

    def retried_statuses(self) -> Int64:
        """Requests sent again, by the Status of the try before, over all workers."""
        total: Int64 = np.sum([slab.retried_statuses for slab in self.slabs], axis=0)
        return total

    def lease(self, until_ns: int) -> int:
        """``until_ns``, or when the workers must stop sending whatever else is said, if earlier."""
        lease = self.control.lease_ns
        return min(until_ns, lease) if lease else until_ns

    def added(self, into: Int64, start_ns: int, known: Int64) -> Int64:
        """Adds up the slabs' words into ``into`` (int64, as long as a slab's ``all_words``).

        Words that are times are the latest of them, since ``start_ns``; states are left out. Only
        segments in which more requests ended than ``known`` (int64, one a segment) are written;
        returns what is known now.
        """
        now = known.copy()
        for number in range(len(self._segments)):
            here = [slab.segments[number] for slab in self.slabs]
            now[number] = sum(segment.requests for segment in here)
            if now[number] > known[number]:
                words = [segment.words for segment in here]
                np.sum(words, axis=0, out=into[segment_words(number)])
        # In this order, so that what was sent is never less than what is known of it.
        np.sum([slab.words for slab in self.slabs], axis=0, out=into[PLAIN_WORDS])
        into[Slab.last_sent_ns] = max(self.last_sent_ns() - start_ns, 0)
        into[Slab.state] = WorkerState.STARTING
        sent = [slab.words[SEND_COUNTS] for slab in self.slabs]
        np.sum(sent, axis=0, out=into[SEND_COUNTS])
        return now

    def last_sent_ns(self) -> int:
        """When the last request was sent (CLOCK_MONOTONIC); 0: none was."""
        return max(slab.last_sent_ns for slab in self.slabs)

    def in_flight(self) -> int:
        """Requests sent and not yet answered."""
        return self.total(Slab.sent_requests) - self.total(Slab.done_requests)

    def counts(self, segments: Iterable[int] | None = None) -> SpanCounts:
        """The counts over the workers and these segments; None: all."""
        total = SpanCounts.zeros()
        for segment in self._used(segments):
            total.words += segment.words[: SpanCounts.size]
        return total

    def response(self, segments: Iterable[int] | None = None) -> Histogram:
        """Latency from the scheduled time, over all workers and these segments; None: all."""
        return _merged([segment.response for segment in self._used(segments)])

    def service(self, segments: Iterable[int] | None = None) -> Histogram:
        """Latency from the send, likewise."""
        return _merged([segment.service for segment in self._used(segments)])

    def lateness(self, segments: Iterable[int] | None = None) -> Histogram:
        """How far behind the schedule sends were, likewise."""
        return _merged([segment.lateness for segment in self._used(segments)])

    def _used(self, segments: Iterable[int] | None) -> list[Segment]:
        """Those with something in them: to read the others would only make them take memory."""
        wanted = range(len(self._segments)) if segments is None else segments
        every = [slab.segments[number] for slab in self.slabs for number in wanted]
        return [segment for segment in every if segment.sent]


def _merged(histograms: list[Histogram]) -> Histogram:
    merged = Histogram()
    for histogram in histograms:
        merged += histogram
    return merged

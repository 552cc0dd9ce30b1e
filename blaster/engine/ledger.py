"""The Ledger: counts of spans and requests in shared memory, one slab a worker.

Each slab has a single writer, its worker; the parent only reads and adds. A worker raises what it
sent before the first byte can leave and what came of it after the answer, so that the slab of a
worker that was killed at any moment still tells the truth: what was sent and is not accounted for
is unknown. Counts and histograms of outcomes are also kept for each segment of the run, by the time
the request was due (in a closed loop: was sent).
"""

from __future__ import annotations

import json
import mmap
import time
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from blaster.engine.segments import Segments
from blaster.measure.histogram import SIZE, Histogram
from blaster.pacing.hold import Hold
from blaster.transport import base
from blaster.transport.base import STATUS_COUNT, Status, answered, left

Int64 = npt.NDArray[np.int64]
Outcomes = npt.NDArray[np.void]

STARTING, READY, RUNNING, DONE, FAILED = range(5)
"""The states of a worker."""

(
    STATE,
    SCHEDULED_SPANS,
    ACCEPTED,
    REJECTED,
    FAILED_SPANS,
    UNKNOWN,
    DONE_REQUESTS,
    OK_REQUESTS,
    LAST_SENT_NS,
    CPU_BEGIN_NS,
    CPU_NS,
    RECORDINGS,
    _SENT,
) = range(13)
"""RECORDINGS is raised before and after Outcomes are added: where it is odd, some counts have them
and others do not yet."""

SENT_REQUESTS = _SENT + base.SENT_REQUESTS
SENT_SPANS = _SENT + base.SENT_SPANS
SENT_BYTES = _SENT + base.SENT_BYTES
RETRIED = _SENT + base.RETRIED
RETRIED_SPANS = _SENT + base.RETRIED_SPANS
POSSIBLE_DUPLICATES = _SENT + base.POSSIBLE_DUPLICATES
BEHIND_NS = _SENT + base.BEHIND_NS
HELD_NS = _SENT + base.HELD_NS
CAPPED_NS = _SENT + base.CAPPED_NS
COMPRESSED_FROM = _SENT + base.COMPRESSED_FROM
COMPRESSED_TO = _SENT + base.COMPRESSED_TO
COMPRESSION_NS = _SENT + base.COMPRESSION_NS

_STATUSES = slice(_SENT + base.RAISED, _SENT + base.RAISED + STATUS_COUNT)

SEG_REQUESTS, SEG_SENT, SEG_ACCEPTED, SEG_REJECTED, SEG_FAILED, SEG_UNKNOWN, _SEG_FIELDS = range(7)
"""The counts of a segment: requests that have ended, and their spans."""

_COPIES, _COPY_PAUSE_S = 50, 0.0005
"""How often a slab is copied until no worker wrote to it meanwhile; one that was killed as it wrote
stays as it is."""

_SEGMENT_WORDS = _SEG_FIELDS + 3 * SIZE
_TEXT_BYTES = 4096

MOST_HOLDS = 32

START_NS, STOP_NS, LEASE_NS, HOLD_STEPS, _HOLDS = range(5)
"""Words of the control block: when the run starts and when it was stopped (0: not yet), until when
workers may send whatever else is said (0: no such limit), how often the rate was held or released,
and the holds, three words each."""

_CONTROL_WORDS = _HOLDS + 3 * MOST_HOLDS


def plain_words() -> slice:
    """Where in all words of a slab those are that belong to no segment."""
    return slice(0, _STATUSES.stop)


def segment_words(number: int) -> slice:
    """Where in all words of a slab the segment ``number`` has its own."""
    first = _STATUSES.stop + number * _SEGMENT_WORDS
    return slice(first, first + _SEGMENT_WORDS)


class Segment:
    """One segment's part of a slab: counts and histograms, views of shared memory."""

    def __init__(self, words: Int64) -> None:
        self.words = words
        self.counts = words[:_SEG_FIELDS]
        histograms = words[_SEG_FIELDS:].reshape(3, SIZE)
        self.response, self.service, self.lateness = map(Histogram, histograms)


class Slab:
    """One worker's counts: a view of shared memory."""

    def __init__(self, words: Int64, text: memoryview, starts: Int64) -> None:
        self.all_words = words
        self.words = words[: _STATUSES.stop]
        self._text = text
        self.starts = starts
        self.segments = [
            Segment(words[first : first + _SEGMENT_WORDS])
            for first in range(_STATUSES.stop, len(words), _SEGMENT_WORDS)
        ]

    @property
    def sent(self) -> Int64:
        """What a Transport raises (int64, base.RAISED)."""
        return self.words[_SENT : _SENT + base.RAISED]

    @property
    def retried_statuses(self) -> Int64:
        """Requests sent again, by the Status of the try before (int64, STATUS_COUNT)."""
        return self.sent[base.RETRIED_STATUSES]

    @property
    def statuses(self) -> Int64:
        """Requests by Status (int64, STATUS_COUNT)."""
        return self.words[_STATUSES]

    @property
    def cpu_seconds(self) -> float:
        """What the worker spent since it was told to start, by its own clock at its last record."""
        return int(self.words[CPU_NS] - self.words[CPU_BEGIN_NS]) / 1e9

    def record(self, outcomes: Outcomes, start_ns: int, *, closed_loop: bool) -> None:
        """Adds Outcomes (dtype OUTCOME) of a run that started at ``start_ns``. In a closed loop
        there is no schedule: latency counts from the send and nothing is late."""
        if len(outcomes) == 0:
            return
        self.words[RECORDINGS] += 1
        np.add.at(self.statuses, outcomes["status"], 1)
        begun = outcomes["sent" if closed_loop else "scheduled"] - start_ns
        place = np.maximum(np.searchsorted(self.starts, begun, side="right") - 1, 0)
        first, last = int(place.min()), int(place.max())
        for number in range(first, last + 1):
            here = outcomes if first == last else outcomes[place == number]
            if len(here):
                self._record(self.segments[number], here, closed_loop)
        self.words[RECORDINGS] += 1

    def _record(self, segment: Segment, outcomes: Outcomes, closed_loop: bool) -> None:
        status, spans, rejected = outcomes["status"], outcomes["spans"], outcomes["rejected"]
        ok = status == Status.OK
        unanswered = left(status) & ~answered(status)
        all_spans = int(spans.sum())
        unknown = int(spans[unanswered].sum())
        turned_away = int(rejected[ok].sum())
        accepted = int(spans[ok].sum()) - turned_away
        failed = all_spans - accepted - turned_away - unknown
        self.words[ACCEPTED] += accepted
        self.words[REJECTED] += turned_away
        self.words[UNKNOWN] += unknown
        self.words[FAILED_SPANS] += failed
        self.words[DONE_REQUESTS] += len(outcomes)
        self.words[OK_REQUESTS] += int(ok.sum())
        segment.counts += (len(outcomes), all_spans, accepted, turned_away, failed, unknown)
        gone = outcomes[left(status)]
        # A request given up at its deadline took at least that long; leaving it out would make
        # a stalled target look quick.
        timed = answered(status) | (status == Status.NO_ANSWER_TIMEOUT)
        timed_outcomes = outcomes[timed]
        if len(gone):
            self.words[LAST_SENT_NS] = max(int(self.words[LAST_SENT_NS]), int(gone["sent"].max()))
        if len(timed_outcomes):
            begun = timed_outcomes["sent" if closed_loop else "scheduled"]
            segment.service.record(timed_outcomes["done"] - timed_outcomes["sent"])
            segment.response.record(timed_outcomes["done"] - begun)
        if not closed_loop and len(gone):
            segment.lateness.record(np.maximum(gone["sent"] - gone["scheduled"], 0))

    def copy(self, other: Slab) -> None:
        """Takes all that the other holds."""
        for ours, its in zip(self.segments, other.segments, strict=True):
            if its.counts[SEG_REQUESTS]:
                ours.words[:] = its.words
        self.words[:] = other.words
        # Last: what was sent is never less than what is known of it.
        self.sent[:] = other.sent
        self.say(other.said())

    def settle(self) -> None:
        """Makes what was sent and is not accounted for unknown, here and in its last segment."""
        words = self.words
        known = int(words[ACCEPTED] + words[REJECTED] + words[FAILED_SPANS] + words[UNKNOWN])
        missing = int(words[SENT_SPANS]) - known
        words[UNKNOWN] += missing
        used = [segment for segment in self.segments if segment.counts[SEG_REQUESTS]]
        last = (used or self.segments)[-1]
        # A worker killed within record() leaves the segments fewer spans than the totals.
        missing = int(words[SENT_SPANS]) - sum(int(s.counts[SEG_SENT]) for s in self.segments)
        last.counts[SEG_UNKNOWN] += missing
        last.counts[SEG_SENT] += missing
        words[DONE_REQUESTS] = words[SENT_REQUESTS]

    def say(self, messages: dict[str, str]) -> None:
        """Leaves short texts for the parent: the first message by status, or what failed."""
        longest = max(map(len, messages.values()), default=0)
        data = json.dumps(messages).encode()
        while len(data) > _TEXT_BYTES - 1 and longest:
            longest //= 2
            data = json.dumps({k: v[:longest] for k, v in messages.items()}).encode()
        self._text[: len(data) + 1] = data + b"\0"

    def said(self) -> dict[str, str]:
        """What the worker left; empty when it was interrupted while saying it."""
        data = bytes(self._text).partition(b"\0")[0]
        try:
            return dict(json.loads(data)) if data else {}
        except ValueError:
            return {}


class Ledger:
    """The slabs of all workers and the control block, in anonymous memory that forks share.

    ``epoch_ns``: when CLOCK_MONOTONIC was 0, ns since 1970.
    """

    def __init__(self, workers: int, segments: Segments) -> None:
        # One for all workers: the parts of a trace that several of them send agree on its times.
        self.epoch_ns = time.time_ns() - time.monotonic_ns()
        self._segments = segments
        self._slab_words = _STATUSES.stop + len(segments) * _SEGMENT_WORDS
        words = _CONTROL_WORDS + workers * self._slab_words
        self._lay(
            workers,
            np.frombuffer(mmap.mmap(-1, words * 8), np.int64),
            memoryview(mmap.mmap(-1, workers * _TEXT_BYTES)),
        )

    def _lay(self, workers: int, words: Int64, texts: memoryview) -> None:
        self.control = words[:_CONTROL_WORDS]
        self.slabs = []
        for worker in range(workers):
            first = _CONTROL_WORDS + worker * self._slab_words
            text = texts[worker * _TEXT_BYTES : (worker + 1) * _TEXT_BYTES]
            part = words[first : first + self._slab_words]
            self.slabs.append(Slab(part, text, self._segments.starts))

    def snapshot(self) -> Ledger:
        """A ledger of its own memory with the counts of this moment."""
        copy = Ledger.__new__(Ledger)
        copy._segments, copy._slab_words = self._segments, self._slab_words
        copy.epoch_ns = self.epoch_ns
        words = _CONTROL_WORDS + len(self.slabs) * self._slab_words
        texts = memoryview(bytearray(len(self.slabs) * _TEXT_BYTES))
        copy._lay(len(self.slabs), np.zeros(words, np.int64), texts)
        copy.control[:] = self.control
        for ours, its in zip(self.slabs, copy.slabs, strict=True):
            for _ in range(_COPIES):
                before = int(ours.words[RECORDINGS])
                its.copy(ours)
                if before % 2 == 0 and before == int(ours.words[RECORDINGS]):
                    break
                time.sleep(_COPY_PAUSE_S)
        return copy

    def holds(self) -> list[Hold]:
        """The holds so far; the last may be open."""
        count = (int(self.control[HOLD_STEPS]) + 1) // 2
        words = self.control[_HOLDS : _HOLDS + 3 * count].tolist()
        return [Hold(*words[i : i + 3]) for i in range(0, len(words), 3)]

    def put_holds(self, holds: Sequence[Hold]) -> None:
        """Tells the workers: one hold more than there were, or the last one released."""
        words = [n for hold in holds for n in (hold.begin_ns, hold.rate, hold.duration_ns)]
        self.control[_HOLDS : _HOLDS + len(words)] = words
        self.control[HOLD_STEPS] += 1  # last: who sees it sees the words

    def stop(self) -> None:
        """Tells the workers to stop. The first call counts."""
        if self.control[STOP_NS] == 0:
            self.control[STOP_NS] = time.monotonic_ns()

    @property
    def stopped_ns(self) -> int:
        """When the run was stopped; 0: it was not."""
        return int(self.control[STOP_NS])

    @property
    def stop_word(self) -> Int64:
        """The same, as transports watch it (int64, 1)."""
        return self.control[STOP_NS : STOP_NS + 1]

    def total(self, field: int) -> int:
        """The sum of one field over the workers."""
        return sum(int(slab.words[field]) for slab in self.slabs)

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
        lease = int(self.control[LEASE_NS])
        return min(until_ns, lease) if lease else until_ns

    def added(self, into: Int64, start_ns: int, known: Int64) -> Int64:
        """Adds up the slabs' words into ``into`` (int64, as long as a slab's ``all_words``).

        Words that are times are the latest of them, since ``start_ns``; states are left out. Only
        segments in which more requests ended than ``known`` (int64, one a segment) are written;
        returns what is known now.
        """
        now = known.copy()
        for number in range(len(self._segments)):
            here = [slab.segments[number].words for slab in self.slabs]
            now[number] = sum(int(words[SEG_REQUESTS]) for words in here)
            if now[number] > known[number]:
                np.sum(here, axis=0, out=into[segment_words(number)])
        # In this order, so that what was sent is never less than what is known of it.
        plain = into[: _STATUSES.stop]
        np.sum([slab.words for slab in self.slabs], axis=0, out=plain)
        latest = max(int(slab.words[LAST_SENT_NS]) for slab in self.slabs)
        plain[LAST_SENT_NS] = max(latest - start_ns, 0)
        plain[STATE] = 0
        raised = slice(_SENT, _SENT + base.RAISED)
        np.sum([slab.sent for slab in self.slabs], axis=0, out=plain[raised])
        return now

    def in_flight(self) -> int:
        """Requests sent and not yet answered."""
        return self.total(SENT_REQUESTS) - self.total(DONE_REQUESTS)

    def counts(self, segments: Iterable[int] | None = None) -> Int64:
        """The counts (SEG_REQUESTS …) over the workers and these segments; None: all."""
        total = np.zeros(_SEG_FIELDS, np.int64)
        for segment in self._used(segments):
            total += segment.counts
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
        return [segment for segment in every if segment.counts[SEG_SENT]]


def _merged(histograms: list[Histogram]) -> Histogram:
    merged = Histogram()
    for histogram in histograms:
        merged += histogram
    return merged

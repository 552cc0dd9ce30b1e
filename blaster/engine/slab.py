"""Slab: one worker's counts and histograms, in shared memory.

A slab has a single writer, its worker. What was sent is raised before the first byte can leave and
what came of it after the answer, so that the slab of a worker that was killed at any moment still
tells the truth: what was sent and is not accounted for is unknown. Counts and histograms of
outcomes are also kept for each segment of the run, by the time the request was due (in a closed
loop: was sent).
"""

from __future__ import annotations

import json
from enum import IntEnum

import numpy as np

from blaster.layout import Int64, Layout, Word, Words
from blaster.measure.histogram import SIZE, Histogram
from blaster.transport.base import (
    STATUS_COUNT,
    Outcomes,
    SendCounts,
    Status,
    answered,
    left,
)

TEXT_BYTES = 4096
"""What a worker's messages may take."""


class WorkerState(IntEnum):
    """How far a worker has come."""

    STARTING = 0
    READY = 1
    RUNNING = 2
    DONE = 3
    FAILED = 4


class SpanCounts(Layout):
    """The requests that have ended, and their spans by what became of them:
    sent = accepted + rejected + failed + unknown."""

    requests = Word()
    sent = Word()
    accepted = Word()
    rejected = Word()
    failed = Word()
    unknown = Word()


class Segment(SpanCounts):
    """One segment's part of a slab: its counts and, as :class:`Histogram` too, the words of the
    response times, the service times and the lateness."""

    response_words = Words(SIZE)
    service_words = Words(SIZE)
    lateness_words = Words(SIZE)

    def __init__(self, words: Int64) -> None:
        super().__init__(words)
        self.response = Histogram(self.response_words)
        self.service = Histogram(self.service_words)
        self.lateness = Histogram(self.lateness_words)


class Slab(SendCounts):
    """One worker's counts: a view of shared memory, which begins with what its transport counts.

    ``state``: a :class:`WorkerState`. ``scheduled``, ``accepted``, ``rejected``, ``failed`` and
    ``unknown`` are spans; ``done_requests`` and ``ok_requests`` requests that have ended.
    ``last_sent_ns``: CLOCK_MONOTONIC; ``cpu_begin_ns`` and ``cpu_ns``: the worker's CPU time when
    it was told to start, and at its last record. ``revision`` is raised before and after Outcomes
    are recorded: where it is odd, some counts have them and others do not yet. ``statuses``:
    requests by Status.

    ``all_words``: its words and those of its ``segments`` behind them; ``starts``: when each of
    these begins, ns since the start.
    """

    state = Word()
    scheduled = Word()
    accepted = Word()
    rejected = Word()
    failed = Word()
    unknown = Word()
    done_requests = Word()
    ok_requests = Word()
    last_sent_ns = Word()
    cpu_begin_ns = Word()
    cpu_ns = Word()
    revision = Word()
    statuses = Words(STATUS_COUNT)

    def __init__(self, words: Int64, text: memoryview, starts: Int64) -> None:
        super().__init__(words)
        self.all_words = words
        self._text = text
        self.starts = starts
        self.segments = [
            Segment(words[segment_words(number)]) for number in range(segments_in(len(words)))
        ]

    @property
    def cpu_seconds(self) -> float:
        """The worker's CPU time since it was told to start, by its own clock at its last record."""
        return (self.cpu_ns - self.cpu_begin_ns) / 1e9

    def record(self, outcomes: Outcomes, start_ns: int, *, closed_loop: bool) -> None:
        """Add Outcomes (dtype OUTCOME) of a run that started at ``start_ns``. In a closed loop
        there is no schedule: latency counts from the send and nothing is late."""
        if len(outcomes) == 0:
            return
        self.revision += 1
        np.add.at(self.statuses, outcomes["status"], 1)
        begun = outcomes["sent" if closed_loop else "scheduled"] - start_ns
        place = np.maximum(np.searchsorted(self.starts, begun, side="right") - 1, 0)
        first, last = int(place.min()), int(place.max())
        for number in range(first, last + 1):
            here = outcomes if first == last else outcomes[place == number]
            if len(here):
                self._record(self.segments[number], here, closed_loop)
        self.revision += 1

    def _record(self, segment: Segment, outcomes: Outcomes, closed_loop: bool) -> None:
        status, spans, rejected = outcomes["status"], outcomes["spans"], outcomes["rejected"]
        ok = status == Status.OK
        unanswered = left(status) & ~answered(status)
        all_spans = int(spans.sum())
        unknown = int(spans[unanswered].sum())
        turned_away = int(rejected[ok].sum())
        accepted = int(spans[ok].sum()) - turned_away
        failed = all_spans - accepted - turned_away - unknown
        self.accepted += accepted
        self.rejected += turned_away
        self.unknown += unknown
        self.failed += failed
        self.done_requests += len(outcomes)
        self.ok_requests += int(ok.sum())
        segment.requests += len(outcomes)
        segment.sent += all_spans
        segment.accepted += accepted
        segment.rejected += turned_away
        segment.failed += failed
        segment.unknown += unknown
        gone = outcomes[left(status)]
        # A request given up at its deadline took at least that long; leaving it out would make
        # a stalled target look quick.
        timed = answered(status) | (status == Status.NO_ANSWER_TIMEOUT)
        timed_outcomes = outcomes[timed]
        if len(gone):
            self.last_sent_ns = max(self.last_sent_ns, int(gone["sent"].max()))
        if len(timed_outcomes):
            begun = timed_outcomes["sent" if closed_loop else "scheduled"]
            segment.service.record(timed_outcomes["done"] - timed_outcomes["sent"])
            segment.response.record(timed_outcomes["done"] - begun)
        if not closed_loop and len(gone):
            segment.lateness.record(np.maximum(gone["sent"] - gone["scheduled"], 0))

    def copy(self, other: Slab) -> None:
        """Take over the counts and messages of another slab."""
        for ours, its in zip(self.segments, other.segments, strict=True):
            if its.requests:
                ours.words[:] = its.words
        self.words[:] = other.words
        # Last: what was sent is never less than what is known of it.
        self.words[SEND_COUNTS] = other.words[SEND_COUNTS]
        self.put_messages(other.messages())

    def settle(self) -> None:
        """Count as unknown what was sent and is not accounted for, here and in the last segment."""
        self.unknown += self.sent_spans - (
            self.accepted + self.rejected + self.failed + self.unknown
        )
        used = [segment for segment in self.segments if segment.requests]
        last = (used or self.segments)[-1]
        # A worker killed within record() leaves the segments fewer spans than the totals.
        missing = self.sent_spans - sum(segment.sent for segment in self.segments)
        last.unknown += missing
        last.sent += missing
        self.done_requests = self.sent_requests

    def put_messages(self, messages: dict[str, str]) -> None:
        """Leave short texts for the parent: the first message by status, or what failed."""
        longest = max(map(len, messages.values()), default=0)
        data = json.dumps(messages).encode()
        while len(data) > TEXT_BYTES - 1 and longest:
            longest //= 2
            data = json.dumps({k: v[:longest] for k, v in messages.items()}).encode()
        self._text[: len(data) + 1] = data + b"\0"

    def messages(self) -> dict[str, str]:
        """Return the texts that the worker left; none where it was killed while it wrote them."""
        data = bytes(self._text).partition(b"\0")[0]
        try:
            return dict(json.loads(data)) if data else {}
        except ValueError:
            return {}


PLAIN_WORDS = slice(0, Slab.size)
"""Where in all words of a slab those are that belong to no segment."""

SEND_COUNTS = slice(0, SendCounts.size)
"""Where those are that a transport raises."""


def segment_words(number: int) -> slice:
    """Where in all words of a slab the segment ``number`` has its own."""
    first = Slab.size + number * Segment.size
    return slice(first, first + Segment.size)


def segments_in(words: int) -> int:
    """How many segments a slab of so many words has."""
    return (words - Slab.size) // Segment.size

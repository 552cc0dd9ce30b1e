"""The Ledger: counts of spans and requests in shared memory, one slab a worker.

Each slab has a single writer, its worker; the parent only reads and adds. A worker raises what it
sent before the first byte can leave and what came of it after the answer, so that the slab of a
worker that was killed at any moment still tells the truth: what was sent and is not accounted for
is unknown.
"""

from __future__ import annotations

import json
import mmap
import time

import numpy as np
import numpy.typing as npt

from blaster.measure.histogram import SIZE, Histogram
from blaster.transport.base import FIRST_NOT_PROCESSED, FIRST_UNANSWERED, STATUS_COUNT, Status

Int64 = npt.NDArray[np.int64]
Outcomes = npt.NDArray[np.void]

STARTING, READY, RUNNING, DONE, FAILED = range(5)
"""The states of a worker."""

(
    STATE,
    SENT_REQUESTS,
    SENT_SPANS,
    SENT_BYTES,
    SCHEDULED_SPANS,
    ACCEPTED,
    REJECTED,
    FAILED_SPANS,
    UNKNOWN,
    DONE_REQUESTS,
    OK_REQUESTS,
    RETRIED,
    LAST_SENT_NS,
    CPU_BEGIN_NS,
    CPU_NS,
    _FIELDS,
) = range(16)

_STATUSES = slice(_FIELDS, _FIELDS + STATUS_COUNT)
_RESPONSE = slice(_STATUSES.stop, _STATUSES.stop + SIZE)
_SERVICE = slice(_RESPONSE.stop, _RESPONSE.stop + SIZE)
_LATENESS = slice(_SERVICE.stop, _SERVICE.stop + SIZE)
_WORDS = _LATENESS.stop
_TEXT_BYTES = 4096

START_NS, STOP_NS, _CONTROL_WORDS = 0, 1, 2
"""Words of the control block: when the run starts and when it was stopped; 0: not yet."""


class Slab:
    """One worker's counts: a view of shared memory."""

    def __init__(self, words: Int64, text: memoryview) -> None:
        self.words = words
        self._text = text
        self.response = Histogram(words[_RESPONSE])
        self.service = Histogram(words[_SERVICE])
        self.lateness = Histogram(words[_LATENESS])

    @property
    def sent(self) -> Int64:
        """What a Transport raises: requests, spans, bytes."""
        return self.words[SENT_REQUESTS : SENT_BYTES + 1]

    @property
    def statuses(self) -> Int64:
        """Requests by Status (int64, STATUS_COUNT)."""
        return self.words[_STATUSES]

    def record(self, outcomes: Outcomes, *, closed_loop: bool) -> None:
        """Adds Outcomes (dtype OUTCOME). In a closed loop there is no schedule: latency counts
        from the send and nothing is late."""
        if len(outcomes) == 0:
            return
        status, spans, rejected = outcomes["status"], outcomes["spans"], outcomes["rejected"]
        np.add.at(self.statuses, status, 1)
        ok = status == Status.OK
        unanswered = (status >= FIRST_UNANSWERED) & (status < FIRST_NOT_PROCESSED)
        all_spans = int(spans.sum())
        unknown = int(spans[unanswered].sum())
        turned_away = int(rejected[ok].sum())
        accepted = int(spans[ok].sum()) - turned_away
        self.words[ACCEPTED] += accepted
        self.words[REJECTED] += turned_away
        self.words[UNKNOWN] += unknown
        self.words[FAILED_SPANS] += all_spans - accepted - turned_away - unknown
        self.words[DONE_REQUESTS] += len(outcomes)
        self.words[OK_REQUESTS] += int(ok.sum())
        left = outcomes[status < FIRST_NOT_PROCESSED]
        # A request given up at its deadline took at least that long; leaving it out would make
        # a stalled target look quick.
        timed = (status < FIRST_UNANSWERED) | (status == Status.NO_ANSWER_TIMEOUT)
        timed_outcomes = outcomes[timed]
        if len(left):
            self.words[LAST_SENT_NS] = max(int(self.words[LAST_SENT_NS]), int(left["sent"].max()))
        if len(timed_outcomes):
            begun = timed_outcomes["sent" if closed_loop else "scheduled"]
            self.service.record(timed_outcomes["done"] - timed_outcomes["sent"])
            self.response.record(timed_outcomes["done"] - begun)
        if not closed_loop and len(left):
            self.lateness.record(np.maximum(left["sent"] - left["scheduled"], 0))

    def say(self, messages: dict[str, str]) -> None:
        """Leaves short texts for the parent: the first message by status, or what failed."""
        data = json.dumps(messages).encode()
        while len(data) > _TEXT_BYTES - 1 and messages:
            messages = {k: v[: len(v) // 2] for k, v in messages.items()}
            data = json.dumps(messages).encode()
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

    def __init__(self, workers: int) -> None:
        # One for all workers: the parts of a trace that several of them send agree on its times.
        self.epoch_ns = time.time_ns() - time.monotonic_ns()
        words = _CONTROL_WORDS + workers * _WORDS
        self._memory = mmap.mmap(-1, words * 8 + workers * _TEXT_BYTES)
        all_words = np.frombuffer(self._memory, np.int64, words)
        texts = memoryview(self._memory)[words * 8 :]
        self.control = all_words[:_CONTROL_WORDS]
        self.slabs = []
        for worker in range(workers):
            first = _CONTROL_WORDS + worker * _WORDS
            text = texts[worker * _TEXT_BYTES : (worker + 1) * _TEXT_BYTES]
            self.slabs.append(Slab(all_words[first : first + _WORDS], text))

    @property
    def stop(self) -> Int64:
        """The stop word that transports watch (int64, 1)."""
        return self.control[STOP_NS : STOP_NS + 1]

    def total(self, field: int) -> int:
        """The sum of one field over the workers."""
        return sum(int(slab.words[field]) for slab in self.slabs)

    def statuses(self) -> Int64:
        """Requests by Status over all workers."""
        total: Int64 = np.sum([slab.statuses for slab in self.slabs], axis=0)
        return total

    def in_flight(self) -> int:
        """Requests sent and not yet answered."""
        return self.total(SENT_REQUESTS) - self.total(DONE_REQUESTS)

    def response(self) -> Histogram:
        """Latency from the scheduled time, over all workers."""
        return _merged([slab.response for slab in self.slabs])

    def service(self) -> Histogram:
        """Latency from the send, over all workers."""
        return _merged([slab.service for slab in self.slabs])

    def lateness(self) -> Histogram:
        """How far behind the schedule sends were, over all workers."""
        return _merged([slab.lateness for slab in self.slabs])


def _merged(histograms: list[Histogram]) -> Histogram:
    merged = Histogram()
    for histogram in histograms:
        merged += histogram
    return merged

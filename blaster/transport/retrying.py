"""RetryingTransport: any transport, with failed requests sent again by the rules of OTLP.

A request has one Outcome however often it is sent: from its scheduled time and first send to its
last answer. It counts as in flight while it waits for its next try, so that refused requests cannot
pile up. It is given up after MAX_TRIES, when its next try would be due later than its timeout after
the first, and at the run's end.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

import numpy as np

from blaster.layout import Int64
from blaster.transport.base import (
    FIRST_NOT_PROCESSED,
    FIRST_UNANSWERED,
    OUTCOME,
    Chunk,
    Outcomes,
    SendCounts,
    Status,
    Transport,
    TransportFactory,
)
from blaster.transport.retry import MAX_TRIES, OFF, Backoff, maybe_received, retryable
from blaster.transport.wrapper import TransportWrapper

_LOOK_NS = 20_000_000
"""The interval at which the outcomes are searched for failures while sending."""

_NAP_NS = 2_000_000
"""The pause between checks whether a request may be sent while others wait for their next try."""

_WHOLE_CHUNKS = 8
"""The number of chunks kept whole; of older ones only the unanswered requests are kept."""


class _KeptChunk:
    """A chunk's batches, kept for as long as they may be sent again."""

    def __init__(self, chunk: Chunk) -> None:
        self.first, self.end = chunk.first, chunk.first + len(chunk)
        self._chunk: Chunk | None = chunk
        self._copies: dict[int, bytes] = {}
        self._open = np.ones(len(chunk), np.bool_)
        self.left = len(chunk)

    def batch(self, number: int) -> bytes:
        """The bytes of a request without an answer."""
        if self._chunk is not None:
            return self._chunk.batch(number - self.first)
        return self._copies[number]

    def close(self, numbers: Int64) -> None:
        """Release requests that were answered or never offered; some may be released already."""
        places = numbers - self.first
        places = places[self._open[places]]
        self._open[places] = False
        self.left -= len(places)
        for place in places.tolist() if self._copies else ():
            del self._copies[place + self.first]

    def shrink(self) -> None:
        """Release the chunk; keep copies of the requests without an answer."""
        if self._chunk is not None:
            numbers = (np.flatnonzero(self._open) + self.first).tolist()
            self._copies = {number: self.batch(number) for number in numbers}
            self._chunk = None


@dataclass(slots=True)
class _Retried:
    """A request that failed, and its history so far."""

    scheduled: int
    sent: int
    spans: int
    data: bytes
    tries: int = 0
    last: np.void | None = None
    unanswered: int = 0
    """The status of the last try that may have been received without an answer; 0: none."""


class RetryingTransport(TransportWrapper):
    """``transport``, with retries. ``in_flight``: the most requests in flight or waiting for a
    retry; ``timeout_s``: how long after its first send a request may be sent again; ``counts``:
    retries are counted here before they leave."""

    def __init__(
        self,
        transport: Transport,
        backoff: Backoff,
        *,
        in_flight: int,
        timeout_s: float,
        counts: SendCounts,
        stop: Int64,
    ) -> None:
        super().__init__(transport)
        self.framing = "buffer"
        self._backoff = backoff
        self._cap, self._timeout_ns = in_flight, round(timeout_s * 1e9)
        self._counts, self._stop = counts, stop
        self._next = 0
        self._kept: list[_KeptChunk] = []
        self._retried: dict[int, _Retried] = {}
        self._due: list[tuple[int, int]] = []  # a heap of times and numbers
        self._done: list[Outcomes] = []
        self._over = False

    def send(self, chunk: Chunk, until: int) -> int:
        mine = chunk.part(0, len(chunk))
        mine.first = self._next
        self._next += len(chunk)
        kept = _KeptChunk(mine)
        self._kept.append(kept)
        offered = 0
        while offered < len(chunk):
            now = time.monotonic_ns()
            if now >= until or self._stop[0]:
                break
            look = min(until, self._send_due(now, until))
            room = self._cap - self.in_flight() if self._due else len(chunk)
            if room > 0:
                piece = mine.part(offered, min(offered + room, len(chunk)))
                offered += self._transport.send(piece, look)
            else:
                self._transport.wait(min(look, now + _NAP_NS))
            self._take()
        kept.close(np.arange(mine.first + offered, kept.end))
        self._let_go()
        return offered

    def wait(self, until: int) -> None:
        while (now := time.monotonic_ns()) < until and not self._stop[0]:
            look = min(until, self._send_due(now, until))
            self._transport.wait(look if self.in_flight() else until)
            self._take()

    def drain(self, until: int) -> None:
        while self.in_flight() and time.monotonic_ns() < until and not self._stop[0]:
            self.wait(min(until, time.monotonic_ns() + _LOOK_NS))
        self._give_up()
        self._transport.drain(until)
        self._take()

    def outcomes(self) -> Outcomes:
        self._take()
        taken, self._done = self._done, []
        return np.concatenate([np.zeros(0, OUTCOME), *taken])

    def in_flight(self) -> int:
        """Those that wait for their next try included."""
        return self._transport.in_flight() + len(self._due)

    def close(self) -> None:
        self._give_up()
        self._transport.close()

    def _send_due(self, now: int, until: int) -> int:
        """Sends again what is due; returns when to look again."""
        while self._due and self._due[0][0] <= now and not self._stop[0]:
            _, number = self._due[0]
            if not self._send_again(number, now, min(until, now + _LOOK_NS)):
                break
            heapq.heappop(self._due)
        look = now + _LOOK_NS
        return min(look, max(self._due[0][0], now + _NAP_NS)) if self._due else look

    def _send_again(self, number: int, now: int, until: int) -> bool:
        request = self._retried[number]
        assert request.last is not None
        times, spans = np.array([now]), np.array([request.spans])
        chunk = Chunk.of([request.data], times, spans, first=number, again=True)
        self._count(request, 1)
        if self._transport.send(chunk, until):
            return True
        self._count(request, -1)
        return False

    def _count(self, request: _Retried, sign: int) -> None:
        """Count a retry before it can leave, so that it is known even if the worker is killed."""
        assert request.last is not None
        status = int(request.last["status"])
        self._counts.retried_requests += sign
        self._counts.retried_spans += sign * request.spans
        if maybe_received(status):
            self._counts.possible_duplicates += sign * request.spans
        self._counts.retried_statuses[status] += sign

    def _take(self) -> None:
        """Sort the inner transport's outcomes into requests that ended and requests to retry."""
        outcomes = self._transport.outcomes()
        if not len(outcomes):
            return
        failed = retryable(outcomes["status"], outcomes["delay"])
        if self._retried:
            failed |= np.isin(outcomes["number"], list(self._retried))
        if failed.any():
            self._done.append(outcomes[~failed])
            for outcome in outcomes[failed]:
                self._failed(outcome)
        else:
            self._done.append(outcomes)
        numbers = outcomes["number"]
        for kept in self._kept:
            here = numbers[(numbers >= kept.first) & (numbers < kept.end)]
            if len(here):
                kept.close(here)
        self._let_go()

    def _failed(self, outcome: np.void) -> None:
        """Handle the outcome of a failed or repeated try: schedule the next, or end the request."""
        number, status, delay = (int(outcome[name]) for name in ("number", "status", "delay"))
        request = self._retried.get(number)
        goes_on = not self._over and bool(retryable(outcome["status"], outcome["delay"]))
        if request is None:
            if not goes_on:
                self._done.append(np.array([outcome], OUTCOME))
                return
            kept = next(h for h in self._kept if h.first <= number < h.end)
            times = int(outcome["scheduled"]), int(outcome["sent"])
            request = _Retried(*times, int(outcome["spans"]), kept.batch(number))
            self._retried[number] = request
        request.tries += 1
        request.last = outcome
        if FIRST_UNANSWERED <= status < FIRST_NOT_PROCESSED:
            request.unanswered = status
        due = int(outcome["done"]) + self._backoff.wait_ns(request.tries, delay)
        in_time = due <= request.sent + self._timeout_ns
        if goes_on and in_time and request.tries < MAX_TRIES and not self._stop[0]:
            heapq.heappush(self._due, (due, number))
        else:
            self._end(number)

    def _end(self, number: int) -> None:
        """End the request with its last answer. If an earlier try may have been received, and no
        later one was accepted, it is unknown as that try was."""
        request = self._retried.pop(number)
        assert request.last is not None
        row = np.array([request.last], OUTCOME)
        row["scheduled"], row["sent"] = request.scheduled, request.sent
        if request.unanswered and int(row["status"][0]) != Status.OK:
            row["status"] = request.unanswered
        self._done.append(row)

    def _give_up(self) -> None:
        """Stop retrying; requests that wait for a retry end with the answer that they had."""
        self._over = True
        for _, number in self._due:
            self._end(number)
        self._due = []

    def _let_go(self) -> None:
        self._kept = [kept for kept in self._kept if kept.left]
        for kept in self._kept[:-_WHOLE_CHUNKS]:
            kept.shrink()


def with_retries(
    make: TransportFactory,
    mode: str,
    *,
    in_flight: int,
    timeout_s: float,
    seed: int,
) -> TransportFactory:
    """Wrap ``make``: its transports retry by ``mode``, one of retry.MODES. For off, ``make``
    itself. ``in_flight`` is that of one worker."""
    if mode == OFF:
        return make

    def wrapped(counts: SendCounts, stop: Int64) -> Transport:
        return RetryingTransport(
            make(counts, stop),
            Backoff(mode, seed),
            in_flight=in_flight,
            timeout_s=timeout_s,
            counts=counts,
            stop=stop,
        )

    return wrapped

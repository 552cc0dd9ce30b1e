"""Sample: which of the requests that were accepted are looked at again, at the backend.

Each worker draws from its own requests as their answers come, and the draw stands in shared memory,
so that of a worker that was killed it is still there. Every request is given a random number; those
with the smallest are the sample, of one worker and, taken together, of all: a reservoir that can be
merged (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006, for equal
weights). What the requests held is not kept: it follows from the plan.
"""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

from blaster.transport.base import Outcomes, Status, Transport
from blaster.transport.wrapper import TransportWrapper

DRAWN = np.dtype([("rank", np.float64), ("request", np.int64), ("scheduled", np.int64)])
"""A request that was drawn: its random number (1 or more: none yet), its number among the worker's,
and when it was scheduled (CLOCK_MONOTONIC, ns)."""


class Sample:
    """The drawn requests of all workers, ``size`` of each."""

    def __init__(self, workers: int, size: int, seed: int) -> None:
        self._seed = seed
        memory = mmap.mmap(-1, workers * size * DRAWN.itemsize)
        self._drawn = np.frombuffer(memory, DRAWN).reshape(workers, size)
        self._drawn["rank"] = 1.0

    def wrap(self, worker: int, transport: Transport) -> Transport:
        """``transport``, from whose accepted requests is drawn."""
        return _Sampled(transport, self._drawn[worker], np.random.default_rng((self._seed, worker)))

    def accepted(self) -> list[tuple[int, int, int]]:
        """Worker, request and scheduled time of those drawn, the smallest random number first."""
        rows = [
            (float(row["rank"]), worker, int(row["request"]), int(row["scheduled"]))
            for worker, drawn in enumerate(self._drawn)
            for row in drawn
            if row["rank"] < 1
        ]
        return [(worker, request, scheduled) for _, worker, request, scheduled in sorted(rows)]


class _Sampled(TransportWrapper):
    """A Transport that passes everything on, and draws from the answers on their way."""

    def __init__(
        self, transport: Transport, drawn: npt.NDArray[np.void], random: np.random.Generator
    ) -> None:
        super().__init__(transport)
        self._drawn, self._random = drawn, random

    def outcomes(self) -> Outcomes:
        taken = self._transport.outcomes()
        good = taken[(taken["status"] == Status.OK) & (taken["rejected"] == 0)]
        ranks = self._random.random(len(good))
        for at in np.flatnonzero(ranks < self._drawn["rank"].max()):
            place = np.argmax(self._drawn["rank"])
            if ranks[at] < self._drawn["rank"][place]:
                # The number last: a worker that is killed here leaves the old one or none.
                self._drawn["rank"][place] = 1.0
                self._drawn["request"][place] = good["number"][at]
                self._drawn["scheduled"][place] = good["scheduled"][at]
                self._drawn["rank"][place] = ranks[at]
        return taken

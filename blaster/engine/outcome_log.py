"""OutcomeLog: every Outcome of a run, kept, for trials that are short and looked at closely."""

from __future__ import annotations

import os
import tempfile
from types import TracebackType
from typing import Self

import numpy as np

from blaster.layout import Int64
from blaster.transport.base import OUTCOME, Outcomes, SendCounts, Transport, TransportFactory
from blaster.transport.wrapper import TransportWrapper


class OutcomeLog:
    """The Outcomes of all workers in a file without a name. A context manager.

    Pass :meth:`wrap` to the run, then ask for :meth:`outcomes`. Some 56 bytes a request.
    """

    def __init__(self) -> None:
        # Appending is atomic, so that all workers can share the one file.
        self._file = tempfile.TemporaryFile("ab+", buffering=0)  # noqa: SIM115 - see __exit__

    def wrap(self, make: TransportFactory) -> TransportFactory:
        """Return a factory of what ``make`` makes, whose Outcomes are logged."""

        def logged(counts: SendCounts, stop: Int64) -> Transport:
            return _Logged(make(counts, stop), self._file.fileno())

        return logged

    def add(self, outcomes: bytes) -> None:
        """Add Outcomes (the bytes of an array of dtype OUTCOME) that were logged elsewhere."""
        os.write(self._file.fileno(), outcomes)

    def outcomes(self) -> Outcomes:
        """Return all Outcomes so far (dtype OUTCOME), in order of their scheduled times."""
        size = os.fstat(self._file.fileno()).st_size // OUTCOME.itemsize * OUTCOME.itemsize
        found = np.frombuffer(os.pread(self._file.fileno(), size, 0), OUTCOME)
        return found[np.argsort(found["scheduled"], kind="stable")]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class _Logged(TransportWrapper):
    """A Transport that passes everything on and logs the Outcomes on their way."""

    def __init__(self, transport: Transport, file: int) -> None:
        super().__init__(transport)
        self._file = file

    def outcomes(self) -> Outcomes:
        taken = self._transport.outcomes()
        if len(taken):
            os.write(self._file, taken.tobytes())
        return taken

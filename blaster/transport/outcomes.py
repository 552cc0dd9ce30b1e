"""OutcomeLog: gathers Outcomes one by one, for the transports that are written in Python."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from blaster.transport.base import OUTCOME

MAX_MESSAGE = 300


class OutcomeLog:
    """Outcomes since the last ``take``, and the first message that came with each status."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int, int, int, int]] = []
        self.messages: dict[int, str] = {}

    def add(
        self,
        *,
        scheduled: int,
        sent: int,
        done: int,
        spans: int,
        size: int,
        status: int,
        rejected: int = 0,
        message: str = "",
    ) -> None:
        """One request's end; times in CLOCK_MONOTONIC ns."""
        self._rows.append((scheduled, sent, done, spans, size, rejected, status))
        if message and status not in self.messages:
            self.messages[status] = " ".join(message.split())[:MAX_MESSAGE]

    def take(self) -> npt.NDArray[np.void]:
        """The gathered Outcomes (dtype OUTCOME); the log is empty afterwards."""
        rows, self._rows = self._rows, []
        return np.array(rows, OUTCOME)

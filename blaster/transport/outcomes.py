"""OutcomeLog: gathers Outcomes one by one, for the transports that are written in Python."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from blaster.transport.base import OUTCOME

MAX_MESSAGE = 300
FIELDS = len(OUTCOME.names or ())
STATUS = (OUTCOME.names or ()).index("status")

Row = tuple[int, int, int, int, int, int, int, int, int]
"""The fields of OUTCOME in their order: scheduled, sent, done, spans, bytes, rejected, status,
number, delay."""


class OutcomeLog:
    """Outcomes since the last ``take``, and the first message that came with each status."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self.messages: dict[int, str] = {}

    def add(self, row: Row, message: str = "") -> None:
        """One request's end."""
        self._rows.append(row)
        if message and row[STATUS] not in self.messages:
            self.messages[row[STATUS]] = " ".join(message.split())[:MAX_MESSAGE]

    def take(self) -> npt.NDArray[np.void]:
        """The gathered Outcomes (dtype OUTCOME); the log is empty afterwards."""
        rows, self._rows = self._rows, []
        # All fields are int64, and a plain array is filled several times quicker.
        plain = np.array(rows, np.int64).reshape(len(rows), FIELDS)
        return plain.view(OUTCOME).reshape(-1)

"""OutcomeLog: gathers Outcomes one by one, for the transports that are written in Python."""

from __future__ import annotations

import numpy as np

from blaster.transport.base import OUTCOME, Outcome, Outcomes

MAX_MESSAGE = 300
"""Characters of a message that are kept."""


class OutcomeLog:
    """Outcomes since the last ``take``, and the first message that came with each status."""

    def __init__(self) -> None:
        self._outcomes: list[Outcome] = []
        self.messages: dict[int, str] = {}

    def add(self, outcome: Outcome, message: str = "") -> None:
        """Add one request's end, and the peer's message where there is one."""
        self._outcomes.append(outcome)
        if message and outcome.status not in self.messages:
            self.messages[outcome.status] = " ".join(message.split())[:MAX_MESSAGE]

    def take(self) -> Outcomes:
        """Return the gathered Outcomes (dtype OUTCOME) and forget them."""
        rows, self._outcomes = self._outcomes, []
        # All fields are int64, and a plain array is filled several times quicker.
        plain = np.array(rows, np.int64).reshape(len(rows), len(Outcome._fields))
        return plain.view(OUTCOME).reshape(-1)

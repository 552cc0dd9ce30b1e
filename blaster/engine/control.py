"""Control: what may steer a run from outside while it goes on, and what it is shown of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from blaster.engine.ledger import Ledger
from blaster.engine.run import Run
from blaster.engine.series import Point

STOP, HOLD = "stop", "hold"


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress display needs, once an interval."""

    run: Run
    point: Point
    duration_ns: int


class Steering(Protocol):
    """What says when a run starts and how long it may go on, where that is not for the runner to
    say: a host of a cluster has one. ``epoch_ns``: when its CLOCK_MONOTONIC was 0, ns since 1970
    by the clock that all hosts go by."""

    epoch_ns: int

    def start(self, ledger: Ledger) -> int:
        """Called once all workers are ready; returns when to start, in CLOCK_MONOTONIC ns."""

    def tick(self, ledger: Ledger) -> None:
        """Called some twenty times a second while the run goes on."""


class Control(Protocol):
    """Whoever steers a run: is asked a few times a second, and told what came of it."""

    def poll(self, run: Run) -> str | None:
        """STOP, HOLD (which releases, too) or None."""

    def answer(self, text: str) -> None:
        """What a wish led to, or why it cannot be granted."""

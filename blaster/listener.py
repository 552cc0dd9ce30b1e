"""Listener: who is told how a run goes."""

from __future__ import annotations

from blaster.engine.control import Control, Progress
from blaster.engine.outcome_log import OutcomeLog
from blaster.engine.plan import Plan
from blaster.engine.results import Configuration, Results
from blaster.measure.hdr import Latencies


class Listener:
    """Is told how a run goes, in the parent. Each method does nothing unless it is overridden."""

    @property
    def control(self) -> Control | None:
        """Whoever may stop the run or hold its rate; asked a few times a second."""
        return None

    @property
    def outcomes(self) -> OutcomeLog | None:
        """Where to keep every Outcome."""
        return None

    @property
    def wants_latencies(self) -> bool:
        """Whether :meth:`latencies` is to be called, for which each interval's are kept."""
        return False

    def begin(self, plan: Plan, configuration: Configuration) -> None:
        """Called once, before anything is sent."""

    def update(self, progress: Progress) -> None:
        """Called once an interval."""

    def checkpoint(self, results: Results) -> None:
        """Called with the results so far, every CHECKPOINT_S (see blaster.progress)."""

    def latencies(self, latencies: Latencies) -> None:
        """Called with the latencies at the end."""


class Listeners(Listener):
    """Several listeners as one; the first that has a control or keeps Outcomes does so."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    @property
    def control(self) -> Control | None:
        return next((one.control for one in self._listeners if one.control is not None), None)

    @property
    def outcomes(self) -> OutcomeLog | None:
        return next((one.outcomes for one in self._listeners if one.outcomes is not None), None)

    @property
    def wants_latencies(self) -> bool:
        return any(one.wants_latencies for one in self._listeners)

    def begin(self, plan: Plan, configuration: Configuration) -> None:
        for one in self._listeners:
            one.begin(plan, configuration)

    def update(self, progress: Progress) -> None:
        for one in self._listeners:
            one.update(progress)

    def checkpoint(self, results: Results) -> None:
        for one in self._listeners:
            one.checkpoint(results)

    def latencies(self, latencies: Latencies) -> None:
        for one in self._listeners:
            one.latencies(latencies)

"""The intervals of a run: listeners are told, abort conditions judged, and results so far kept."""

from __future__ import annotations

import time

from blaster.backends.scrape import Observer
from blaster.engine.control import Progress
from blaster.engine.results import Configuration
from blaster.engine.run import so_far
from blaster.engine.summary import results_of
from blaster.listener import Listener
from blaster.scenario.scenario import Scenario
from blaster.verdict import thresholds
from blaster.verdict.verdict import judge

CHECKPOINT_S = 30.0
"""How often the results so far are handed out: a lost machine loses at most a minute of them."""


class Intervals:
    """Does what is due once an interval; pass :meth:`update` to whatever sends."""

    def __init__(
        self,
        scenario: Scenario,
        configuration: Configuration,
        listener: Listener,
        observer: Observer,
    ) -> None:
        self._scenario, self._configuration = scenario, configuration
        self._listener, self._observer = listener, observer
        self._kept_at = time.monotonic()

    def update(self, progress: Progress) -> str | None:
        """Return the abort condition that holds, as the reason to end the run; None: go on."""
        self._observer.tick()
        self._listener.update(progress)
        due = time.monotonic() >= self._kept_at + CHECKPOINT_S
        if not self._scenario.abort_on and not due:
            return None
        results = results_of(so_far(progress.run), self._configuration, None)
        if due:
            results.verdict = judge(results, self._scenario)
            self._listener.checkpoint(results)
            self._kept_at = time.monotonic()
        return thresholds.holding(results, self._scenario.abort_on)

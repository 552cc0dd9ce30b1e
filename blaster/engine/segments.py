"""Segments: the stretches of a run whose outcomes are kept apart, by the time they were due.

Every stage is a segment. A warm-up cuts the one that it ends in; where its end is still to be
found, the first stage's first half is cut into slices, and the warm-up ends with one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blaster.scenario.scenario import Scenario

Int64 = npt.NDArray[np.int64]

MAX_STAGES_APART = 64
"""With more stages than these, no figures are kept of each."""

SLICES = 40
"""How finely a warm-up can be found: in fortieths of the half of the first stage."""

POINTS = 200
"""Points of the series, at least, in the stage in which a warm-up is sought."""


@dataclass(frozen=True)
class Segments:
    """``starts`` (int64 ns since the start, ascending, from 0) and the stage each belongs to."""

    starts: Int64
    stages: tuple[int, ...]
    duration_ns: int

    @classmethod
    def of(cls, scenario: Scenario) -> Segments:
        """The segments of the scenario's run."""
        stage_starts = [0]
        if len(scenario.stages) <= MAX_STAGES_APART:
            for stage in scenario.stages[:-1]:
                stage_starts.append(stage_starts[-1] + stage.duration_ns)
        cuts = set(stage_starts)
        if scenario.warmup.auto:
            half = scenario.stages[0].duration_ns // 2
            cuts |= {half * k // SLICES for k in range(1, SLICES + 1)}
        elif scenario.warmup.duration_ns:
            cuts.add(scenario.warmup.duration_ns)
        starts = np.array(sorted(cuts), np.int64)
        stages = np.searchsorted(np.array(stage_starts), starts, side="right") - 1
        return cls(starts, tuple(stages.tolist()), scenario.duration_ns)

    def held(self, begin_ns: int, duration_ns: int) -> Segments:
        """What comes after ``begin_ns`` later by ``duration_ns``."""
        starts = self.starts + np.where(self.starts > begin_ns, duration_ns, 0)
        return Segments(starts, self.stages, self.duration_ns + duration_ns)

    def __len__(self) -> int:
        return len(self.stages)

    def end(self, segment: int) -> int:
        """When a segment ends, in ns since the start."""
        following = segment + 1
        return int(self.starts[following]) if following < len(self) else self.duration_ns

    def after(self, warmup_ns: int) -> range:
        """The segments from ``warmup_ns`` on, which is one of ``starts``."""
        return range(int(np.searchsorted(self.starts, warmup_ns)), len(self))


def interval_ns(scenario: Scenario) -> int:
    """The time between two points of the series: a second, or less for a warm-up to be found."""
    if not scenario.warmup.auto:
        return 10**9
    return min(10**9, max(10**8, scenario.stages[0].duration_ns // POINTS))

"""The search for a target's ceiling by trials.

The search is MLRsearch (draft-ietf-bmwg-mlrsearch, its reference implementation): it finds several
rates at once, each the highest with at most a goal's loss ratio. Before it, the rate is quadrupled
from the lowest until a trial loses spans, so that a slow target never gets a thousand times what it
can take.

The majority of its trials decides whether a load meets a goal, so that one hiccup of the machine
does not. Import this only for a search: importing MLRsearch takes half a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from MLRsearch import (
    AbstractMeasurer,
    Config,
    MeasurementResult,
    MultipleLossRatioSearch,
    SearchGoal,
)

from blaster.verdict.capacity import Capacity, Ceiling, Goals
from blaster.verdict.limit import GENERATOR, NEAR_CEILING, NOBODY, TARGET
from blaster.verdict.trial import Trial

BRACKET, SEARCH, THRESHOLDS, OVERLOAD = "bracket", "search", "thresholds", "overload"
"""The phases of a search: the purposes of trials."""

STEP = 4
REQUESTS_PER_S = 200
"""The batch is chosen to give this many requests a second at the lower end of the bracket: enough
to see small losses, few enough to measure the cost of spans rather than of requests."""

MAX_BATCH = 1000

TRIES = 3

NEAR = 1.05
"""Trials at loads within this factor of the ceiling tell who was the limit."""

Measure = Callable[[str, float, float, int], Trial]
"""Runs a trial: phase, spans per second, seconds, spans in a request."""


def search_ceiling(goals: Goals, ceiling: Ceiling | None, measure: Measure) -> Capacity:
    """Find the ceiling by trials. Overload and fit are added to the findings later."""
    found = Capacity(loss_ratio=goals.loss_ratio, ceiling=ceiling, reason="")
    measurer = _Measurer(goals, measure, found.trials)
    load = goals.min_rate
    for _ in range(TRIES):
        passed, failed = _bracket(goals, ceiling, measurer, load)
        found.batch = measurer.batch
        if ceiling is not None:
            found.generator_spans_per_s = ceiling.at(found.batch)
        if failed is None:
            _report_unlimited(found, goals)
            return found
        if passed is None and load == goals.min_rate and failed.limited_by != GENERATOR:
            passed, failed = _descend(goals, measurer, failed)
            found.batch = measurer.batch
            if passed is None:
                _report_below(found, goals, failed)
                return found
        least = max((passed or failed).load_spans_per_s / 2, float(measurer.batch))
        most = failed.load_spans_per_s
        if least >= most:
            least = most / 2
        found.ndr, found.pdr = _mlr_search(goals, measurer, least, most, SEARCH)
        if any(t.phase == SEARCH and t.loss_ratio > goals.loss_ratio for t in found.trials):
            break
        # The loss in the bracket was a hiccup: no trial up to there lost anything again.
        load = most * STEP
    if goals.thresholds:
        highest = max(found.pdr or 0.0, least * 1.01)
        found.within_thresholds, _ = _mlr_search(
            goals, measurer, min(goals.min_rate, least), highest, THRESHOLDS
        )
    _attribute_limit(found, ceiling)
    return found


class _Measurer(AbstractMeasurer):  # type: ignore[misc]
    """Runs trials for MLRsearch and keeps them."""

    def __init__(self, goals: Goals, measure: Measure, trials: list[Trial]) -> None:
        self._goals = goals
        self._measure = measure
        self._trials = trials
        self.batch = goals.batch or 1
        self.phase = SEARCH

    def trial(self, phase: str, load: float, duration_s: float) -> Trial:
        """Run one trial, and repeat it while the generator is its limit: that is often a hiccup."""
        for _ in range(TRIES):
            trial = self._measure(phase, load, duration_s, self.batch)
            self._trials.append(trial)
            if not (trial.loss_ratio > 0 and trial.limited_by == GENERATOR):
                break
        return trial

    def best(self, phase: str, loss_ratio: float) -> float:
        """The highest load of the phase up to which no trial lost more than ``loss_ratio``."""
        trials = sorted(
            (t for t in self._trials if t.phase == phase), key=lambda t: t.load_spans_per_s
        )
        highest = 0.0
        for trial in trials:
            if trial.loss_ratio > loss_ratio or (phase == THRESHOLDS and trial.broken):
                break
            highest = trial.load_spans_per_s
        return highest

    def measure(self, intended_duration: float, intended_load: float) -> Any:
        """Run a trial for MLRsearch. A trial that breaks a threshold counts as all lost."""
        trial = self.trial(self.phase, intended_load, intended_duration)
        accepted = trial.accepted
        if self.phase == THRESHOLDS and trial.broken:
            accepted = 0
        return MeasurementResult(
            intended_duration=intended_duration,
            intended_load=intended_load,
            offered_count=trial.scheduled,
            forwarding_count=accepted,
        )


def _bracket(
    goals: Goals, ceiling: Ceiling | None, measurer: _Measurer, load: float
) -> tuple[Trial | None, Trial | None]:
    """Return the last trial from ``load`` on that met the goal's loss ratio, and the first that did
    not; None: there was none."""
    passed: Trial | None = None
    while True:
        measurer.batch = goals.batch or _batch(load / STEP)
        most = min(
            goals.max_rate, ceiling.at(measurer.batch) * NEAR_CEILING if ceiling else goals.max_rate
        )
        load = min(load, most)
        trial = measurer.trial(BRACKET, load, min(goals.trial_s, 1.0))
        if trial.loss_ratio > goals.loss_ratio and goals.repeats > 1:
            # A hiccup here would cap the search below the ceiling.
            trial = measurer.trial(BRACKET, load, min(goals.trial_s, 1.0))
        if trial.loss_ratio > goals.loss_ratio:
            measurer.batch = goals.batch or _batch(load / STEP)
            return passed, trial
        passed = trial
        if load >= most:
            return passed, None
        load *= STEP


def _descend(goals: Goals, measurer: _Measurer, failed: Trial) -> tuple[Trial | None, Trial]:
    """Return the first trial below a failed one that met the goal's loss ratio, and the last that
    did not; None: not even one request a second did, or nothing lower may be tried."""
    while goals.lower and failed.load_spans_per_s > (goals.batch or 1):
        load = max(failed.load_spans_per_s / STEP, float(goals.batch or 1))
        measurer.batch = goals.batch or _batch(load / STEP)
        trial = measurer.trial(BRACKET, load, goals.trial_s)
        if trial.loss_ratio <= goals.loss_ratio:
            return trial, failed
        failed = trial
    return None, failed


def _lossless(trials: Sequence[Trial], most: float = math.inf) -> float:
    """The highest load tried, at most ``most``, at which most trials lost nothing; 0 if there is
    none. Losses of the generator's own do not count."""
    lossless: dict[int, list[bool]] = {}
    for trial in trials:
        if not trial.loss_ratio or _by_target(trial):
            lossless.setdefault(round(trial.load_spans_per_s), []).append(not trial.loss_ratio)
    tried = (load for load, came in lossless.items() if load <= most and 2 * sum(came) > len(came))
    return float(max(tried, default=0))


def _lowest_lossy(trials: Sequence[Trial]) -> float | None:
    """The lowest load at which the target lost something."""
    return min((t.load_spans_per_s for t in trials if t.loss_ratio and _by_target(t)), default=None)


def _by_target(trial: Trial) -> bool:
    return trial.limited_by != GENERATOR


def _batch(load: float) -> int:
    return max(1, min(MAX_BATCH, round(load / REQUESTS_PER_S)))


def _mlr_search(
    goals: Goals, measurer: _Measurer, least: float, most: float, phase: str
) -> tuple[float, float]:
    """Return the no-drop and the partial-drop rate by MLRsearch; 0 if not even ``least`` passes.

    After the time limit, the best that the trials have shown.
    """
    ndr = SearchGoal(
        loss_ratio=0.0,
        exceed_ratio=0.5 if goals.repeats > 1 else 0.0,
        relative_width=goals.precision,
        initial_trial_duration=goals.trial_s,
        final_trial_duration=goals.trial_s,
        duration_sum=goals.trial_s * goals.repeats,
        preceding_targets=2,
        expansion_coefficient=2,
        fail_fast=False,
    )
    wanted = [ndr]
    if phase == SEARCH and goals.loss_ratio > 0:
        wanted.append(replace(ndr, loss_ratio=goals.loss_ratio))
    config = Config(
        goals=wanted,
        min_load=least,
        max_load=most,
        search_duration_max=goals.limit_s,
        warmup_duration=None,
    )
    measurer.phase = phase
    try:
        result = MultipleLossRatioSearch(config=config).search(measurer, debug=lambda _: None)
    except RuntimeError:  # its time limit
        return measurer.best(phase, 0.0), measurer.best(phase, goals.loss_ratio)
    rates = [result[goal].conditional_throughput for goal in wanted]
    found = [0.0 if rate is None else round(float(rate), 1) for rate in rates]
    return found[0], found[-1]


def _attribute_limit(found: Capacity, ceiling: Ceiling | None) -> None:
    """Name the limit in the findings. If it is the generator, there is no rate to report."""
    rate = found.pdr or 0.0
    lossy = [t for t in found.trials if t.phase == SEARCH and t.loss_ratio > found.loss_ratio]
    lossy.sort(key=lambda t: t.load_spans_per_s)
    above = [t for t in lossy if t.load_spans_per_s > rate] or lossy
    nearest = [t for t in above if t.load_spans_per_s <= above[0].load_spans_per_s * NEAR]
    ours = [t for t in nearest if t.limited_by == GENERATOR]
    # The highest rate offered is this share of the ceiling, except for rounding.
    if ceiling is not None and rate > (NEAR_CEILING - 0.01) * ceiling.at(found.batch):
        found.limited_by = GENERATOR
        found.reason = (
            f"at {rate:,.0f} spans/s it was within 10 % of what this machine managed against the "
            f"null sink ({ceiling.at(found.batch):,.0f})"
        )
    elif nearest and len(ours) * 2 > len(nearest):
        found.limited_by, found.reason = GENERATOR, ours[-1].reason
    elif nearest:
        theirs = next(t for t in nearest if t.limited_by != GENERATOR)
        found.limited_by, found.reason = TARGET, theirs.reason
    else:
        found.limited_by = GENERATOR
        found.reason = f"what was lost beyond {rate:,.0f} spans/s was not lost again: too noisy"
    if found.limited_by == GENERATOR:
        found.ndr = found.pdr = None
        found.ndr_at_least = _lossless(found.trials)
    elif not found.ndr:
        found.ndr_below = _lowest_lossy(found.trials)


def _report_below(found: Capacity, goals: Goals, failed: Trial) -> None:
    """Report a target that lost spans at every rate."""
    found.ndr = found.pdr = 0.0
    found.ndr_below = failed.load_spans_per_s
    found.within_thresholds = 0.0 if goals.thresholds else None
    found.limited_by = TARGET
    found.reason = f"not even {failed.load_spans_per_s:,.0f} spans/s came through: {failed.reason}"


def _report_unlimited(found: Capacity, goals: Goals) -> None:
    """Report a search whose highest rate came through."""
    highest = found.trials[-1].load_spans_per_s
    if highest >= goals.max_rate:
        found.ndr, found.pdr = _lossless(found.trials, highest), highest
        if not found.ndr:
            found.ndr_below = _lowest_lossy(found.trials)
        elif found.ndr == highest:
            found.ndr_at_least = highest
        found.limited_by = NOBODY
        found.reason = f"the highest rate asked for, {highest:,.0f} spans/s, came through"
        return
    found.ndr = found.pdr = None
    found.ndr_at_least = _lossless(found.trials)
    found.limited_by = GENERATOR
    found.reason = (
        f"{highest:,.0f} spans/s came through, and no more can be offered: this machine managed "
        f"{found.generator_spans_per_s or 0:,.0f} against the null sink"
    )

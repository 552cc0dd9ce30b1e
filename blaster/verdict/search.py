"""The search for a target's ceiling: which trials to make, and what they show.

The search itself is MLRsearch's (draft-ietf-bmwg-mlrsearch, its reference implementation): it finds
several rates at once, each the highest whose loss ratio is at most a goal's. Before it, the rate is
quadrupled from the lowest until a trial loses something, so that a slow target is not met with a
thousand times what it can take.

A load counts as within a goal by the majority of its trials, so that one hiccup of the machine does
not decide. Only who searches imports this: MLRsearch takes half a second to.
"""

from __future__ import annotations

from collections.abc import Callable
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
"""What a trial is made for."""

STEP = 4
REQUESTS_PER_S = 200
"""The batch of the search is what makes so many requests a second of the lower end of its bracket:
many enough to see a loss of little, few enough not to measure the requests rather than spans."""

MAX_BATCH = 1000

TRIES = 3

NEAR = 1.05
"""Trials at loads so close to the ceiling say who was the limit."""

Measure = Callable[[str, float, float, int], Trial]
"""Makes a trial: phase, spans per second, seconds, spans in a request."""


def search_ceiling(goals: Goals, ceiling: Ceiling | None, measure: Measure) -> Capacity:
    """Finds the ceiling by trials. The findings have no overload and no fit yet."""
    found = Capacity(loss_ratio=goals.loss_ratio, ceiling=ceiling, reason="")
    made = _Made(goals, measure, found.trials)
    load = goals.min_rate
    for _ in range(TRIES):
        passed, failed = _bracket(goals, ceiling, made, load)
        found.batch = made.batch
        if ceiling is not None:
            found.generator_spans_per_s = ceiling.at(found.batch)
        if failed is None:
            _unlimited(found, goals)
            return found
        if passed is None and load == goals.min_rate and failed.limited_by != GENERATOR:
            found.ndr = found.pdr = 0.0
            found.within_thresholds = 0.0 if goals.thresholds else None
            found.limited_by = TARGET
            found.reason = f"not even the lowest rate came through: {failed.reason}"
            return found
        least, most = (passed or failed).load_spans_per_s / 2, failed.load_spans_per_s
        found.ndr, found.pdr = _searched(goals, made, least, most, SEARCH)
        if any(t.phase == SEARCH and t.loss_ratio > goals.loss_ratio for t in found.trials):
            break
        # What the bracket lost was a hiccup: nothing was lost again up to there.
        load = most * STEP
    if goals.thresholds:
        highest = max(found.pdr or 0.0, least * 1.01)
        found.within_thresholds, _ = _searched(goals, made, goals.min_rate, highest, THRESHOLDS)
    _who(found, ceiling)
    return found


class _Made(AbstractMeasurer):  # type: ignore[misc]
    """Makes trials for MLRsearch and keeps them."""

    def __init__(self, goals: Goals, measure: Measure, trials: list[Trial]) -> None:
        self._goals = goals
        self._measure = measure
        self._trials = trials
        self.batch = goals.batch or 1
        self.phase = SEARCH

    def trial(self, phase: str, load: float, duration_s: float) -> Trial:
        """One trial, made again while the generator fails it: that is often a hiccup."""
        for _ in range(TRIES):
            trial = self._measure(phase, load, duration_s, self.batch)
            self._trials.append(trial)
            if not (trial.loss_ratio > 0 and trial.limited_by == GENERATOR):
                break
        return trial

    def best(self, phase: str, loss_ratio: float) -> float:
        """The highest load below which no trial of the phase lost more than that, nor it itself."""
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
        """For MLRsearch. With thresholds, a trial that breaks one has lost everything."""
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
    goals: Goals, ceiling: Ceiling | None, made: _Made, load: float
) -> tuple[Trial | None, Trial | None]:
    """From ``load`` on, the last trial that lost nothing and the first that lost more than the goal
    allows."""
    passed: Trial | None = None
    while True:
        made.batch = goals.batch or _batch(load / STEP)
        most = min(
            goals.max_rate, ceiling.at(made.batch) * NEAR_CEILING if ceiling else goals.max_rate
        )
        load = min(load, most)
        trial = made.trial(BRACKET, load, min(goals.trial_s, 1.0))
        if trial.loss_ratio > goals.loss_ratio and goals.repeats > 1:
            # A hiccup would end the search below a ceiling that it never saw.
            trial = made.trial(BRACKET, load, min(goals.trial_s, 1.0))
        if trial.loss_ratio > goals.loss_ratio:
            made.batch = goals.batch or _batch(load / STEP)
            return passed, trial
        passed = trial
        if load >= most:
            return passed, None
        load *= STEP


def _batch(load: float) -> int:
    return max(1, min(MAX_BATCH, round(load / REQUESTS_PER_S)))


def _searched(
    goals: Goals, made: _Made, least: float, most: float, phase: str
) -> tuple[float, float]:
    """The no-drop rate and the partial-drop rate by MLRsearch; 0 where not even ``least`` passes.

    When the time is up, what the trials show so far.
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
    made.phase = phase
    try:
        result = MultipleLossRatioSearch(config=config).search(made, debug=lambda _: None)
    except RuntimeError:  # it takes too long
        return made.best(phase, 0.0), made.best(phase, goals.loss_ratio)
    rates = [result[goal].conditional_throughput for goal in wanted]
    found = [0.0 if rate is None else round(float(rate), 1) for rate in rates]
    return found[0], found[-1]


def _who(found: Capacity, ceiling: Ceiling | None) -> None:
    """Says who was the limit. Where it was the generator, there is no rate to report."""
    rate = found.pdr or 0.0
    lossy = [t for t in found.trials if t.phase == SEARCH and t.loss_ratio > found.loss_ratio]
    lossy.sort(key=lambda t: t.load_spans_per_s)
    above = [t for t in lossy if t.load_spans_per_s > rate] or lossy
    nearest = [t for t in above if t.load_spans_per_s <= above[0].load_spans_per_s * NEAR]
    ours = [t for t in nearest if t.limited_by == GENERATOR]
    # The highest rate offered is that share of it, but for rounding.
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


def _unlimited(found: Capacity, goals: Goals) -> None:
    """The highest rate that may be offered came through."""
    highest = found.trials[-1].load_spans_per_s
    if highest >= goals.max_rate:
        found.ndr = found.pdr = highest
        found.limited_by = NOBODY
        found.reason = f"the highest rate asked for, {highest:,.0f} spans/s, came through"
        return
    found.ndr = found.pdr = None
    found.limited_by = GENERATOR
    found.reason = (
        f"{highest:,.0f} spans/s came through, and no more can be offered: this machine managed "
        f"{found.generator_spans_per_s or 0:,.0f} against the null sink"
    )

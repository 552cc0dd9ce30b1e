"""Trials: short runs at one rate each, of which a search for the ceiling is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from blaster.cluster.cluster import Cluster
from blaster.engine.outcome_log import OutcomeLog
from blaster.engine.results import Results
from blaster.engine.signals import Interrupted, StopSignals
from blaster.errors import BlasterError
from blaster.job.job import Job
from blaster.listener import Listener
from blaster.run import run
from blaster.scenario.scenario import Stage
from blaster.scenario.threshold import Threshold
from blaster.transport.base import Outcomes, Status
from blaster.verdict.capacity import Ceiling, Overload
from blaster.verdict.thresholds import value_at
from blaster.verdict.trial import Trial, trial_of

OVERLOAD_S, WATCHED_S, BUCKET_S = 1.5, 5.0, 0.1
RECOVERY_LOAD = 0.5
"""The share of the ceiling that is offered after the overload."""

BAND_FACTOR, BAND_MS = 2.0, 10.0
"""Latency has recovered when it is at most so many times that at the same load before, and so much
more."""

COLLAPSE = 0.8
"""Below this share of the ceiling, what is accepted of twice the ceiling is a collapse."""

REST_S = 0.3
"""How long a target that lost something is left alone before the next trial."""


class Trials:
    """Makes trials of a job. ``ceiling``: the generator's, None while it is not known."""

    def __init__(
        self,
        job: Job,
        signals: StopSignals,
        ceiling: Ceiling | None = None,
        *,
        on_trial: Callable[[Trial], None] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self._job = job
        self._cluster = cluster
        self._signals = signals
        self._on_trial = on_trial
        self._ceiling = ceiling

    def measure(self, phase: str, load: float, duration_s: float, batch: int) -> Trial:
        """One trial at a steady rate; see :func:`blaster.verdict.trial.trial_of`."""
        rate = max(1, round(load))
        results, outcomes = self._run([_steady(rate, duration_s)], batch)
        trial = trial_of(
            results,
            outcomes,
            phase=phase,
            load=rate,
            duration_s=duration_s,
            ceiling=self._ceiling.at(batch) if self._ceiling else None,
            broken=_broken(results, self._job.scenario.thresholds),
        )
        if self._on_trial is not None:
            self._on_trial(trial)
        if trial.loss_ratio:
            time.sleep(REST_S)
        return trial

    def overload(
        self, phase: str, ceiling: float, batch: int, before_ms: float
    ) -> tuple[Overload, Trial]:
        """Twice the ceiling, then less than it in the same run, so that the recovery is seen.

        ``before_ms``: the latency's 99th percentile at that lesser load, before. The trial is the
        overload's alone.
        """
        over, after = round(2 * ceiling), max(1, round(RECOVERY_LOAD * ceiling))
        stages = [_steady(over, OVERLOAD_S), _steady(after, WATCHED_S)]
        results, outcomes = self._run(stages, batch)
        start = int(outcomes["scheduled"][0])
        ok = outcomes[outcomes["status"] == Status.OK]
        in_time = ok[ok["done"] <= start + OVERLOAD_S * 1e9]
        accepted = float((in_time["spans"] - in_time["rejected"]).sum()) / OVERLOAD_S
        band = max(BAND_FACTOR * before_ms, before_ms + BAND_MS)
        trial = trial_of(
            results,
            outcomes[outcomes["scheduled"] < start + OVERLOAD_S * 1e9],
            phase=phase,
            load=over,
            duration_s=OVERLOAD_S,
            ceiling=self._ceiling.at(batch) if self._ceiling else None,
            broken=[],
            counts=results.stages[0].spans,
        )
        if self._on_trial is not None:
            self._on_trial(trial)
        overload = Overload(
            offered_spans_per_s=2 * ceiling,
            accepted_spans_per_s=accepted,
            share=accepted / ceiling,
            collapsed=accepted < COLLAPSE * ceiling,
            recovery_s=recovery_s(outcomes, start + round(OVERLOAD_S * 1e9), band),
            watched_s=WATCHED_S,
            spans=results.spans,
        )
        return overload, trial

    def _run(self, stages: Sequence[Stage], batch: int) -> tuple[Results, Outcomes]:
        with OutcomeLog() as outcome_log:
            results = run(
                self._job.offering(stages, batch),
                self._signals,
                OutcomeListener(outcome_log),
                cluster=self._cluster,
            )
            self._signals.on_stop = None  # a signal between two trials ends the search
            outcomes = outcome_log.outcomes()
        check_finished(results)
        return results, outcomes


class OutcomeListener(Listener):
    """Has every Outcome of a run kept."""

    def __init__(self, outcome_log: OutcomeLog) -> None:
        self._outcome_log = outcome_log

    @property
    def outcomes(self) -> OutcomeLog:
        return self._outcome_log


def recovery_s(outcomes: Outcomes, end_ns: int, band_ms: float) -> float | None:
    """Seconds from ``end_ns`` on until every tenth of a second is well: nothing lost, and the
    latency's 90th percentile within ``band_ms``. None when the last one still is not."""
    after = outcomes[outcomes["scheduled"] >= end_ns]
    if not len(after):
        return None
    buckets = ((after["scheduled"] - end_ns) / (BUCKET_S * 1e9)).astype(np.int64)
    last_ill = -1
    for bucket in np.unique(buckets):
        inside = after[buckets == bucket]
        latency_ms = (inside["done"] - inside["scheduled"]) / 1e6
        well = bool(np.all(inside["status"] == Status.OK)) and not inside["rejected"].any()
        if not well or float(np.percentile(latency_ms, 90)) > band_ms:
            last_ill = int(bucket)
    return None if last_ill == buckets.max() else round((last_ill + 1) * BUCKET_S, 3)


def check_finished(results: Results) -> None:
    """Raise BlasterError where a host was lost, and Interrupted where the user stopped the run."""
    lost = [f"{host.host} {host.lost}" for host in results.hosts or () if host.lost is not None]
    if lost:
        raise BlasterError(f"the search cannot go on without host {lost[0]}")
    if results.interrupted:
        raise Interrupted("interrupted before the ceiling was found")


def _steady(rate: int, duration_s: float) -> Stage:
    return Stage(duration_ns=round(duration_s * 1e9), start_rate=rate, end_rate=rate)


def _broken(results: Results, thresholds: Sequence[Threshold]) -> list[str]:
    """The thresholds that the run did not meet."""
    broken = []
    for threshold in thresholds:
        value = value_at(results, threshold.path)
        if value is not None and not threshold.holds(value):
            broken.append(threshold.text)
    return broken

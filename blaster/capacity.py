"""``blaster capacity``: calibrates the generator, searches for the ceiling, and goes beyond it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from blaster import run as load_test
from blaster.cluster.cluster import Cluster
from blaster.engine.recorder import Recorder
from blaster.engine.results import Results
from blaster.engine.signals import Interrupted, StopSignals
from blaster.errors import BlasterError, UsageError
from blaster.scenario.threshold import parse_thresholds
from blaster.sink.process import EmbeddedSink
from blaster.sink.server import SinkOptions
from blaster.transport.base import Outcomes, Status
from blaster.transport.otlp_settings import protocol_of
from blaster.units import MAX_RATE, parse_duration, parse_rate, quoted
from blaster.verdict.capacity import Capacity, Ceiling, Goals, Overload, fit_law
from blaster.verdict.limit import GENERATOR
from blaster.verdict.search import OVERLOAD, search_ceiling
from blaster.verdict.thresholds import value_at
from blaster.verdict.trial import Trial, trial_of

CALIBRATION_BATCHES = (50, 1000)
CALIBRATION_S = 1.0

CALIBRATION_STEPS = (0.9, 0.75, 0.6, 0.45, 0.3, 0.2)
"""The shares of what a closed loop manages that are tried on a schedule, until one is kept."""

CALIBRATION_LATE_MS = 50.0
"""Lateness at p99 up to which a calibration kept to its schedule."""

OVERLOAD_S, WATCHED_S, BUCKET_S = 1.5, 5.0, 0.1
RECOVERY_LOAD = 0.5
"""The share of the ceiling that is offered after the overload."""

BAND_FACTOR, BAND_MS = 2.0, 10.0
"""Latency is back when it is at most so many times that at the same load before, and so much more.
"""

COLLAPSE = 0.8
"""Below this share of the ceiling, what is accepted of twice the ceiling is a collapse."""

LIMIT_S, LIMIT_TRIALS = 150.0, 25
"""A search ends after so many seconds, or after the time of so many rates tried if that is more."""

REST_S = 0.3
"""How long a target that lost something is left alone before the next trial."""


@dataclass(frozen=True, slots=True)
class Search:
    """What to search with. ``options``: of every trial, without rate, duration and batch;
    ``sink``: further arguments of the embedded sink; ``cluster``: the hosts that send."""

    options: load_test.Options
    goals: Goals
    sink: tuple[str, ...] = ()
    cluster: Cluster | None = None


def goals(
    *,
    min_rate: str,
    max_rate: str | None,
    precision: float,
    loss_ratio: float,
    trial_duration: str,
    repeats: int,
    batch: int | None,
    thresholds: bool,
) -> Goals:
    """The goals that the command line means. Raises UsageError, naming the option."""
    least = _parse_rate("--min-rate", min_rate)
    most = float(MAX_RATE) if max_rate is None else _parse_rate("--max-rate", max_rate)
    trial_s = parse_seconds("--trial-duration", trial_duration)
    for option, value, low, high in (
        ("--precision", precision, 0.001, 0.5),
        ("--loss-ratio", loss_ratio, 0.0, 0.5),
        ("--trial-duration", trial_s, 0.2, 600.0),
        ("--repeats", repeats, 1, 99),
    ):
        if not low <= value <= high:
            raise UsageError(f"{option} {value:g}: must be from {low:g} to {high:g}")
    if repeats % 2 == 0:
        raise UsageError(f"--repeats {repeats}: must be odd, so that there is a majority")
    if least >= most:
        raise UsageError(f"--max-rate {most:g}: must be above --min-rate {least:g}")
    return Goals(
        min_rate=least,
        max_rate=most,
        loss_ratio=loss_ratio,
        precision=precision,
        trial_s=trial_s,
        repeats=repeats,
        batch=batch,
        thresholds=thresholds,
        limit_s=max(LIMIT_S, LIMIT_TRIALS * trial_s * repeats),
    )


def sink_arguments(
    embedded: bool, spans_per_s: int, overload: str, faults: Sequence[str] = ()
) -> tuple[str, ...]:
    """The arguments of the embedded sink. Raises UsageError where there is none."""
    if faults and not embedded:
        raise UsageError(
            f"--fault {quoted(faults[0])}: is for the embedded sink: only with --embedded"
        )
    SinkOptions(fault=faults).check()
    more = tuple(argument for fault in faults for argument in ("--fault", fault))
    if not spans_per_s:
        return more
    if not embedded:
        raise UsageError(f"--sink-capacity {spans_per_s}: only with --embedded")
    SinkOptions(capacity=spans_per_s, overload=overload).check()
    return ("--capacity", str(spans_per_s), "--overload", overload, *more)


def parse_seconds(option: str, text: str) -> float:
    """A duration such as 10s, in seconds. Raises UsageError, naming the option."""
    try:
        return parse_duration(text) / 1e9
    except ValueError as error:
        raise UsageError(f"{option} {quoted(text)}: {error}") from None


def _parse_rate(option: str, text: str) -> float:
    try:
        rate = parse_rate(text)
    except ValueError as error:
        raise UsageError(f"{option} {quoted(text)}: {error}") from None
    if not rate:
        raise UsageError(f"{option} {quoted(text)}: must be spans per second, more than 0")
    return float(rate)


def find(
    search: Search, signals: StopSignals, on_trial: Callable[[Trial], None] | None = None
) -> Capacity:
    """Calibrates, searches, overloads and fits. Raises BlasterError for what keeps it from it, and
    Interrupted on SIGINT or SIGTERM."""
    began = time.monotonic()
    load_test.scenario_of(search.options)  # what is wrong with them is better said now
    with _target(search) as options:
        trials = _Trials(options, signals, on_trial, search.cluster)
        if search.cluster is None:
            trials.ceiling = calibrate(options, signals)
        else:
            trials.ceiling = ceiling_of(search.cluster, options)
        found = search_ceiling(search.goals, trials.ceiling, trials.measure)
        rate = found.pdr or found.ndr
        if rate and found.limited_by != GENERATOR:
            before = trials.measure(OVERLOAD, RECOVERY_LOAD * rate, 1.0, found.batch)
            found.trials.append(before)
            found.overload = trials.overload(rate, found.batch, before.p99_ms or 0.0)
    found.usl = fit_law(found.trials)
    found.duration_s = round(time.monotonic() - began, 3)
    return found


def calibrate(options: load_test.Options, signals: StopSignals) -> Ceiling:
    """What this machine manages with the same options against a sink that refuses nothing.

    A closed loop shows the most that it can send, and then steps below it the most that it can
    send on a schedule: that is what trials do, and what it must be judged by.
    """
    rates = []
    with EmbeddedSink() as sink:
        plain = replace(
            _in_the_clear(options),
            endpoint=_endpoint(sink, options),
            headers=(),
            watch=(),
            thresholds=(),
            abort_on=(),
        )
        for batch in CALIBRATION_BATCHES:
            most = _calibration_run(plain, signals, batch, "max").rate.achieved_spans_per_s
            for step in CALIBRATION_STEPS:
                rate = max(1, round(step * most))
                results = _calibration_run(plain, signals, batch, str(rate))
                if results.spans.accepted == results.spans.scheduled and on_time(results):
                    break
            rates.append(float(rate))
    return Ceiling(CALIBRATION_BATCHES[0], rates[0], CALIBRATION_BATCHES[1], rates[1])


def _endpoint(sink: EmbeddedSink, options: load_test.Options) -> str:
    return load_test.embedded_url(sink, options.transport, protocol_of(options))


def ceiling_of(cluster: Cluster, options: load_test.Options) -> Ceiling:
    """What the hosts manage together, each against a sink of its own: as all have equal shares,
    the slowest host's as often as there are hosts. BlasterError where one does not say."""
    arguments = []
    for option, value in (
        ("--transport", options.transport),
        ("--workers", options.workers),
        ("--spans-per-trace", options.spans_per_trace),
        ("--violation-rate", options.violation_rate),
    ):
        if value is not None:
            arguments += [option, str(value)]
    found = []
    for name, said in zip(cluster.names, cluster.ceilings(arguments), strict=True):
        try:
            found.append(msgspec.json.decode(said, type=Ceiling))
        except msgspec.DecodeError:
            raise BlasterError(f"host {name} does not say what it can send: {said}") from None
    hosts = len(found)
    return Ceiling(
        CALIBRATION_BATCHES[0],
        hosts * min(ceiling.small_rate for ceiling in found),
        CALIBRATION_BATCHES[1],
        hosts * min(ceiling.large_rate for ceiling in found),
    )


def _in_the_clear(options: load_test.Options) -> load_test.Options:
    """The options for a sink of ours, which has no certificate."""
    return replace(
        options,
        insecure=False,
        insecure_skip_verify=False,
        ca_cert=None,
        client_cert=None,
        client_key=None,
    )


def _calibration_run(
    options: load_test.Options, signals: StopSignals, batch: int, rate: str
) -> Results:
    results = load_test.run(
        replace(options, rate=rate, duration=f"{CALIBRATION_S:g}s", batch=batch, retry="off"),
        signals,
    )
    signals.on_stop = None  # a signal between two runs ends the calibration
    _check(results)
    return results


def on_time(results: Results) -> bool:
    """Whether the sends kept to their schedule, but for a hiccup of the machine."""
    return (results.lateness_ms.p99 or 0.0) <= CALIBRATION_LATE_MS


class _Trials:
    """Makes trials, one run each."""

    def __init__(
        self,
        options: load_test.Options,
        signals: StopSignals,
        on_trial: Callable[[Trial], None] | None,
        cluster: Cluster | None,
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._signals = signals
        self._on_trial = on_trial
        self.ceiling: Ceiling | None = None

    def measure(self, phase: str, load: float, duration_s: float, batch: int) -> Trial:
        """One trial at a steady rate; see :func:`blaster.verdict.trial.trial_of`."""
        rate = max(1, round(load))
        results, outcomes = self._run(batch, rate=str(rate), duration=f"{duration_s:g}s")
        trial = trial_of(
            results,
            outcomes,
            phase=phase,
            load=rate,
            duration_s=duration_s,
            ceiling=self.ceiling.at(batch) if self.ceiling else None,
            broken=_broken(results, self._options),
        )
        if self._on_trial is not None:
            self._on_trial(trial)
        if trial.loss_ratio:
            time.sleep(REST_S)
        return trial

    def overload(self, ceiling: float, batch: int, before_ms: float) -> Overload:
        """Twice the ceiling, then less than it in the same run, so that the recovery is seen.

        ``before_ms``: the latency's 99th percentile at that lesser load, before.
        """
        over, after = round(2 * ceiling), max(1, round(RECOVERY_LOAD * ceiling))
        stages = f"{over}@{OVERLOAD_S:g}s,{after}@{WATCHED_S:g}s"
        results, outcomes = self._run(batch, stages=stages)
        start = int(outcomes["scheduled"][0])
        ok = outcomes[outcomes["status"] == Status.OK]
        in_time = ok[ok["done"] <= start + OVERLOAD_S * 1e9]
        accepted = float((in_time["spans"] - in_time["rejected"]).sum()) / OVERLOAD_S
        band = max(BAND_FACTOR * before_ms, before_ms + BAND_MS)
        return Overload(
            offered_spans_per_s=2 * ceiling,
            accepted_spans_per_s=accepted,
            share=accepted / ceiling,
            collapsed=accepted < COLLAPSE * ceiling,
            recovery_s=recovery_s(outcomes, start + round(OVERLOAD_S * 1e9), band),
            watched_s=WATCHED_S,
            spans=results.spans,
        )

    def _run(
        self,
        batch: int,
        *,
        rate: str | None = None,
        duration: str | None = None,
        stages: str | None = None,
    ) -> tuple[Results, Outcomes]:
        options = replace(self._options, rate=rate, duration=duration, stages=stages, batch=batch)
        # A retry would hide that the target pushed back, and offer it more than was asked for.
        options = replace(options, retry="off")
        with Recorder() as recorder:
            results = load_test.run(
                options, self._signals, recorder=recorder, cluster=self._cluster
            )
            self._signals.on_stop = None  # a signal between two trials ends the search
            outcomes = recorder.outcomes()
        _check(results)
        return results, outcomes


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


@contextmanager
def _target(search: Search) -> Iterator[load_test.Options]:
    """The options with the target in them: the embedded sink's, where it is asked for."""
    options = search.options
    if not options.embedded:
        yield options
        return
    load_test.check_no_endpoint(options)
    if search.cluster is not None:
        search.cluster.check_loopback()
    with EmbeddedSink(*search.sink) as sink:
        watch = options.watch or (str(sink.pid),)
        endpoint = _endpoint(sink, options)
        yield replace(options, embedded=False, endpoint=endpoint, watch=watch)


def _broken(results: Results, options: load_test.Options) -> list[str]:
    """The thresholds of the command line that the run did not meet."""
    broken = []
    for text in options.thresholds:
        for threshold in parse_thresholds(text):
            value = value_at(results, threshold.path)
            if value is not None and not threshold.holds(value):
                broken.append(threshold.text)
    return broken


def _check(results: Results) -> None:
    lost = [f"{host.host} {host.lost}" for host in results.hosts or () if host.lost is not None]
    if lost:
        raise BlasterError(f"the search cannot go on without host {lost[0]}")
    if results.interrupted:
        raise Interrupted("interrupted before the ceiling was found")

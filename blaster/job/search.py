"""Search: what ``blaster capacity`` looks for and sends, resolved and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace

from blaster.cluster.cluster import Cluster
from blaster.errors import UsageError
from blaster.job.job import Job
from blaster.job.options import CapacityOptions, LoadOptions
from blaster.job.resolution import (
    check_embedded,
    load_scenario,
    parsed,
    resolve_embedded,
    wanted_of,
)
from blaster.job.sizing import Hosts
from blaster.measure.sampler import parse_watch
from blaster.sink.options import SinkOptions
from blaster.transport import otlp_settings, retry
from blaster.units import MAX_RATE, parse_duration, parse_rate, quoted
from blaster.verdict.capacity import Goals

LIMIT_S, LIMIT_TRIALS = 150.0, 25
"""A search ends after so many seconds, or after the time of so many rates tried if that is more."""


@dataclass(frozen=True, slots=True)
class Search:
    """``job``: what each trial sends, at a rate of its own; ``goals``: what to look for."""

    job: Job
    goals: Goals


def resolve_search(options: CapacityOptions, cluster: Cluster | None = None) -> Search:
    """The search that the options mean, from the hosts of ``cluster`` where there is one. Raises
    UsageError."""
    goals = _goals(options)
    if options.sink_capacity and not options.embedded:
        raise UsageError(f"--sink-capacity {options.sink_capacity}: only with --embedded")
    job = load_job(options, cluster)
    sink = resolve_embedded(
        options,
        SinkOptions(
            fault=options.fault, capacity=options.sink_capacity, overload=options.sink_overload
        ),
        job.otlp.protocol,
    )
    watches = tuple(parse_watch(text) for text in options.watch)
    return Search(replace(job, embedded=sink, watches=watches), goals)


def load_job(options: LoadOptions, cluster: Cluster | None = None) -> Job:
    """The job of sending what the options say, at no rate in particular. Raises UsageError."""
    otlp = otlp_settings.resolve(options)
    if options.embedded:
        check_embedded(options, otlp.transport, cluster)
    if cluster is not None:
        cluster.check_same()
        otlp = replace(otlp, transport=cluster.transport(options.transport, otlp.transport))
    return Job.of(
        load_scenario(options),
        otlp,
        wanted=wanted_of(options),
        hosts=Hosts.of(cluster),
        retry_mode=retry.OFF,
    )


def _goals(options: CapacityOptions) -> Goals:
    least = Goals().min_rate
    if options.min_rate is not None:
        least = _rate("--min-rate", options.min_rate)
    most = float(MAX_RATE)
    if options.max_rate is not None:
        most = _rate("--max-rate", options.max_rate)
    trial_s = parsed("--trial-duration", options.trial_duration, parse_duration) / 1e9
    repeats = options.repeats
    for option, value, low, high in (
        ("--precision", options.precision, 0.001, 0.5),
        ("--loss-ratio", options.loss_ratio, 0.0, 0.5),
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
        lower=options.min_rate is None,
        max_rate=most,
        loss_ratio=options.loss_ratio,
        precision=options.precision,
        trial_s=trial_s,
        repeats=repeats,
        batch=options.batch,
        thresholds=bool(options.threshold),
        limit_s=max(LIMIT_S, LIMIT_TRIALS * trial_s * repeats),
    )


def _rate(option: str, text: str) -> float:
    rate = parsed(option, text, parse_rate)
    if not rate:
        raise UsageError(f"{option} {quoted(text)}: must be spans per second, more than 0")
    return float(rate)

"""Calibration: the most that the generator can send, so that it is never taken for the target's
limit."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from blaster.cluster.cluster import Cluster
from blaster.engine.results import Results
from blaster.engine.signals import StopSignals
from blaster.errors import BlasterError
from blaster.job.job import Job
from blaster.run import embedded_endpoint, run
from blaster.scenario.scenario import Stage
from blaster.sink.process import EmbeddedSink
from blaster.trials import check_finished
from blaster.verdict.capacity import Ceiling

BATCHES = (50, 1000)
DURATION_S = 1.0

STEPS = (0.9, 0.75, 0.6, 0.45, 0.3, 0.2)
"""The shares of a closed loop's rate that are tried on a schedule, until one is kept."""

LATE_MS = 50.0
"""Lateness at p99 up to which a calibration kept to its schedule."""


def calibrate(job: Job, signals: StopSignals) -> Ceiling:
    """The most that this machine sends of the job, to a sink that refuses nothing.

    A closed loop shows the most that it can send, and then steps below it the most that it can
    send on a schedule: that is what trials do, and what it must be judged by.
    """
    rates = []
    with EmbeddedSink() as sink:
        plain = job.sending_to(embedded_endpoint(sink, job.otlp.transport))
        plain = replace(plain, embedded=None, watches=(), otlp=replace(plain.otlp, headers=()))
        for batch in BATCHES:
            most = _send(plain, signals, batch, None).rate.achieved_spans_per_s
            for step in STEPS:
                rate = max(1, round(step * most))
                results = _send(plain, signals, batch, rate)
                if results.spans.accepted == results.spans.scheduled and on_time(results):
                    break
            rates.append(float(rate))
    return Ceiling(BATCHES[0], rates[0], BATCHES[1], rates[1])


def ceiling_of(cluster: Cluster, job: Job) -> Ceiling:
    """The most that the hosts send of the job together, each measured against a sink of its own: as
    all have equal shares, the slowest host's rate times the hosts. BlasterError where a host does
    not answer."""
    traces = job.scenario.workload
    arguments = ["--transport", job.otlp.transport]
    arguments += ["--violation-rate", f"{float(traces.violation_rate):.9f}"]
    arguments += ["--spans-per-trace", str(traces.spans_per_trace)]
    if job.wanted.workers is not None:
        arguments += ["--workers", str(job.wanted.workers)]
    found = []
    for name, answer in zip(cluster.names, cluster.ceilings(arguments), strict=True):
        try:
            found.append(msgspec.json.decode(answer, type=Ceiling))
        except msgspec.DecodeError:
            raise BlasterError(f"host {name} does not say what it can send: {answer}") from None
    hosts = len(found)
    return Ceiling(
        BATCHES[0],
        hosts * min(ceiling.small_rate for ceiling in found),
        BATCHES[1],
        hosts * min(ceiling.large_rate for ceiling in found),
    )


def on_time(results: Results) -> bool:
    """Whether the sends kept to their schedule, but for a hiccup of the machine."""
    return (results.lateness_ms.p99 or 0.0) <= LATE_MS


def _send(job: Job, signals: StopSignals, batch: int, rate: int | None) -> Results:
    stage = Stage(duration_ns=round(DURATION_S * 1e9), start_rate=rate, end_rate=rate)
    results = run(job.offering([stage], batch), signals)
    signals.on_stop = None  # a signal between two runs ends the calibration
    check_finished(results)
    return results

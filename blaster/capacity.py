"""One search for a target's ceiling, from a Search to the findings: calibrates the generator,
searches, and goes beyond the ceiling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from blaster.calibration import calibrate, ceiling_of
from blaster.cluster.cluster import Cluster
from blaster.engine.signals import StopSignals
from blaster.job.job import Job
from blaster.job.search import Search
from blaster.measure.sampler import Watch
from blaster.run import embedded_endpoint
from blaster.sink.process import EmbeddedSink
from blaster.trials import RECOVERY_LOAD, Trials
from blaster.verdict.capacity import Capacity, fit_law
from blaster.verdict.limit import GENERATOR
from blaster.verdict.search import OVERLOAD, search_ceiling
from blaster.verdict.trial import Trial


def find(
    search: Search,
    signals: StopSignals,
    on_trial: Callable[[Trial], None] | None = None,
    *,
    cluster: Cluster | None = None,
) -> Capacity:
    """Calibrate, search, overload and fit. ``cluster``: the hosts that send, for which the search
    was made; None: this machine.

    Raises BlasterError for what keeps it from it, and Interrupted on SIGINT or SIGTERM.
    """
    began = time.monotonic()
    with _target(search.job) as job:
        ceiling = calibrate(job, signals) if cluster is None else ceiling_of(cluster, job)
        trials = Trials(job, signals, ceiling, on_trial=on_trial, cluster=cluster)
        found = search_ceiling(search.goals, ceiling, trials.measure)
        rate = found.pdr or found.ndr
        if rate and found.limited_by != GENERATOR:
            before = trials.measure(OVERLOAD, RECOVERY_LOAD * rate, 1.0, found.batch)
            found.trials.append(before)
            found.overload, beyond = trials.overload(
                OVERLOAD, rate, found.batch, before.p99_ms or 0.0
            )
            found.trials.append(beyond)
    found.usl = fit_law(found.trials)
    found.duration_s = round(time.monotonic() - began, 3)
    return found


@contextmanager
def _target(job: Job) -> Iterator[Job]:
    """The job with its target: the embedded sink, started for all trials, where it is asked for."""
    if job.embedded is None:
        yield job
        return
    with EmbeddedSink(job.embedded) as sink:
        aimed = job.sending_to(embedded_endpoint(sink, job.otlp.transport))
        watches = job.watches or (Watch(str(sink.pid), pid=sink.pid),)
        yield replace(aimed, embedded=None, watches=watches)

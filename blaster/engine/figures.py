"""Figures: rates and latencies of some segments of a run."""

from __future__ import annotations

from collections.abc import Iterable

from blaster.engine.results import Distribution, Latency, Lateness, Percentiles, Rate
from blaster.engine.run import Run
from blaster.engine.slab import Slab
from blaster.measure import hdr
from blaster.measure.histogram import Histogram


def rate_of(run: Run, begin_ns: int, end_ns: int, segments: Iterable[int]) -> Rate:
    """The rates between two times since the start, of the segments that lie there."""
    pacer = run.plan.pacer
    counts = run.ledger.counts(segments)
    seconds = (end_ns - begin_ns) / 1e9
    target = None
    if pacer is not None:
        until = min(max(end_ns, begin_ns + 1), pacer.duration_ns)
        if begin_ns == 0 and end_ns >= run.plan.scenario.duration_ns:
            target = pacer.total * 1e9 / pacer.duration_ns / run.plan.hosts
        elif not run.ledger.total(Slab.scheduled):
            target = float(run.plan.rate_at(0))  # what it would have begun with
        else:
            due = run.plan.due(until - 1) - run.plan.due(begin_ns - 1)
            target = due * 1e9 / (until - begin_ns)
    return Rate(target, counts.sent / seconds, counts.accepted / seconds)


def latency_of(run: Run, segments: Iterable[int]) -> Latency:
    segments = list(segments)
    return Latency(
        _percentiles(run.ledger.response(segments)), _percentiles(run.ledger.service(segments))
    )


def lateness_of(run: Run, segments: Iterable[int]) -> Lateness:
    lateness = run.ledger.lateness(segments).summary_ms()
    return Lateness(lateness["p50"], lateness["p99"], lateness["max"])


def distribution_of(run: Run, segments: Iterable[int]) -> Distribution:
    segments = list(segments)

    def points(histogram: Histogram) -> list[tuple[float, float]]:
        return [(round(share, 9), value / 1000) for value, share, _ in hdr.steps(histogram)]

    return Distribution(points(run.ledger.response(segments)), points(run.ledger.service(segments)))


def _percentiles(histogram: Histogram) -> Percentiles:
    return Percentiles(**histogram.summary_ms())

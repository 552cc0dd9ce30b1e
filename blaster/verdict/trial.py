"""Trial: a short run at one rate, and the part of its load that was accepted in time.

As in RFC 2544 (section 26.1), only spans accepted by the end of the trial count. A span is lost if
it was rejected, failed, unanswered or not offered, and also if its answer came later than a grace
period after the trial's end: a target that queues without bound answers everything in the end. The
grace period is the latency at the trial's beginning, before a backlog can have grown, plus GRACE_S
for jitter; a backlog that grows by less than it in a whole trial is not noticed. A peer that
gathers its answers (Nagle's algorithm, RFC 896) keeps the last one of a connection until it is
acknowledged, and no further request carries that: DELAYED_ACK_S are added for those.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from blaster.engine.results import Results, Spans
from blaster.transport.base import OUTCOME, Outcomes, Status
from blaster.verdict.limit import (
    GENERATOR,
    NOBODY,
    TARGET,
    backpressure_of,
    limit_of,
    starvation_of,
)

GRACE_S = 0.02
DELAYED_ACK_S = 0.045
"""Linux acknowledges received data after at most 40 ms."""

HICCUP_S, BUNCH_S = 0.01, 0.05
"""A send later than HICCUP_S is a hiccup of the generator; failures within BUNCH_S after it may be
caused by it."""

BEGINNING = 0.05
"""The share of a trial that counts as its beginning."""

FULL = 0.95
"""The share of the in-flight cap from which it counts as reached: workers split it unevenly."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial. Counts are of spans; ``late``: accepted after the trial's end. ``loss_ratio``: the
    share of ``scheduled`` not accepted in time. ``accepted_spans_per_s``: in time.
    ``concurrency``: requests in flight, averaged over the trial. ``grace_ms``: the grace period
    after its end. ``broken``: the thresholds not met.
    """

    phase: str
    load_spans_per_s: float
    duration_s: float
    scheduled: int
    accepted: int
    late: int
    rejected: int
    failed: int
    unknown: int
    not_offered: int
    loss_ratio: float
    accepted_spans_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    grace_ms: float
    concurrency: float
    target_cpu_percent: float | None
    generator_cpu_percent: float | None
    broken: list[str]
    limited_by: str
    reason: str


def trial_of(
    results: Results,
    outcomes: Outcomes,
    *,
    phase: str,
    load: float,
    duration_s: float,
    ceiling: float | None,
    broken: list[str],
    counts: Spans | None = None,
) -> Trial:
    """Judge a run at one steady rate, or a stage of one, whose ``counts`` these are. ``outcomes``
    (dtype OUTCOME) by their scheduled times."""
    assert outcomes.dtype == OUTCOME
    duration_ns = round(duration_s * 1e9)
    start = int(outcomes["scheduled"][0]) if len(outcomes) else 0
    end = start + duration_ns
    ok = outcomes[outcomes["status"] == Status.OK]
    spans = ok["spans"] - ok["rejected"]
    beginning = ok[ok["scheduled"] < start + BEGINNING * duration_ns]
    grace = GRACE_S * 1e9
    if len(beginning):
        grace += float(np.median(beginning["done"] - beginning["scheduled"]))
    in_time = ok["done"] <= end + grace
    acknowledged = ok["done"] <= end + grace + DELAYED_ACK_S * 1e9
    if int((acknowledged & ~in_time).sum()) <= results.configuration.connections:
        in_time = acknowledged
    accepted, late = int(spans[in_time].sum()), int(spans[~in_time].sum())
    counts = results.spans if counts is None else counts
    lost = counts.scheduled - accepted
    latency_ms = (ok["done"] - ok["scheduled"]) / 1e6
    cap_reached = _most_in_flight(outcomes) >= FULL * results.configuration.in_flight
    # Spans that were late only because they were sent late are lost by the generator.
    on_time = ok["done"] - (ok["sent"] - ok["scheduled"]) <= end + grace
    ours = 0
    if not cap_reached and not backpressure_of(results):
        ours = int(spans[~in_time & on_time].sum()) + counts.not_offered + _bunched(outcomes)
    limited_by, reason = limit_of(results, ceiling=ceiling, cap_reached=cap_reached)
    if lost and limited_by != GENERATOR:
        if ours * 2 > lost:
            limited_by = GENERATOR
            reason = f"{ours:,} of {lost:,} lost spans were sent late, in a bunch, or not at all"
        elif limited_by == NOBODY:
            limited_by = TARGET
            reason = f"{lost:,} spans were not accepted by the trial's end"
    elif not lost and starvation_of(results) is not None:
        # Everything was accepted nevertheless.
        limited_by, reason = NOBODY, "all that was offered was accepted in time"
    return Trial(
        phase=phase,
        load_spans_per_s=load,
        duration_s=duration_s,
        scheduled=counts.scheduled,
        accepted=accepted,
        late=late,
        rejected=counts.rejected,
        failed=counts.failed,
        unknown=counts.unknown,
        not_offered=counts.not_offered,
        loss_ratio=lost / counts.scheduled if counts.scheduled else 0.0,
        accepted_spans_per_s=accepted / duration_s,
        p50_ms=_percentile(latency_ms, 50),
        p99_ms=_percentile(latency_ms, 99),
        grace_ms=round(grace / 1e6, 3),
        concurrency=_mean_in_flight(outcomes, start, end),
        target_cpu_percent=results.target.cpu_percent.avg if results.target else None,
        generator_cpu_percent=results.generator.cpu_percent.avg,
        broken=broken,
        limited_by=limited_by,
        reason=reason,
    )


def _percentile(values: np.ndarray[Any, np.dtype[np.float64]], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 3) if len(values) else None


def _bunched(outcomes: Outcomes) -> int:
    """The spans that failed just after a late send, which sends too many at once."""
    late = np.sort(outcomes["sent"][outcomes["sent"] - outcomes["scheduled"] > HICCUP_S * 1e9])
    failed = outcomes[(outcomes["status"] != Status.OK) & (outcomes["sent"] > 0)]
    if not len(late) or not len(failed):
        return 0
    before = np.searchsorted(late, failed["sent"], side="right")
    since = failed["sent"] - late[np.maximum(before - 1, 0)]
    return int(failed["spans"][(before > 0) & (since <= BUNCH_S * 1e9)].sum())


def _mean_in_flight(outcomes: Outcomes, start: int, end: int) -> float:
    """Little's law: the time that requests spent in flight between two times, over that time."""
    spent = np.minimum(outcomes["done"], end) - np.maximum(outcomes["sent"], start)
    return round(float(np.maximum(spent, 0).sum()) / (end - start), 4)


def _most_in_flight(outcomes: Outcomes) -> int:
    """The most requests that were sent and not yet done at one time."""
    if not len(outcomes):
        return 0
    times = np.concatenate([outcomes["sent"], outcomes["done"]])
    steps = np.repeat([1, -1], len(outcomes))
    order = np.lexsort((steps, times))  # at the same time, the end comes first
    return int(np.cumsum(steps[order]).max())

"""The limit of a run: nobody, the target, the generator, or the in-flight cap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from statistics import fmean

from blaster.engine.results import Results

NOBODY, TARGET, GENERATOR, IN_FLIGHT_CAP = "nobody", "target", "generator", "in-flight cap"

BUSY_PERCENT = 85.0
"""A worker that spends more than this of a core, or that spends and waits for more than this, has
no headroom: the rest goes to waking up."""

BACKPRESSURE_SHARE = 0.5
"""If the target held the load back for more than this share of the time that it was behind its
schedule, the target is the limit."""

IDLE_PERCENT = 25.0
"""A worker that runs and waits for less than this was not kept from sending by its CPU."""

THROTTLED_PERCENT = 2.0
"""A generator that a CPU quota kept from more than this of a core was limited, however late."""

LATE_MS = 100.0
"""A lateness above this at p99 is a sign of a limit, not of the scheduler's jitter."""

NEAR_CEILING = 0.9
"""From this share of the generator's own ceiling on, the generator is the suspect."""

GROWTH_FACTOR, GROWTH_MS = 2.0, 50.0
"""Latency grew if the last third's p99 exceeds the first third's by this factor and this much."""

_PUSHBACK = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "NO_ANSWER_TIMEOUT", "HTTP_429", "HTTP_503")


def limit_of(
    results: Results, *, ceiling: float | None = None, cap_reached: bool | None = None
) -> tuple[str, str]:
    """Return the limit and, in a sentence, the evidence for it.

    The generator is suspected first: a target's limit is claimed only if it cannot be the
    generator's. ``ceiling``: the generator's own ceiling in spans per second, if it was measured.
    ``cap_reached``: whether the in-flight cap was reached; None: judged by the series.
    """
    if cap_reached is None:
        cap_reached = any(p.in_flight >= results.configuration.in_flight for p in results.series)
    return next(_suspects(results, ceiling, cap_reached))


def _suspects(
    results: Results, ceiling: float | None, cap_reached: bool
) -> Iterator[tuple[str, str]]:
    """Each limit that has evidence, the strongest first; nobody last."""
    if not results.spans.scheduled:
        yield NOBODY, "nothing was offered"
    starved = starvation_of(results)
    if starved is not None:
        yield GENERATOR, starved
    for host in results.hosts or ():
        if host.limited_by == GENERATOR:
            yield GENERATOR, f"host {host.host}: {host.reason}"
    offered = results.rate.achieved_spans_per_s
    if ceiling is not None and offered > NEAR_CEILING * ceiling:
        yield (
            GENERATOR,
            f"{offered:,.0f} spans/s were offered, and this machine managed no more than "
            f"{ceiling:,.0f} against the null sink",
        )
    statuses = Counter(results.requests.by_status) + Counter(results.requests.retried_by_status)
    pushback = {s: n for s, n in statuses.items() if s in _PUSHBACK}
    if pushback:
        counts = ", ".join(f"{n:,} × {status}" for status, n in pushback.items())
        yield TARGET, f"the target pushed back: {counts}"
    cap = results.configuration.in_flight
    if results.rate.target_spans_per_s is None:
        yield (
            IN_FLIGHT_CAP,
            f"{cap} requests were in flight throughout and the workers spent "
            f"{_busy(results):.0f} % of a core each: the load waited for answers",
        )
    lateness = results.lateness_ms.p99 or 0.0
    if results.spans.not_offered > 0 or lateness > LATE_MS:
        if cap_reached:
            yield (
                TARGET,
                f"all {cap} requests in flight awaited answers while the load fell behind its "
                f"schedule (lateness p99 {lateness:.0f} ms)",
            )
        evidence = backpressure_of(results)
        if evidence is not None:
            yield TARGET, f"sends were late (p99 {lateness:.0f} ms) and {evidence}"
        yield (
            GENERATOR,
            f"sends were late (p99 {lateness:.0f} ms) though requests could still have been sent: "
            f"the workers ran {_busy(results):.0f} % of the time and waited for a CPU "
            f"{results.generator.run_queue_percent.avg or 0:.0f} % of it",
        )
    growth = _growth(results)
    if growth is not None:
        yield TARGET, growth
    yield NOBODY, "the load kept to its schedule and the target kept up"


def starvation_of(results: Results) -> str | None:
    """The evidence that the workers had no CPU left; None if they had.

    It is the time that they ran or waited for a CPU: a worker that others keep off the CPU is at
    its limit however little it runs.
    """
    throttled = results.generator.throttled_percent
    if throttled > THROTTLED_PERCENT:
        return f"a CPU quota kept the generator from {throttled:.1f} % of a core that it wanted"
    ran, waited = results.generator.worker_cpu_percent, results.generator.run_queue_percent
    late = results.spans.not_offered > 0 or (results.lateness_ms.p99 or 0.0) > LATE_MS
    busy, queued = _busy(results), waited.avg or 0.0
    if late and ran.peak is not None and waited.peak is not None:
        busy, queued = max(busy, ran.peak), waited.peak
    if busy + queued <= BUSY_PERCENT:
        return None
    if busy > BUSY_PERCENT or queued < 10:
        return f"the workers spent {busy:.0f} % of a core each: they had no headroom"
    return (
        f"the workers got {busy:.0f} % of a core each and waited for a CPU "
        f"another {queued:.0f} % of the time"
    )


def backpressure_of(results: Results) -> str | None:
    """The evidence that sends were late because the target took no more; None if there is none.

    Some transports measure how long a request was due and could not be written, without the time
    that the worker overslept because others had its CPU. Without such a measurement, workers that
    slept and did not wait for a CPU were held back by the peer's flow control, which can happen
    with fewer requests in flight than allowed.
    """
    ours = results.generator
    ran, waited = ours.worker_cpu_percent.avg, ours.run_queue_percent.avg
    if not ours.behind_percent:
        late = (results.lateness_ms.p99 or 0.0) > LATE_MS
        if not late or ran is None or waited is None or ran + waited >= IDLE_PERCENT:
            return None
        return "the workers slept and wanted no CPU: the target did not take what was sent"
    held, capped = ours.held_back_percent, ours.capped_percent
    if held + capped <= BACKPRESSURE_SHARE * ours.behind_percent:
        return None
    return (
        f"the load was behind for {ours.behind_percent:.0f} % of the time: for {held:.0f} % the "
        f"target's flow control or a full socket held it back, for {capped:.0f} % all requests in "
        "flight awaited answers"
    )


def _busy(results: Results) -> float:
    """The CPU of a worker while it had load to offer, in percent of a core."""
    ran = results.generator.worker_cpu_percent.avg
    if ran is not None:
        return ran
    return (results.generator.cpu_percent.avg or 0.0) / results.generator.workers


def _growth(results: Results) -> str | None:
    """The evidence that latency and requests in flight grew; None if they did not."""
    points = [p for p in results.series if p.p99_ms is not None and p.t <= results.duration_s + 0.5]
    third = len(points) // 3
    ramps = any(stage.start_spans_per_s != stage.end_spans_per_s for stage in results.stages)
    if third == 0 or ramps or len(results.configuration.stages) > 1:
        return None  # growth under a growing load is not the target's fault
    first, last = points[:third], points[-third:]
    before, after = (fmean(p.p99_ms or 0.0 for p in part) for part in (first, last))
    waiting, more = (fmean(p.in_flight for p in part) for part in (first, last))
    if after < max(GROWTH_FACTOR * before, before + GROWTH_MS) or more <= GROWTH_FACTOR * waiting:
        return None
    return (
        f"latency grew from {before:.0f} to {after:.0f} ms (p99) and requests in flight from "
        f"{waiting:.0f} to {more:.0f}, though the load was steady"
    )

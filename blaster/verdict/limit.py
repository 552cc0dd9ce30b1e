"""Who was the limit: nobody, the target, the generator, or the in-flight cap."""

from __future__ import annotations

from blaster.engine.results import Results

NOBODY, TARGET, GENERATOR, IN_FLIGHT_CAP = "nobody", "target", "generator", "in-flight cap"

BUSY_PERCENT = 85.0
"""A worker that spends more than this of a core has no headroom."""

LATE_MS = 100.0
"""Sends later than this at p99 are a sign of a limit, not of the scheduler's jitter."""

_PUSHBACK = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "NO_ANSWER_TIMEOUT")


def limit_of(results: Results) -> tuple[str, str]:
    """The limit and, in a sentence, the evidence for it.

    The generator is suspected first: a target's limit is claimed only when it can't be ours.
    """
    busy = (results.generator.cpu_percent.avg or 0.0) / results.generator.workers
    cap_reached = _cap_reached(results)
    pushback = {s: n for s, n in results.requests.by_status.items() if s in _PUSHBACK}
    closed = results.rate.target_spans_per_s is None
    lateness = results.lateness_ms.p99 or 0.0
    behind = results.spans.not_offered > 0 or lateness > LATE_MS
    if busy > BUSY_PERCENT:
        return GENERATOR, f"the workers spent {busy:.0f} % of a core each: they had no headroom"
    if pushback:
        said = ", ".join(f"{n:,} × {status}" for status, n in pushback.items())
        return TARGET, f"the target pushed back: {said}"
    if closed:
        return IN_FLIGHT_CAP, (
            f"{results.configuration.in_flight} requests were in flight throughout and the workers "
            f"spent {busy:.0f} % of a core each: the load waited for answers"
        )
    if behind and cap_reached:
        return TARGET, (
            f"all {results.configuration.in_flight} requests in flight awaited answers while the "
            f"load fell behind its schedule (lateness p99 {lateness:.0f} ms)"
        )
    if behind:
        return GENERATOR, (
            f"sends were late (p99 {lateness:.0f} ms) though requests could still have been sent"
        )
    return NOBODY, "the load kept to its schedule and the target kept up"


def _cap_reached(results: Results) -> bool:
    return any(p.in_flight >= results.configuration.in_flight for p in results.series)

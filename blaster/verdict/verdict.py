"""The verdict: the scenario's criteria and the accounts, each a check; and who was the limit."""

from __future__ import annotations

from statistics import fmean

from blaster.engine.results import Check, Results, Verdict
from blaster.scenario.scenario import Scenario
from blaster.units import format_bytes, format_count
from blaster.verdict.limit import limit_of

NOT_MEASURED = "not measured"

RECOVERY_FACTOR, RECOVERY_POINTS = 1.5, 5.0
"""CPU is back at its baseline when it is at most so many times as much, or so many points more:
whichever is more, since idle processes' clocks tick in hundredths."""


def judge(results: Results, scenario: Scenario) -> Verdict:
    """The verdict on a run by the scenario's criteria. A criterion that could not be measured is
    not failed, and is not claimed as passed either."""
    checks = [_accounts(results), *_sink(results), *_criteria(results, scenario)]
    if results.generator.lost_workers:
        lost = ", ".join(results.generator.lost_workers)
        checks.append(Check("workers", "all alive", lost, False))
    limited_by, reason = limit_of(results)
    passed = not any(check.passed is False for check in checks)
    return Verdict(passed, limited_by, reason, checks)


def _accounts(results: Results) -> Check:
    spans = results.spans
    lost = {
        "rejected": spans.rejected,
        "failed": spans.failed,
        "unknown": spans.unknown,
        "not offered": spans.not_offered,
    }
    actual = ", ".join(f"{format_count(n)} {name}" for name, n in lost.items() if n)
    return Check("spans lost", "none", actual or "none", not actual)


def _sink(results: Results) -> list[Check]:
    """What the sink received must be what was accepted, give or take what went unanswered."""
    sink, spans = results.sink, results.spans
    if sink is None:
        return []
    least, most = spans.accepted, spans.accepted + spans.unknown
    expected = format_count(least) if least == most else f"{least:,} to {most:,}"
    actual = format_count(sink.spans)
    checks = [Check("spans in the sink", expected, actual, least <= sink.spans <= most)]
    for name, count in (
        ("duplicate spans", sink.duplicates),
        ("invalid spans", sink.invalid),
        ("malformed requests", sink.malformed),
    ):
        checks.append(Check(name, "0", format_count(count), count == 0))
    return checks


def _criteria(results: Results, scenario: Scenario) -> list[Check]:
    criteria, checks = scenario.criteria, []
    if criteria.detection_rate_min is not None and results.violations.injected:
        rate = results.violations.detection_rate
        checks.append(
            Check(
                "detection rate",
                f"> {criteria.detection_rate_min:.1%}",
                NOT_MEASURED if rate is None else f"{rate:.1%}",
                None if rate is None else rate > criteria.detection_rate_min,
            )
        )
    target = results.target
    if criteria.target_cpu_percent_max is not None:
        cpu = target.cpu_percent.avg if target else None
        checks.append(
            Check(
                "target CPU, average",
                f"< {criteria.target_cpu_percent_max:g} % of a core",
                NOT_MEASURED if cpu is None else f"{cpu:.1f} %",
                None if cpu is None else cpu < criteria.target_cpu_percent_max,
            )
        )
    if criteria.target_rss_bytes_max is not None:
        rss = target.rss_bytes.peak if target else None
        checks.append(
            Check(
                "target memory, peak",
                f"< {format_bytes(criteria.target_rss_bytes_max)}",
                NOT_MEASURED if rss is None else format_bytes(rss),
                None if rss is None else rss < criteria.target_rss_bytes_max,
            )
        )
    if criteria.no_errors:
        errors = results.requests.sent - results.requests.ok
        checks.append(Check("requests in error", "0", format_count(errors), errors == 0))
    if criteria.none_dropped:
        dropped = results.spans.scheduled - results.spans.accepted
        checks.append(Check("spans dropped", "0", format_count(dropped), dropped == 0))
    if criteria.cpu_recovers:
        checks.append(_recovery(results, scenario))
    return checks


def _recovery(results: Results, scenario: Scenario) -> Check:
    """Whether the target's CPU in the later half of the last stage is that of the first stage."""
    name = "target CPU after the spike"
    first_end = scenario.stages[0].duration_ns / 1e9
    last_end = scenario.duration_ns / 1e9
    last_middle = last_end - scenario.stages[-1].duration_ns / 2e9
    baseline = _cpu_between(results, 0, first_end)
    after = _cpu_between(results, last_middle, last_end + 1)
    if baseline is None or after is None:
        return Check(name, "back at its baseline", NOT_MEASURED, None)
    limit = max(baseline * RECOVERY_FACTOR, baseline + RECOVERY_POINTS)
    return Check(
        name, f"< {limit:.1f} % (before: {baseline:.1f} %)", f"{after:.1f} %", after < limit
    )


def _cpu_between(results: Results, begin_s: float, end_s: float) -> float | None:
    values = [p.target_cpu for p in results.series if begin_s < p.t <= end_s]
    known = [value for value in values if value is not None]
    return fmean(known) if known else None

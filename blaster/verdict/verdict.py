"""The verdict: checks of the ledger, the scenario's criteria and thresholds; and the limit."""

from __future__ import annotations

from blaster.engine.recovery import Back
from blaster.engine.results import Check, Results, Verdict
from blaster.engine.steady import Leak
from blaster.scenario.scenario import Scenario
from blaster.units import format_bytes, format_count
from blaster.verdict import thresholds
from blaster.verdict.limit import limit_of
from blaster.verdict.thresholds import NOT_MEASURED


def judge(results: Results, scenario: Scenario) -> Verdict:
    """Judge a run by the scenario's criteria. A criterion that could not be measured neither fails
    nor passes, as does a run that was cut short."""
    checks = [_ledger(results), *_sink(results), *_verified(results)]
    checks += _criteria(results, scenario)
    checks += [thresholds.check(results, threshold) for threshold in scenario.thresholds]
    if results.aborted is not None:
        checks.append(Check("abort-on", "does not hold", results.aborted, False))
    if results.interrupted:
        actual = f"interrupted after {results.duration_s:.1f} s"
        checks.append(Check("complete", "all stages", actual, None))
    if results.generator.lost_workers:
        lost = ", ".join(results.generator.lost_workers)
        checks.append(Check("workers", "all alive", lost, False))
    limited_by, reason = limit_of(results)
    passed = not any(check.passed is False for check in checks)
    return Verdict(passed, limited_by, reason, checks)


def _ledger(results: Results) -> Check:
    spans = results.spans
    if not spans.scheduled:
        return Check("spans offered", "some", "none", False)
    lost = {
        "rejected": spans.rejected,
        "failed": spans.failed,
        "unknown": spans.unknown,
        "not offered": spans.not_offered,
    }
    actual = ", ".join(f"{format_count(n)} {name}" for name, n in lost.items() if n)
    return Check("spans lost", "none", actual or "none", not actual)


def _sink(results: Results) -> list[Check]:
    """The sink must have received the accepted spans, and may have received the unanswered ones;
    those that were sent again may be there twice."""
    sink, spans = results.sink, results.spans
    if sink is None:
        return []
    twice = results.requests.possible_duplicates
    least, most = spans.accepted, spans.accepted + spans.unknown + twice
    expected = format_count(least) if least == most else f"{least:,} to {most:,}"
    actual = format_count(sink.spans)
    checks = [Check("spans in the sink", expected, actual, least <= sink.spans <= most)]
    for name, count, bound in (
        ("duplicate spans", sink.duplicates, twice),
        ("invalid spans", sink.invalid, 0),
        ("malformed requests", sink.malformed, 0),
    ):
        wanted = f"0 to {bound:,}" if bound else "0"
        checks.append(Check(name, wanted, format_count(count), count <= bound))
    return checks


def _verified(results: Results) -> list[Check]:
    """No spans may be lost between the backends' stages, and every backend has to answer. The
    detection rate is a criterion of the scenario."""
    checks = []
    for stage in results.funnel[2:]:
        if stage.unit == "violations":
            continue
        expected = "?" if stage.expected is None else format_count(stage.expected)
        actual = NOT_MEASURED if stage.spans is None else format_count(stage.spans)
        if stage.reason:
            actual = f"{actual}: {stage.reason}"
        passed = None if stage.lost is None else stage.lost == 0
        checks.append(Check(f"{stage.unit} {stage.stage}", expected, actual, passed))
    for asked in results.verification:
        checks += [
            Check(f"{asked.backend} answers", "as it should", problem, False)
            for problem in asked.problems
        ]
    for name, pages in (("scrape", results.scraped), ("alerts", results.alerts)):
        checks += [
            Check(f"{name} answers", "as it should", problem, False)
            for page in pages
            for problem in page.problems
        ]
    return checks


def _criteria(results: Results, scenario: Scenario) -> list[Check]:
    criteria, checks = scenario.criteria, []
    if criteria.detection_rate_min is not None and results.violations.injected:
        rate = results.violations.detection_rate
        missed = next((s.reason for s in results.funnel if s.unit == "violations"), "")
        checks.append(
            Check(
                "detection rate",
                f"> {criteria.detection_rate_min:.1%}",
                (NOT_MEASURED if rate is None else f"{rate:.1%}") + (missed and f": {missed}"),
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
        found = results.recovery
        back, slow = (found.target_cpu_percent, found.latency_ms) if found else (None, None)
        checks.append(_recovery("target CPU after the spike", "%", back))
        checks.append(_recovery("latency p99 after the spike", "ms", slow))
    if criteria.no_leak:
        checks.append(_leak("target memory leak", results.leak.target))
        checks.append(_leak("generator memory leak", results.leak.generator))
    return checks


def _recovery(name: str, unit: str, back: Back | None) -> Check:
    """Whether a figure came back to its baseline before the end of the run."""
    if back is None:
        return Check(name, "back at its baseline", NOT_MEASURED, None)
    return Check(
        name,
        f"<= {back.limit:.1f} {unit} (before: {back.baseline:.1f} {unit})",
        "not until the end" if back.seconds is None else f"after {back.seconds:.1f} s",
        back.recovered,
    )


def _leak(name: str, leak: Leak | None) -> Check:
    if leak is None or leak.leaking is None:
        return Check(name, "none", NOT_MEASURED if leak is None else leak.reason, None)
    return Check(name, "none", leak.reason, not leak.leaking)

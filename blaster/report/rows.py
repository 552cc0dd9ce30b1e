"""The figures of a run as rows of text, for the console, Markdown and HTML."""

from __future__ import annotations

from blaster.engine.results import AveragePeak, Check, Results
from blaster.units import format_bytes, format_count

NONE = "–"


def configuration(results: Results) -> list[tuple[str, str]]:
    """The settings of the run: names and values."""
    asked = results.configuration
    rate = results.rate.target_spans_per_s
    return [
        ("Scenario", results.scenario),
        ("Stages", "; ".join(asked.stages)),
        (
            "Arrivals",
            asked.arrivals if asked.burst == 1 else f"{asked.arrivals}, {asked.burst} at once",
        ),
        ("Duration", f"{results.duration_s:.1f} s"),
        ("Target rate", "max" if rate is None else f"{rate:,.6g} spans/s"),
        ("Violation rate", f"{asked.violation_rate:.4g} of traces"),
        ("Endpoint", f"{asked.endpoint} ({asked.transport})"),
        (
            "Workers",
            f"{asked.workers}, {asked.connections} connections, "
            f"up to {asked.in_flight} requests in flight",
        ),
        (
            "Request",
            f"{asked.spans_per_request:,.4g} spans of {asked.traces_per_request:,} traces, "
            f"{asked.spans_per_trace:,.4g} in a trace, "
            f"{_figure(results.bytes.per_span, '.1f')} bytes a span",
        ),
        ("Workload", f"{asked.workload}, layout {asked.layout}"),
        ("Seed", str(results.seed)),
        *([("Faults", "; ".join(asked.faults))] if asked.faults else []),
    ]


def word(results: Results) -> str:
    """The verdict in a word, and whether the run was cut short."""
    verdict = results.verdict
    found = "Not judged" if verdict is None else "Passed" if verdict.passed else "Failed"
    if results.partial:
        return f"{found} (so far: the run was going on)"
    if results.interrupted:
        return f"{found} (interrupted after {results.duration_s:.1f} s)"
    return found


def outcome(results: Results) -> list[tuple[str, str]]:
    """The results of the run: names and values."""
    spans, rate, latency = results.spans, results.rate, results.latency_ms
    rows = [
        ("Total spans", f"{spans.sent:,} sent, {spans.accepted:,} accepted"),
        (
            "Achieved rate",
            f"{rate.accepted_spans_per_s:,.1f} spans/s accepted, "
            f"{rate.achieved_spans_per_s:,.1f} sent",
        ),
        ("Violations detected", _detected(results)),
        ("Latency p50", ms(latency.response.p50)),
        ("Latency p99", ms(latency.response.p99)),
        ("Latency p99.99, max", f"{ms(latency.response.p9999)}, {ms(latency.response.max)}"),
        ("Lateness p99", ms(results.lateness_ms.p99)),
    ]
    nothing = AveragePeak(None, None)
    cpu = results.target.cpu_percent if results.target else nothing
    rss = results.target.rss_bytes if results.target else nothing
    rows += [
        ("Backend CPU, peak", f"{_figure(cpu.peak, '.1f')} %"),
        ("Backend CPU, average", f"{_figure(cpu.avg, '.1f')} %"),
        ("Backend memory, peak", _size(rss.peak)),
        ("Backend memory, average", _size(rss.avg)),
        ("Errors", _errors(results)),
        *_holds(results),
        *_retries(results),
        *_compression(results),
        ("Steady", _steady(results)),
        (
            "Generator",
            f"{_figure(results.generator.cpu_percent.avg, '.1f')} % of a core, "
            f"{_figure(results.generator.spans_per_cpu_second, ',.0f')} spans per CPU-second",
        ),
    ]
    return rows


def tiles(results: Results) -> list[tuple[str, str]]:
    """The most important figures: names and values."""
    spans, latency = results.spans, results.latency_ms.response
    lost = spans.rejected + spans.failed + spans.unknown + spans.not_offered
    cpu = results.target.cpu_percent.avg if results.target else None
    rss = results.target.rss_bytes.peak if results.target else None
    return [
        ("Accepted", f"{results.rate.accepted_spans_per_s:,.1f} spans/s"),
        ("Spans accepted", f"{spans.accepted:,}"),
        ("Spans lost", f"{lost:,}"),
        ("Latency p50", ms(latency.p50)),
        ("Latency p99", ms(latency.p99)),
        ("Latency p99.9", ms(latency.p999)),
        ("Backend CPU, average", NONE if cpu is None else f"{cpu:.1f} %"),
        ("Backend memory, peak", _size(rss)),
    ]


def stages(results: Results) -> list[tuple[str, ...]]:
    """Stage, spans sent and accepted, rate, latency p50, p99 and maximum."""
    return [
        (
            stage.stage,
            format_count(stage.spans.sent),
            format_count(stage.spans.accepted),
            f"{stage.rate.achieved_spans_per_s:,.1f} spans/s",
            ms(stage.latency_ms.response.p50),
            ms(stage.latency_ms.response.p99),
            ms(stage.latency_ms.response.max),
        )
        for stage in results.stages
    ]


def hosts(results: Results) -> list[tuple[str, ...]]:
    """Host, spans sent and accepted, rate, latency p50 and p99, lateness p99, clock, limit."""
    return [
        (
            host.host,
            format_count(host.spans.sent),
            format_count(host.spans.accepted),
            f"{host.rate.achieved_spans_per_s:,.1f} spans/s",
            ms(host.latency_ms.response.p50),
            ms(host.latency_ms.response.p99),
            ms(host.lateness_ms.p99),
            f"{host.clock.offset_ms:+.3f} ± {host.clock.uncertainty_ms:.3f} ms",
            host.limited_by if host.lost is None else f"lost: it {host.lost}",
        )
        for host in results.hosts or ()
    ]


def violations(results: Results) -> list[tuple[str, str, str]]:
    """Rule, injected, detected."""
    detected = results.violations.detected_by_rule
    return [
        (
            rule,
            format_count(count),
            NONE if detected is None else format_count(detected.get(rule, 0)),
        )
        for rule, count in results.violations.by_rule.items()
    ]


def funnel(results: Results) -> list[tuple[str, str, str, str]]:
    """Stage, spans seen, spans lost, and the reason."""
    return [
        (
            stage.stage,
            NONE if stage.spans is None else f"{stage.spans:,} {stage.unit}",
            f"{stage.lost:,} lost" if stage.lost else "",
            stage.reason,
        )
        for stage in results.funnel
    ]


def observed(results: Results) -> list[tuple[str, str, str]]:
    """The scraped metrics that changed, and the alerts that fired."""
    found = [
        (name, f"{page.before.get(name, 0.0):,.6g} → {value:,.6g}", page.url)
        for page in results.scraped
        for name, value in page.after.items()
        if page.growth[name]
    ]
    return found + [
        (
            f"alert {alert.name}",
            alert.severity or NONE,
            "before the run, too" if alert.before else "",
        )
        for page in results.alerts
        for alert in page.alerts
    ]


def mark(check: Check) -> str:
    """passed, FAILED or not measured."""
    return {True: "passed", False: "FAILED", None: "not measured"}[check.passed]


def _detected(results: Results) -> str:
    found = results.violations
    if found.detected is None:
        return f"not measured ({found.injected:,} injected)"
    share = "" if found.detection_rate is None else f" ({found.detection_rate:.1%} of expected)"
    expected = found.injected if found.expected is None else found.expected
    return f"{found.detected:,} of {expected:,}{share}"


def _steady(results: Results) -> str:
    word = {True: "yes", False: "no", None: "not known"}[results.steady.steady]
    text = f"{word}: {results.steady.reason}"
    if results.warmup.method == "none":
        return text
    return f"{text}; the first {results.warmup.duration_s:g} s left out ({results.warmup.method})"


def _holds(results: Results) -> list[tuple[str, str]]:
    holds = [
        f"{hold.spans_per_s:,} spans/s for {hold.duration_s:.1f} s from {hold.begin_s:.1f} s on"
        for hold in results.holds
    ]
    return [("Rate held", "; ".join(holds))] if holds else []


def _retries(results: Results) -> list[tuple[str, str]]:
    """The retries, if there were any."""
    requests = results.requests
    if not requests.retried:
        return []
    after = ", ".join(f"{n:,} × {status}" for status, n in requests.retried_by_status.items())
    twice = f", {requests.possible_duplicates:,} spans possibly twice"
    text = f"{requests.retried:,} requests sent again, after {after}"
    return [("Retries", text + (twice if requests.possible_duplicates else ""))]


def _compression(results: Results) -> list[tuple[str, str]]:
    """The saving and the cost of compression, if there was any."""
    found = results.compression
    if found is None:
        return []
    return [
        (
            "Compression",
            f"{found.encoding} by {found.library}: {found.ratio:.1f} times smaller, "
            f"{_size(found.bytes_after)} sent, {found.cpu_seconds:.2f} s of CPU",
        )
    ]


def _errors(results: Results) -> str:
    errors = {s: n for s, n in results.requests.by_status.items() if s != "OK"}
    lost = {
        name: count
        for name, count in (
            ("rejected", results.spans.rejected),
            ("failed", results.spans.failed),
            ("unknown", results.spans.unknown),
            ("not offered", results.spans.not_offered),
        )
        if count
    }
    if not errors and not lost:
        return "0"
    requests = ", ".join(f"{n:,} × {status}" for status, n in errors.items()) or "0 requests"
    spans = ", ".join(f"{n:,} {name}" for name, n in lost.items()) or "none lost"
    return f"{requests}; spans: {spans}"


def _figure(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def ms(value: float | None) -> str:
    """Milliseconds, or NONE."""
    return NONE if value is None else f"{value:,.3f} ms"


def _size(value: float | None) -> str:
    return NONE if value is None else format_bytes(value)

"""Summary: the Results of a Run, filled in from its ledger, its series and its samplers."""

from __future__ import annotations

from datetime import UTC, datetime

from blaster.backends.findings import FunnelStage, Sent
from blaster.backends.scrape import Alerts, Scraped
from blaster.backends.verify import Answers
from blaster.engine.figures import distribution_of, latency_of, lateness_of, rate_of
from blaster.engine.machine import this_host
from blaster.engine.recovery import recovery
from blaster.engine.results import (
    AveragePeak,
    Bytes,
    Compressed,
    Configuration,
    Generator,
    Held,
    Peak,
    Requests,
    Results,
    Sink,
    Spans,
    Target,
    Violations,
    WarmedUp,
)
from blaster.engine.run import Mark, Run
from blaster.engine.slab import Slab
from blaster.engine.stage_results import stages_of
from blaster.engine.steady import leaks, steadiness
from blaster.layout import Int64
from blaster.measure import heat
from blaster.measure.schedstat import Share
from blaster.otlp.rules import RULES
from blaster.sink.counts import SinkCounts
from blaster.transport import compression
from blaster.transport.base import Status


def results_of(
    run: Run,
    configuration: Configuration,
    sink: SinkCounts | None,
    asked: tuple[Sent, Answers] | None = None,
    observed: tuple[list[Scraped], list[Alerts]] | None = None,
) -> Results:
    """The results of a closed run, or of one so far, without a verdict yet. ``asked``: what the
    backends were told and what they answered; ``observed``: what was scraped, and the alerts."""
    ledger, scenario = run.ledger, run.plan.scenario
    sent, accepted = ledger.total(Slab.sent_spans), ledger.total(Slab.accepted)
    before, after = ledger.total(Slab.uncompressed_bytes), ledger.total(Slab.compressed_bytes)
    scheduled, payload = (
        ledger.total(Slab.scheduled),
        ledger.total(Slab.sent_bytes) + before - after,
    )
    found = run.warmup_ns
    warmup = found or 0
    series = run.series.items
    measured = run.plan.segments.after(warmup)
    return Results(
        schema=1,
        scenario=scenario.name,
        started_at=_time(run.started_at),
        ended_at=_time(run.started_at + (run.end_ns - run.start_ns) / 1e9),
        duration_s=round(run.offered_ns / 1e9, 6),
        seed=run.plan.seed,
        interrupted=run.interrupted or run.partial,
        partial=run.partial,
        aborted=run.aborted,
        host=this_host(),
        configuration=configuration,
        spans=Spans(
            scheduled=scheduled,
            sent=sent,
            accepted=accepted,
            rejected=ledger.total(Slab.rejected),
            failed=ledger.total(Slab.failed),
            unknown=ledger.total(Slab.unknown),
            not_offered=scheduled - sent,
        ),
        requests=Requests(
            sent=ledger.total(Slab.sent_requests),
            ok=ledger.total(Slab.ok_requests),
            retried=ledger.total(Slab.retried_requests),
            retried_spans=ledger.total(Slab.retried_spans),
            retried_by_status=_by_status(ledger.retried_statuses()),
            possible_duplicates=ledger.total(Slab.possible_duplicates),
            by_status=_by_status(ledger.statuses()),
        ),
        bytes=Bytes(payload, round(payload / sent, 2) if sent else None),
        compression=Compressed(
            encoding=configuration.compression,
            library=compression.library(configuration.compression),
            bytes_before=before,
            bytes_after=after,
            ratio=round(before / after, 3),
            cpu_seconds=ledger.total(Slab.compression_ns) / 1e9,
        )
        if after
        else None,
        rate=rate_of(run, warmup, max(run.offered_ns, warmup + 1), measured),
        latency_ms=latency_of(run, measured),
        lateness_ms=lateness_of(run, measured),
        backlog_spans=Peak(max((p.backlog for p in series), default=0)),
        violations=_violations(run, sink, asked),
        target=_target(run, warmup),
        generator=_generator(run, sent, warmup),
        sink=_sink(sink),
        messages=run.messages,
        warmup=_warmed_up(run, found),
        steady=steadiness(series, scenario, found),
        leak=leaks(series, warmup, watched=run.target is not None),
        recovery=recovery(series, scenario, warmup),
        stages=stages_of(run, warmup, configuration),
        series=series,
        latency_distribution=distribution_of(run, measured),
        latency_heat=heat.heat_of(run.heat.items),
        funnel=_funnel(run, asked),
        verification=asked[1].verifications if asked else [],
        holds=_holds(run),
        scraped=observed[0] if observed else [],
        alerts=observed[1] if observed else [],
    )


def _funnel(run: Run, asked: tuple[Sent, Answers] | None) -> list[FunnelStage]:
    """From the schedule to what the backends found; empty where none was asked."""
    if asked is None:
        return []
    ledger = run.ledger
    scheduled, sent = ledger.total(Slab.scheduled), ledger.total(Slab.sent_spans)
    accepted = ledger.total(Slab.accepted)
    reasons = {
        "rejected": ledger.total(Slab.rejected),
        "failed": ledger.total(Slab.failed),
        "unanswered": ledger.total(Slab.unknown),
    }
    reason = ", ".join(f"{count:,} {name}" for name, count in reasons.items() if count)
    late = "not offered in time" if scheduled > sent else ""
    return [
        FunnelStage("sent", sent, scheduled - sent, late, expected=scheduled),
        FunnelStage("accepted", accepted, sent - accepted, reason, expected=sent),
        *asked[1].stages,
    ]


def _by_status(counts: Int64) -> dict[str, int]:
    return {Status(status).name: int(count) for status, count in enumerate(counts) if count}


def _holds(run: Run) -> list[Held]:
    return [
        Held(
            hold.begin_ns / 1e9,
            max(0, min(hold.duration_ns, run.offered_ns - hold.begin_ns)) / 1e9,
            hold.rate,
        )
        for hold in run.ledger.holds()
    ]


def _warmed_up(run: Run, found: int | None) -> WarmedUp:
    warmup = run.plan.scenario.warmup
    if warmup.auto:
        reason = "the mean response times after it have the smallest standard error"
        if found is None:
            reason = "no end was found in the first half of the first stage: nothing is left out"
        return WarmedUp("mser-5", (found or 0) / 1e9, reason)
    if not warmup.duration_ns:
        return WarmedUp("none", 0.0, "not asked for")
    reason = "as asked for" if found else "the run ended within it: nothing is left out"
    return WarmedUp("fixed", (found or 0) / 1e9, reason)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _violations(
    run: Run, sink: SinkCounts | None, asked: tuple[Sent, Answers] | None
) -> Violations:
    """A backend's word counts where one detects violations; else the sink's."""
    injected = int(run.violations.sum())
    by_rule = dict(zip(RULES, run.violations.tolist(), strict=True))
    found = Violations(injected, by_rule, int(run.own_violations.sum()), None, None, None)
    expected = injected
    if asked is not None and asked[1].detects:
        found.detected_by = "betrace"
        found.detected_by_rule = asked[1].detected
        found.expected = expected = sum(asked[0].violations.values())
    elif sink is not None:
        found.detected_by = "sink"
        found.detected_by_rule = sink.violations_by_rule
    if found.detected_by_rule is not None:
        found.detected = sum(found.detected_by_rule.values())
        found.detection_rate = round(found.detected / expected, 6) if expected else None
    return found


def _target(run: Run, warmup: int) -> Target | None:
    if run.target is None:
        return None
    mark = run.marks.get(warmup)
    usage = run.target.usage(mark.target if mark else None)
    cpu, rss = usage["cpu_percent"], usage["rss_bytes"]
    if mark is not None:
        after = [p for p in run.series.items if p.t * 1e9 > warmup]
        cpu["peak"] = max((p.target_cpu or 0.0 for p in after[1:]), default=cpu["peak"])
        rss["peak"] = max((p.target_rss or 0 for p in after), default=rss["peak"])
    return Target(
        run.target.processes(),
        AveragePeak(round(cpu["avg"], 2), round(cpu["peak"], 2)),
        AveragePeak(rss["avg"], rss["peak"]),
    )


def _generator(run: Run, sent: int, warmup: int) -> Generator:
    mark = run.marks.get(warmup) or Mark(run.start_ns, 0.0, 0, None)
    wall = max(run.end_ns - mark.t_ns, 1) / 1e9
    cpu = run.generator_cpu_s - mark.cpu_s
    peak = run.generator_cpu_peak
    if mark.sent:
        after = [p.generator_cpu for p in run.series.items if p.t * 1e9 > warmup]
        peak = max(after[1:], default=peak)
    whole = max(run.end_ns - run.start_ns, 1)
    behind, held, capped = (
        round(100 * run.ledger.total(field) / (whole * run.plan.workers), 2)
        for field in (Slab.behind_ns, Slab.backpressure_ns, Slab.capped_ns)
    )
    return Generator(
        workers=run.plan.workers,
        cpu_seconds=round(cpu, 6),
        cpu_percent=AveragePeak(round(100 * cpu / wall, 2), peak),
        rss_bytes=Peak(run.generator_rss_peak),
        spans_per_cpu_second=round((sent - mark.sent) / cpu, 1) if cpu > 0 else None,
        lost_workers=[str(lost) for lost in run.lost_workers],
        worker_cpu_percent=_share(run.worker_ran),
        run_queue_percent=_share(run.worker_waited),
        throttled_percent=round(100 * run.throttled_ns / whole, 2),
        behind_percent=behind,
        held_back_percent=held,
        capped_percent=capped,
    )


def _share(share: Share | None) -> AveragePeak:
    return AveragePeak(None, None) if share is None else AveragePeak(share.avg, share.peak)


def _sink(sink: SinkCounts | None) -> Sink | None:
    if sink is None:
        return None
    return Sink(
        spans=sink.spans,
        duplicates=sink.duplicates,
        invalid=sink.invalid,
        malformed=sink.malformed,
        sampling=sink.sampling,
        violations_by_rule=sink.violations_by_rule,
    )

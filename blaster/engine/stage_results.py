"""The results of each stage of a run."""

from __future__ import annotations

from blaster.engine.figures import latency_of, lateness_of, rate_of
from blaster.engine.results import Configuration, Spans, StageResult
from blaster.engine.run import Run
from blaster.engine.slab import Slab


def stages_of(run: Run, warmup: int, configuration: Configuration) -> list[StageResult]:
    """The stages that were begun; none where there are too many to keep apart."""
    plan, stop = run.plan, run.ledger.stopped_ns
    stopped = stop - run.start_ns if stop else plan.segments.duration_ns
    measured = set(plan.segments.after(warmup))
    results: list[StageResult] = []
    if plan.segments.stages[-1] != len(plan.scenario.stages) - 1:
        return results
    for number, name in enumerate(configuration.stages):
        segments = [s for s, stage in enumerate(plan.segments.stages) if stage == number]
        begin, end = int(plan.segments.starts[segments[0]]), plan.segments.end(segments[-1])
        if begin >= stopped:
            break
        last = number == len(plan.scenario.stages) - 1 or stopped <= end
        end = min(end, stopped)
        kept = [segment for segment in segments if segment in measured]
        spans = _stage_spans(run, begin, None if last else end, segments)
        whole = max(end, run.offered_ns if last else end)
        results.append(
            StageResult(
                stage=name,
                start_s=begin / 1e9,
                duration_s=(end - begin) / 1e9,
                spans=spans,
                rate=rate_of(run, begin, whole, segments),
                latency_ms=latency_of(run, kept),
                lateness_ms=lateness_of(run, kept),
                start_spans_per_s=plan.scenario.stages[number].start_rate,
                end_spans_per_s=plan.scenario.stages[number].end_rate,
            )
        )
    return results


def _stage_spans(run: Run, begin: int, end: int | None, segments: list[int]) -> Spans:
    """The stage's part of both equations; ``end`` None: the stage takes all that is left."""
    counts = run.ledger.counts(segments)
    sent = counts.sent
    scheduled = sent
    if run.plan.pacer is not None:
        before = _scheduled_until(run, begin)
        until = run.ledger.total(Slab.scheduled) if end is None else _scheduled_until(run, end)
        scheduled = max(sent, until - before)
    return Spans(
        scheduled=scheduled,
        sent=sent,
        accepted=counts.accepted,
        rejected=counts.rejected,
        failed=counts.failed,
        unknown=counts.unknown,
        not_offered=scheduled - sent,
    )


def _scheduled_until(run: Run, end: int) -> int:
    """The spans of the requests that are due before ``end``."""
    return sum(shard.spans_of(shard.due(end - 1)) for shard in run.plan.own_shards())

"""What a run sent, named trace by trace: which traces violate, and what a sampler should keep.

All of it follows from the plan and from how many requests each worker sent; nothing was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from blaster.backends.findings import Sent, SentTrace
from blaster.backends.policy import SamplingPolicy
from blaster.engine.plan import Requests
from blaster.engine.run import Run
from blaster.engine.sample import Sample
from blaster.engine.slab import Slab
from blaster.otlp.rules import RULES
from blaster.payload.shape import Int64
from blaster.payload.span import Span, decode
from blaster.payload.violations import ERROR

MOST_NAMED = 1 << 20
"""Violating traces that are named; where there are more, only their number is known."""

_AT_ONCE = 1 << 18
"""Traces that are looked at together: some tens of megabytes."""


def sent_requests(run: Run) -> Iterator[Requests]:
    """What the requests that were sent hold, as many of them at a time as _AT_ONCE allows."""
    step = max(1, _AT_ONCE // run.plan.per_request)
    for shard, sent in run.sent():
        for first in range(0, sent, step):
            yield shard.of(np.arange(first, min(first + step, sent), dtype=np.int64))


def violating_traces(run: Run) -> tuple[dict[str, int], dict[str, set[bytes]] | None]:
    """By rule, how many traces were sent with a span that breaks it, and their IDs; None for the
    IDs where they are too many to name. A trace that is cut up counts by the parts that were sent.
    """
    mix, source = run.plan.mix, run.plan.column_source()
    if int(run.violations.sum()) > MOST_NAMED:
        # Where traces are cut up, their parts are in several requests: the spans are all we know.
        counts = run.violations if mix.parts > 1 else np.zeros(len(RULES), np.int64)
        if mix.parts == 1:
            for held in sent_requests(run):
                _, cells, parts = traces_of(run, held)
                counts += mix.breaks[cells, parts].sum(axis=0)
        return dict(zip(RULES, counts.tolist(), strict=True)), None
    named: dict[str, set[bytes]] = {rule: set() for rule in RULES}
    for held in sent_requests(run):
        numbers, cells, parts = traces_of(run, held)
        broken = mix.breaks[cells, parts]
        for number, rule in enumerate(RULES):
            named[rule].update(source.trace_ids(numbers[broken[:, number]]))
    return {rule: len(traces) for rule, traces in named.items()}, named


def traces_of(run: Run, held: Requests) -> tuple[Int64, Int64, Int64]:
    """Of each trace (or part of one) in these requests: its number, its cell and its part."""
    per_request = held.counts
    spread = np.repeat(np.arange(len(per_request)), per_request)
    within = np.arange(len(spread)) - np.repeat(np.cumsum(per_request) - per_request, per_request)
    cells = run.plan.mix.cells(held.quota[spread] + within)
    return held.first[spread] + within, cells, held.parts[spread]


def kept_by(policy: SamplingPolicy, run: Run) -> tuple[int, int, int]:
    """The least, the expected and the most spans that a tail sampler keeps of what was sent."""
    mix = run.plan.mix
    traces = np.zeros(len(mix.cell_shape), np.int64)
    for held in sent_requests(run):
        _, cells, parts = traces_of(run, held)
        # Cut-up traces are counted by their first part.
        traces += np.bincount(cells[parts == 0], minlength=len(traces))
    spans = mix.cell_spans.sum(axis=1)
    failed = np.asarray(mix.breaks[:, :, ERROR - 1].any(axis=1))
    return policy.expected(traces, spans, failed, mix.cell_took())


def sampled_traces(run: Run, sample: Sample, size: int) -> list[SentTrace]:
    """At most so many of the accepted traces, at random but of every kind that was drawn in turn:
    those without violations and those with each of them. Rebuilt byte by byte from the plan."""
    by_kind: dict[int, list[tuple[int, int, int, int, int]]] = {}
    plan, random = run.plan, np.random.default_rng(run.plan.seed)
    for worker, request, scheduled in sample.accepted():
        held = plan.shard(worker).of(np.array([request], np.int64))
        kinds = plan.mix.cell_kind[plan.mix.cells(held.quota[0] + np.arange(int(held.counts[0])))]
        for kind in np.unique(kinds).tolist():
            at = int(random.choice(np.flatnonzero(kinds == kind)))
            row = (worker, request, scheduled, int(held.first[0]) + at, int(held.quota[0]) + at)
            by_kind.setdefault(kind, []).append(row)
    chosen: dict[int, SentTrace] = {}
    for turn in range(max(map(len, by_kind.values()), default=0)):
        for rows in by_kind.values():
            if turn < len(rows) and len(chosen) < size and rows[turn][3] not in chosen:
                chosen[rows[turn][3]] = _rebuilt(run, *rows[turn])
    return list(chosen.values())


def _rebuilt(
    run: Run, worker: int, request: int, scheduled: int, number: int, quota: int
) -> SentTrace:
    """The trace of this number as this request, which was accepted, held it or a part of it.

    Where traces are cut up and something was lost on the way, the other parts may have been, too:
    then only this part is sure to have been accepted.
    """
    plan, ledger = run.plan, run.ledger
    shard, k = plan.shard(worker), np.array([request], np.int64)
    start = ledger.control.start_ns
    if plan.pacer is None:
        ended = scheduled if plan.mix.parts == 1 else start
    else:
        ended = int(shard.ended(k)[0]) + start
    whole = plan.mix.parts == 1 or ledger.total(Slab.accepted) == ledger.total(Slab.scheduled)
    parts = range(plan.mix.parts) if whole else [int(shard.of(k).parts[0])]
    spans: dict[bytes, Span] = {}
    source = plan.column_source()
    batches = source.batches(plan.template.compile())
    for part in parts:
        source.begin(
            batches,
            np.array([number], np.int64),
            np.array([1], np.int64),
            np.array([ended + ledger.epoch_ns], np.int64),
            parts=np.array([part], np.int64),
            quota_first=np.array([quota], np.int64),
        )
        (data,) = batches
        spans |= {span.span_id: span for span in decode(data)}
    return SentTrace(source.trace_ids(np.array([number], np.int64))[0], spans, whole)


def sent_of(
    run: Run,
    sample: Sample | None = None,
    size: int = 0,
    policy: SamplingPolicy | None = None,
    *,
    name: bool = True,
) -> Sent:
    """What the backends are told of a closed run, with ``size`` traces of the sample at most.
    ``name``: whether anybody wants to know which traces violate."""
    violations: dict[str, int] = dict(zip(RULES, run.violations.tolist(), strict=True))
    violating = None
    if name:
        violations, violating = violating_traces(run)
    return Sent(
        accepted=run.ledger.total(Slab.accepted),
        unknown=run.ledger.total(Slab.unknown),
        started_s=run.started_at,
        ended_s=run.started_at + (run.end_ns - run.start_ns) / 1e9,
        violations=violations,
        violating=violating,
        services=run.plan.mix.services,
        sample=[] if sample is None else sampled_traces(run, sample, size),
        kept=None if policy is None else kept_by(policy, run),
    )

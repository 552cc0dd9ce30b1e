"""What a run sent, named trace by trace: which traces violate, and what a sampler should keep.

All of it follows from the plan and from how many requests each worker sent; nothing was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from blaster.backends.findings import Sent
from blaster.engine.ledger import ACCEPTED, SENT_REQUESTS, UNKNOWN
from blaster.engine.plan import Requests
from blaster.engine.runner import Run
from blaster.payload.shape import Int64
from blaster.sink.rules import RULES

MOST_NAMED = 1 << 20
"""Violating traces that are named; where there are more, only their number is known."""

_AT_ONCE = 1 << 14


def sent_requests(run: Run) -> Iterator[Requests]:
    """What the requests that were sent hold, some thousands of them at a time."""
    for worker, slab in enumerate(run.ledger.slabs):
        shard, sent = run.plan.shard(worker), int(slab.words[SENT_REQUESTS])
        for first in range(0, sent, _AT_ONCE):
            yield shard.of(np.arange(first, min(first + _AT_ONCE, sent), dtype=np.int64))


def violating_traces(run: Run) -> tuple[dict[str, int], dict[str, set[bytes]] | None]:
    """By rule, how many traces were sent with a span that breaks it, and their IDs; None for the
    IDs where they are too many to name. A trace that is cut up counts by the parts that were sent.
    """
    mix, source = run.plan.mix, run.plan.column_source()
    named: dict[str, set[bytes]] | None = {rule: set() for rule in RULES}
    counts = np.zeros(len(RULES), np.int64)
    for held in sent_requests(run):
        numbers, cells, parts = traces_of(run, held)
        broken = mix.breaks[cells, parts]
        if mix.parts == 1:
            counts += broken.sum(axis=0)
        if named is None:
            continue
        violating = np.flatnonzero(broken.any(axis=1))
        ids = source.trace_ids(numbers[violating])
        for at, trace_id in zip(violating.tolist(), ids, strict=True):
            for rule in np.flatnonzero(broken[at]).tolist():
                named[RULES[rule]].add(trace_id)
        if sum(map(len, named.values())) > MOST_NAMED:
            named = None
    if named is not None:
        return {rule: len(traces) for rule, traces in named.items()}, named
    if mix.parts > 1:  # a trace's parts are in several requests: the spans are all that is known
        counts = run.violations
    return dict(zip(RULES, counts.tolist(), strict=True)), None


def traces_of(run: Run, held: Requests) -> tuple[Int64, Int64, Int64]:
    """Of each trace (or part of one) in these requests: its number, its cell and its part."""
    per_request = held.counts
    spread = np.repeat(np.arange(len(per_request)), per_request)
    within = np.arange(len(spread)) - np.repeat(np.cumsum(per_request) - per_request, per_request)
    cells = run.plan.mix.cells(held.quota[spread] + within)
    return held.first[spread] + within, cells, held.parts[spread]


def sent_of(run: Run) -> Sent:
    """What the backends are told of a closed run."""
    violations, violating = violating_traces(run)
    return Sent(
        accepted=run.ledger.total(ACCEPTED),
        unknown=run.ledger.total(UNKNOWN),
        started_s=run.started_at,
        ended_s=run.started_at + (run.end_ns - run.start_ns) / 1e9,
        violations=violations,
        violating=violating,
        services=run.plan.mix.services,
        sample=[],
    )

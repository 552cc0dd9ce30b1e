"""Plans and shards: exact shares, whatever the number of workers; and the ledger's arithmetic."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan
from blaster.scenario.scenario import Scenario, Stage, Workload
from blaster.transport.base import (
    FIRST_HTTP,
    FIRST_NOT_PROCESSED,
    FIRST_UNANSWERED,
    OUTCOME,
    Status,
)

NS = 10**9


def plan_of(
    rates: list[tuple[int, int]], seconds: int, workers: int, batch: int, spans: int, rate: Fraction
) -> Plan:
    stages = tuple(
        Stage(duration_ns=seconds * NS, start_rate=a, end_rate=b) for a, b in rates if a + b
    )
    workload = Workload(violation_rate=rate, spans_per_trace=spans)
    scenario = Scenario(name="t", stages=stages, workload=workload, batch=batch)
    return Plan.of(scenario, seed=1, workers=workers)


plans = st.builds(
    plan_of,
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 300)), min_size=1, max_size=3),
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(1, 60),
    st.integers(1, 9),
    st.fractions(0, 1, max_denominator=50),
)


@given(plans)
def test_shards_are_the_plan_exactly(plan):
    """The shards' traces are the plan's, each once, and their violations add up to the quota."""
    traces = plan.traces
    seen = np.zeros(traces, np.int64)
    violations = np.zeros(3, np.int64)
    for worker in range(plan.workers):
        shard = plan.shard(worker)
        k = np.arange(shard.requests, dtype=np.int64)
        held = shard.of(k)
        for first, count in zip(held.first, held.counts, strict=True):
            seen[first : first + count] += 1
        assert shard.spans_of(shard.requests) == int(
            held.counts.sum() * plan.scenario.workload.spans_per_trace
        )
        violations += shard.violations_of(shard.requests)
    assert (seen == 1).all()
    share = plan.scenario.workload.violation_rate
    assert violations.sum() == share * traces // 1
    assert max(violations) - min(violations) <= 1


@given(plans, st.floats(0, 1.2))
def test_due_counts_the_requests_whose_time_has_come(plan, share):
    """A shard has as many requests due as have times up to then; over all shards they ascend."""
    elapsed = int(share * plan.pacer.duration_ns)
    for worker in range(plan.workers):
        shard = plan.shard(worker)
        times = shard.times(np.arange(shard.requests, dtype=np.int64))
        assert (np.diff(times) >= 0).all()
        assert shard.due(elapsed) == int((times <= elapsed).sum())


SEGMENTS = plan_of([(1, 1), (2, 2)], 1, 1, 1, 1, Fraction(0)).segments

outcome = st.tuples(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.integers(1, 100),
    st.sampled_from([*map(int, Status), 400, 429, 503, 599]),
    st.integers(0, 1),
)


@given(st.lists(outcome, max_size=30))
def test_every_outcome_is_accounted_for_once(outcomes):
    """Recorded outcomes add up: each span is accepted, rejected, failed or unknown, by its
    request's status, and each request counts once by status."""
    rows = np.zeros(len(outcomes), OUTCOME)
    for row, (scheduled, sent, done, spans, status, rejected) in zip(rows, outcomes, strict=True):
        row["scheduled"], row["sent"], row["done"] = scheduled, scheduled + sent, scheduled + done
        row["spans"], row["status"] = spans, status
        row["rejected"] = rejected if status == 0 else 0
        row["done"] = max(row["done"], row["sent"])
    slab = Ledger(1, SEGMENTS).slabs[0]
    for part in np.array_split(rows, 3):
        slab.record(part, 0, closed_loop=False)
    ok = rows["status"] == 0
    unanswered = (rows["status"] >= FIRST_UNANSWERED) & (rows["status"] < FIRST_NOT_PROCESSED)
    refused = rows["status"] >= FIRST_HTTP
    assert slab.rejected == rows["rejected"].sum()
    assert slab.accepted == rows["spans"][ok].sum() - rows["rejected"].sum()
    assert slab.unknown == rows["spans"][unanswered].sum()
    assert slab.failed == rows["spans"][~ok & ~unanswered].sum()
    assert slab.statuses.sum() == len(rows)
    left = (rows["status"] < FIRST_NOT_PROCESSED) | refused
    assert sum(segment.lateness.count for segment in slab.segments) == left.sum()


def test_messages_fit_whatever_their_length() -> None:
    """Long messages are cut, never lost with the others, and a torn one reads as none."""
    slab = Ledger(1, SEGMENTS).slabs[0]
    slab.put_messages({"UNAVAILABLE": "é" * 10_000, "INTERNAL": "short"})
    assert slab.messages()["INTERNAL"].startswith("sh")
    assert slab.messages()["UNAVAILABLE"].startswith("é")

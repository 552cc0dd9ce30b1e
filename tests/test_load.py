"""Plans: shares that add up, and rates in other units than spans."""

import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan, in_spans, mix_of
from blaster.engine.segments import Segments
from blaster.engine.slab import Slab
from blaster.measure.histogram import Histogram
from blaster.scenario.scenario import Scenario, WarmUp, Workload, parse_stages
from blaster.transport.base import OUTCOME, Status

STAGES = st.lists(
    st.sampled_from(
        [
            "700@1s",
            "1..900@700ms",
            "900..0@300ms",
            "sine:10..800/200ms@900ms",
            "spike:50..3k/100ms@400ms",
        ]
    ),
    min_size=1,
    max_size=4,
).map(",".join)


@given(
    STAGES,
    st.sampled_from(["uniform", "poisson"]),
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(1, 30),
)
def test_shares_add_up_exactly(text, arrivals, burst, workers, per_trace, batch) -> None:
    """For any load, the workers' requests are those of the run, each once, in time; at any
    moment the spans due of all workers are those that the pacer has due, to a request."""
    scenario = Scenario(
        name="x",
        stages=parse_stages(text),
        workload=Workload(spans_per_trace=per_trace),
        batch=batch,
        arrivals=arrivals,
        burst=burst,
    )
    plan = Plan.of(scenario, seed=5, workers=workers)
    shards = [plan.shard(worker) for worker in range(workers)]
    numbers = [np.arange(shard.requests or 0, dtype=np.int64) for shard in shards]
    held = [shard.of(k) for shard, k in zip(shards, numbers, strict=True)]
    first = np.concatenate([requests.first for requests in held])
    traces = np.concatenate([requests.counts for requests in held])
    order = np.argsort(first)
    assert first[order].tolist() == list(range(0, plan.traces or 0, plan.per_request))
    assert traces.sum() == plan.traces
    for shard, k in zip(shards, numbers, strict=True):
        times = shard.times(k)
        assert (np.diff(times) >= 0).all()
        for place in (0, len(k) // 2, len(k) - 1):
            if len(k):
                assert shard.due(int(times[place])) > place >= shard.due(int(times[place]) - 1)
    assert plan.pacer is not None
    for elapsed in (0, scenario.duration_ns // 3, scenario.duration_ns):
        due = sum(shard.spans_of(shard.due(elapsed)) for shard in shards)
        assert abs(due - plan.pacer.due(elapsed)) < plan.spans_per_request + per_trace
    whole = sum(shard.spans_of(shard.due(2 * scenario.duration_ns)) for shard in shards)
    assert whole == (plan.traces or 0) * per_trace


@given(st.integers(1, 10_000), st.integers(1, 500), st.integers(1, 10))
def test_requests_become_spans_exactly(rate, batch, per_trace) -> None:
    """So many requests a second are so many times the spans of a request, to the span."""
    scenario = Scenario(
        name="x",
        stages=parse_stages(f"{rate}req/s@1s"),
        workload=Workload(spans_per_trace=per_trace),
        batch=batch,
    )
    spans = max(1, batch // per_trace) * per_trace
    mix = mix_of(scenario, 1)
    offered = in_spans(scenario, mix)
    assert offered.stages[0].start_rate == rate * spans
    assert in_spans(offered, mix) == offered


@given(st.integers(10_000, 10**9), st.integers(0, 10))
def test_bytes_become_spans_by_the_mean_request(rate, tenths) -> None:
    """So many bytes a second are spans whose mean size makes up the bytes, to half a span."""
    share = Fraction(tenths, 10)
    scenario = Scenario(
        name="x",
        stages=parse_stages(f"{rate}B/s@1s"),
        workload=Workload(violation_rate=share),
    )
    plan = Plan.of(scenario, seed=1, workers=1)
    size = plan.mix.bytes_per_span + plan.template.frame_bytes / plan.spans_per_request
    spans = plan.scenario.stages[0].start_rate
    assert spans is not None and abs(spans * size - rate) <= max(size, rate * 0.001)


def outcomes(begun: list[int]) -> np.ndarray:
    rows = np.zeros(len(begun), OUTCOME)
    rows["scheduled"] = rows["sent"] = begun
    rows["done"] = rows["sent"] + 5_000_000
    rows["spans"], rows["status"] = 10, Status.OK
    return rows


SEGMENTS = Segments.of(
    Scenario(name="x", stages=parse_stages("1@1s,1@1s"), warmup=WarmUp(duration_ns=5 * 10**8))
)


@given(st.lists(st.integers(-(10**8), 3 * 10**9), max_size=60))
def test_outcomes_fall_into_their_segments(begun) -> None:
    """Each outcome counts in the segment in which it was due, and all make up the whole."""
    ledger = Ledger(1, SEGMENTS)
    slab, start = ledger.slabs[0], 10**12
    slab.record(outcomes([start + b for b in begun]), start, closed_loop=False)
    place = np.clip(np.searchsorted(SEGMENTS.starts, begun, side="right") - 1, 0, None)
    for number in range(3):
        assert ledger.counts([number]).sent == 10 * np.count_nonzero(place == number)
        assert ledger.response([number]).count == np.count_nonzero(place == number)
    whole = Histogram()
    for number in range(3):
        whole += ledger.response([number])
    assert (whole.counts == ledger.response().counts).all()


def test_a_snapshot_stands_still_and_balances() -> None:
    """A snapshot keeps its counts while the ledger goes on; what is in flight is unknown."""
    ledger = Ledger(2, SEGMENTS)
    slab = ledger.slabs[1]
    slab.sent_requests, slab.sent_spans = 3, 30
    slab.record(outcomes([100, 10**9]), 0, closed_loop=False)
    copy = ledger.snapshot()
    slab.record(outcomes([200]), 0, closed_loop=False)
    copy.slabs[1].settle()
    assert copy.counts().sent == 30 and copy.counts().unknown == 10
    assert ledger.counts().unknown == 0 and ledger.response().count == 3
    assert copy.response().count == 2


def test_a_snapshot_is_not_torn() -> None:
    """While a worker records, a snapshot's totals are those of its segments."""
    ledger, over = Ledger(1, SEGMENTS), threading.Event()
    slab, some = ledger.slabs[0], outcomes([0, 10**8, 10**9])

    def write() -> None:
        while not over.is_set():
            slab.sent_requests += len(some)
            slab.sent_spans += int(some["spans"].sum())
            slab.record(some, 0, closed_loop=False)
            time.sleep(0.0003)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            copy = ledger.snapshot()
            assert copy.counts().accepted == copy.total(Slab.accepted)
    finally:
        over.set()
        writer.join()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("50req/s@1s", "50 requests/s for 1s"),
        ("1..10MB/s@1s", None),
        ("1MB..10MB/s@1s", "1.0 MB/s to 10.0 MB/s for 1s"),
        ("0..5req/s@1s", "0 to 5 requests/s for 1s"),
        ("100spans/s@1s", "100 spans/s for 1s"),
        ("5req/s..10MB/s@1s", None),
    ],
)
def test_units_in_stages(text: str, shown: str | None) -> None:
    """A ramp's start takes its end's unit; bytes say theirs, and units are not mixed in one."""
    if shown is None:
        with pytest.raises(ValueError, match="must"):
            parse_stages(text)
    else:
        assert str(parse_stages(text)[0]) == shown

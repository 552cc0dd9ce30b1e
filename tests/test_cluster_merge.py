"""The reports of many hosts add up to what one would have: words, histograms, accounts."""

import asyncio
import pickle
from dataclasses import replace

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.cluster.about import About, check_same, here
from blaster.cluster.cluster import Cluster, Member
from blaster.cluster.ledger_delta import LedgerDelta, Sum, latencies, pack, unpack
from blaster.cluster.merged import ClusterRun, Merged, Part
from blaster.cluster.messages import Final, Order, Report, Sealed
from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan
from blaster.engine.results import Clock, Configuration
from blaster.engine.run import LostHost
from blaster.engine.slab import Slab, WorkerState
from blaster.engine.summary import results_of
from blaster.errors import UsageError
from blaster.job.options import RunOptions
from blaster.job.resolution import scenario_of
from blaster.layout import Word
from blaster.measure.histogram import SIZE, Histogram, coarse
from blaster.transport.base import OUTCOME, Status
from blaster.transport.endpoint import Endpoint
from blaster.transport.factory import Settings
from blaster.transport.otlp_settings import OtlpSettings

HOSTS, WORKERS = 4, 2
SECOND = 10**9


def plan_of(rate: str = "4000", duration: str = "4s", workers: int = HOSTS * WORKERS) -> Plan:
    options = RunOptions(rate=rate, duration=duration, batch=20, environ={})
    return Plan.of(scenario_of(options), seed=5, workers=workers)


def part_plan(plan: Plan, host: int) -> Plan:
    return replace(plan, workers=plan.workers // HOSTS, host=host, hosts=HOSTS)


def configuration(plan: Plan) -> Configuration:
    return Configuration(
        endpoint="http://127.0.0.1:4317",
        transport="null",
        encoding="protobuf",
        compression="none",
        tls=False,
        insecure_skip_verify=False,
        workers=plan.workers,
        connections=plan.workers,
        in_flight=256,
        spans_per_request=20,
        spans_per_trace=1,
        traces_per_request=20,
        bytes_per_span=190,
        workload="flat",
        layout="sdk",
        violation_rate=0.1,
        stages=[str(stage) for stage in plan.scenario.stages],
    )


def order_of(plan: Plan, headers: tuple[tuple[str, str], ...] = ()) -> Order:
    endpoint = Endpoint("http://127.0.0.1:4317", "127.0.0.1", 4317)
    settings = Settings(OtlpSettings("null", endpoint, headers=headers), 1, 64)
    return Order(part_plan(plan, 0), settings, configuration(part_plan(plan, 0)), False)


def outcomes_of(plan: Plan, worker: int, random: np.random.Generator) -> np.ndarray:
    """Outcomes as a worker could have had them: some refused, some unanswered, late ones."""
    shard = plan.shard(worker)
    assert shard.requests is not None
    made = np.zeros(shard.requests, OUTCOME)
    k = np.arange(shard.requests)
    made["scheduled"] = shard.times(k)
    made["sent"] = made["scheduled"] + random.integers(0, 5_000_000, len(made))
    made["done"] = made["sent"] + random.lognormal(14, 1, len(made)).astype(np.int64)
    made["spans"] = shard.of(k).counts
    made["bytes"] = made["spans"] * 190
    made["status"] = random.choice(
        [Status.OK, Status.UNAVAILABLE, Status.NO_ANSWER_TIMEOUT], len(made), p=[0.9, 0.06, 0.04]
    )
    made["rejected"] = np.where(made["status"] == Status.OK, random.integers(0, 2, len(made)), 0)
    return made


def record(ledger: Ledger, number: int, outcomes: np.ndarray) -> None:
    slab = ledger.slabs[number]
    slab.sent_requests += len(outcomes)
    slab.sent_spans += outcomes["spans"].sum()
    slab.sent_bytes += outcomes["bytes"].sum()
    slab.record(outcomes, 0, closed_loop=False)


def test_the_shards_of_all_hosts_are_those_of_one_plan() -> None:
    """Every request of the run is one worker's of one host, at the same time and with the same
    traces as on one machine."""
    plan = plan_of()
    ours = []
    for host in range(HOSTS):
        part = part_plan(plan, host)
        for worker in range(part.workers):
            shard = part.shard(worker)
            k = np.arange(shard.requests or 0)
            ours += list(zip(shard.of(k).first, shard.of(k).counts, shard.times(k), strict=True))
    whole = plan.whole()
    k = np.arange(whole.requests or 0)
    assert sorted(ours) == list(
        zip(whole.of(k).first, whole.of(k).counts, whole.times(k), strict=True)
    )


@given(hnp.arrays(np.int64, 300, elements=st.integers(-(2**62), 2**62), fill=st.just(0)))
def test_words_survive_the_way(words: np.ndarray) -> None:
    """Unpacking gives what was packed, and refuses it for a shorter slab or cut off."""
    places = np.flatnonzero(words)
    data = pack(places, words[places])
    back_places, back = unpack(data, 300)
    assert (back_places == places).all() and (back == words[places]).all()
    if len(places):
        with pytest.raises(ValueError, match="not packed words"):
            unpack(data, int(places[-1]))
        with pytest.raises(ValueError, match="not packed words"):
            unpack(data[:-3], 300)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    """Bytes that are no words give ValueError or words within the slab, nothing else."""
    try:
        places, _ = unpack(data, 1000)
    except ValueError:
        return
    assert not len(places) or 0 <= places.min() <= places.max() < 1000


@given(st.lists(st.integers(0, 700 * SECOND), max_size=200))
def test_coarse_histograms_keep_their_counts_and_nearly_their_values(values: list[int]) -> None:
    """No count is lost, and no percentile moves by more than 1 %."""
    histogram = Histogram()
    histogram.record(np.array(values, np.int64))
    rough = Histogram(coarse(histogram.counts))
    assert rough.count == histogram.count == len(values)
    for percent in (0, 50, 90, 99, 100):
        fine = histogram.percentile(percent)
        assert abs(rough.percentile(percent) - fine) <= 0.0085 * fine + 1


def test_coarse_histograms_are_small() -> None:
    """However much is in them, at most 1,600 buckets are left."""
    assert np.count_nonzero(coarse(np.ones(SIZE, np.int64))) <= 1600


def test_changes_add_up_over_time() -> None:
    """The changes that a host tells, added up, are its words, with coarse histograms; and one
    change holds the latencies of its interval."""
    plan, random = plan_of(), np.random.default_rng(1)
    ledger = Ledger(WORKERS, plan.segments)
    delta = LedgerDelta(ledger, plan.segments, 0)
    total = Sum(len(ledger.slabs[0].all_words))
    counted = 0
    for _ in range(40):
        for worker in range(WORKERS):
            made = outcomes_of(part_plan(plan, 0), worker, random)[:10]
            record(ledger, worker, made)
        places, values = unpack(delta.change(), len(ledger.slabs[0].all_words))
        total.add(places, values)
        counted += latencies(places, values)[0].count
    whole = Ledger(1, plan.segments)
    whole.slabs[0].all_words[:] = total.whole()
    assert whole.response().count == counted == ledger.response().count
    assert (whole.response().counts == coarse(ledger.response().counts)).all()
    for word in Slab.fields:
        if isinstance(word, Word) and word not in (Slab.state, Slab.last_sent_ns):
            assert whole.total(word) == ledger.total(word), word.name
    assert (whole.statuses() == ledger.statuses()).all()
    assert whole.counts().words.tolist() == ledger.counts().words.tolist()


def merged_run(plan: Plan) -> tuple[ClusterRun, Merged]:
    ledger = Ledger(1, plan.segments)
    parts = [Part(n, f"host{n}", f"10.0.0.{n}", 2, clock=Clock(0, 0, 0)) for n in range(HOSTS)]
    run = ClusterRun(plan, ledger, 0.0, 0, parts=parts)
    return run, Merged(run)


def report_of(delta: LedgerDelta, ledger: Ledger, second: int) -> Report:
    sent = [slab.sent_requests for slab in ledger.slabs]
    none = [0, 0, 0]
    return Report(second * SECOND, delta.change(), sent, none, none, 0.1, 10.0, 1, [])


def test_four_hosts_are_one() -> None:
    """Recorded outcomes of one machine, dealt to four hosts and merged again, give the same counts
    and the same percentiles to the last bucket; the points of the series count each span once."""
    plan, random = plan_of(), np.random.default_rng(2)
    single = Ledger(plan.workers, plan.segments)
    run, merged = merged_run(plan)
    order = order_of(plan)
    ledgers = [Ledger(WORKERS, plan.segments) for _ in range(HOSTS)]
    dealt = {
        (host, worker): outcomes_of(part_plan(plan, host), worker, random)
        for host in range(HOSTS)
        for worker in range(WORKERS)
    }
    deltas = [LedgerDelta(ledger, plan.segments, 0) for ledger in ledgers]
    accepted = []
    for second in range(1, 5):
        for (host, worker), outcomes in dealt.items():
            at = outcomes["scheduled"] // SECOND
            record(ledgers[host], worker, outcomes[at == second - 1])
            record(single, worker * HOSTS + host, outcomes[at == second - 1])
        for host in (3, 1, 0, 2):
            assert [point.accepted for point in merged.points()] == []
            merged.take(run.parts[host], report_of(deltas[host], ledgers[host], second))
        accepted += [point.accepted for point in merged.points()]
    for part, ledger in zip(run.parts, ledgers, strict=True):
        part_run = closed(part_plan(plan, part.number), ledger)
        part.final = final_of(part_run, ledger)
    one = closed(plan, single)
    hosts = merged.close(order)
    ours = results_of(run, configuration(plan), None)
    theirs = results_of(one, configuration(plan), None)
    assert ours.spans == theirs.spans and ours.requests == theirs.requests
    assert ours.bytes == theirs.bytes and ours.violations == theirs.violations
    assert ours.latency_ms == theirs.latency_ms and ours.lateness_ms == theirs.lateness_ms
    assert ours.rate == theirs.rate
    assert sum(accepted) == ours.spans.accepted and len(accepted) == 4
    for name in ("scheduled", "sent", "accepted", "rejected", "failed", "unknown"):
        assert sum(getattr(host.spans, name) for host in hosts) == getattr(ours.spans, name)


def closed(plan: Plan, ledger: Ledger):  # type: ignore[no-untyped-def]
    from blaster.engine.run import Run

    run = Run(plan, ledger, 0.0, 0, end_ns=plan.scenario.duration_ns)
    run.balance(plan.scenario.duration_ns)
    for slab in ledger.slabs:
        slab.state = WorkerState.DONE
    return run


def final_of(run, ledger: Ledger) -> Final:  # type: ignore[no-untyped-def]
    from blaster.cluster.host import figures_of

    return Final(
        words=LedgerDelta(ledger, run.plan.segments, 0).all_words(),
        sent=[sent for _, sent in run.sent()],
        violations=run.violations.tolist(),
        own_violations=run.own_violations.tolist(),
        messages={},
        lost_workers=[],
        cpu_s=0.1,
        cpu_peak=10.0,
        rss_peak=1,
        throttled_ns=0,
        ran=(10.0, 12.0),
        waited=(1.0, 2.0),
        outcomes=b"",
        expired=False,
        figures=figures_of(results_of(run, configuration(run.plan), None)),
    )


@pytest.mark.parametrize("reported", [0, 1, 2, 3])
def test_a_lost_host_is_accounted_for(reported: int) -> None:
    """Its reports are kept; what was due while it might still send is unknown; what is due
    later was not offered. Both equations hold, and what the others did is untouched."""
    plan, random = plan_of(), np.random.default_rng(3)
    run, merged = merged_run(plan)
    for host in range(HOSTS):
        ledger = Ledger(WORKERS, plan.segments)
        delta = LedgerDelta(ledger, plan.segments, 0)
        lost = host == 2
        for second in range(1, (reported if lost else 4) + 1):
            for worker in range(WORKERS):
                made = outcomes_of(part_plan(plan, host), worker, random)
                made = made[made["scheduled"] // SECOND == second - 1]
                made["status"], made["rejected"] = Status.OK, 0
                record(ledger, worker, made)
            merged.take(run.parts[host], report_of(delta, ledger, second))
        if lost:
            run.parts[host].lease_ns = 3 * SECOND
            run.parts[host].lost = LostHost("host2", "was not heard of")
        else:
            run.parts[host].final = final_of(closed(part_plan(plan, host), ledger), ledger)
    list(merged.points())
    hosts = merged.close(order_of(plan))
    spans = results_of(run, configuration(plan), None).spans
    assert spans.scheduled == spans.sent + spans.not_offered == 16_000
    assert spans.sent == spans.accepted + spans.rejected + spans.failed + spans.unknown
    its = hosts[2].spans
    assert its.accepted == 1000 * reported
    assert its.unknown == 1000 * (3 - reported)
    assert its.not_offered == 1000
    assert hosts[2].lost == "was not heard of" and hosts[2].limited_by == "lost"
    assert spans.unknown == its.unknown and spans.accepted == 12_000 + its.accepted


def test_a_sealed_order_shows_nothing() -> None:
    """Neither it nor an error with it in its text says what the headers are."""
    order = order_of(plan_of(), (("authorization", "Bearer s3cret"),))
    sealed = Sealed.of(order)
    assert "s3cret" not in repr(sealed) + str(sealed) + repr(order)
    again = pickle.loads(pickle.dumps(sealed)).order()
    assert again.settings.otlp.headers == order.settings.otlp.headers
    assert again.plan.seed == order.plan.seed


def test_hosts_with_other_versions_are_named() -> None:
    """One line says which host has which version of what, and what it should be."""
    ours = here()
    check_same(ours, {"10.0.0.2": ours})
    other = About("x", 2, "6", {**ours.versions, "numpy": "1.0"}, True)
    with pytest.raises(UsageError) as error:
        check_same(ours, {"10.0.0.2": ours, "10.0.0.3": other})
    numpy = ours.versions["numpy"]
    assert f"10.0.0.3 has numpy 1.0 and not {numpy}" in str(error.value)


def test_an_embedded_sink_is_only_for_hosts_on_loopback() -> None:
    """A run or a search with --embedded is refused where a host could not reach the sink."""
    loop = asyncio.new_event_loop()
    for there in ("127.0.0.2", "::1"):
        Cluster("tcp://a:1", [Member(there, None, here())], loop).check_loopback()  # type: ignore[arg-type]
    far = Cluster("tcp://a:1", [Member("10.9.0.1", None, here())], loop)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--embedded: the sink listens on this machine"):
        far.check_loopback()
    loop.close()

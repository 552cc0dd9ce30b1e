"""Trends, steadiness and recovery from a run's series: synthetic runs of days."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.engine.due import DueSpans
from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan
from blaster.engine.recovery import recovery
from blaster.engine.run import Run
from blaster.engine.segments import SLICES, Segments, interval_ns
from blaster.engine.series import MOST_POINTS, Point, Thinned, merge_points
from blaster.engine.steady import leaks, steadiness
from blaster.scenario.loading import load
from blaster.scenario.scenario import Scenario, WarmUp, parse_stages

MB = 1_000_000
SECOND = 10**9
NOISE = np.random.default_rng(1)


def point(t: float, **more: float | None) -> Point:
    figures = {
        "scheduled": 1000,
        "accepted": 1000,
        "failed": 0,
        "in_flight": 4,
        "p99_ms": 2.0,
        "target_cpu": 10.0,
        "target_rss": 100 * MB,
        "generator_cpu": 5.0,
        "generator_rss": 50 * MB,
        "mean_ms": 1.0,
    }
    return Point(t=t, **(figures | more))  # type: ignore[arg-type]


def scenario(stages: str, **more: object) -> Scenario:
    return Scenario(name="x", stages=parse_stages(stages), **more)  # type: ignore[arg-type]


@given(st.integers(0, 400), st.integers(1, 10).map(lambda half: 2 * half))
def test_thinned_is_bounded_and_loses_nothing(count: int, most: int) -> None:
    """Never more than ``most`` items, and their sum is that of everything added, in order."""
    thinned: Thinned[tuple[int, ...]] = Thinned(lambda one, another: one + another, most)
    for number in range(count):
        thinned.add((number,))
        assert len(thinned.items) <= most
    assert [n for item in thinned.items for n in item] == list(range(count))
    sizes = {len(item) for item in thinned.items[:-1]}
    assert len(sizes) <= 1, "all items but the last are made of as many"


def test_a_day_stays_small() -> None:
    """Of 86,400 seconds no more than 3,600 points are left; counts add up, maxima are kept."""
    series = Thinned(merge_points)
    for second in range(86_400):
        slow = 900 * float(second == 40_000)
        series.add(point(second + 1.0, failed=second % 7, p99_ms=slow, backlog=int(slow)))
    assert MOST_POINTS // 2 <= len(series.items) <= MOST_POINTS
    assert sum(p.accepted for p in series.items) == 86_400_000
    assert sum(p.failed for p in series.items) == sum(second % 7 for second in range(86_400))
    assert max(p.p99_ms or 0 for p in series.items) == 900
    assert max(p.backlog for p in series.items) == 900
    assert series.items[-1].t == 86_400


def test_a_merged_point_keeps_what_was_not_measured() -> None:
    """None and a figure make the figure, None and None make None."""
    merged = merge_points(point(1, p99_ms=None, target_cpu=None), point(2, target_cpu=None))
    assert (merged.t, merged.p99_ms, merged.target_cpu) == (2, 2.0, None)


@pytest.mark.parametrize(
    ("leak_per_hour", "leaking"), [(0.0, False), (0.05 * MB, False), (MB, True), (-MB, False)]
)
def test_a_leak_is_found_in_a_day(leak_per_hour: float, leaking: bool) -> None:
    """A MB an hour under noise of one is a leak of so much; what does not grow, or hardly, none."""
    series = Thinned(merge_points)
    noise = NOISE.normal(0, 0.3 * MB, 86_400)
    for second in range(86_400):
        rss = 100 * MB + leak_per_hour * second / 3600 + noise[second]
        series.add(point(second + 1.0, target_rss=int(rss)))
    found = leaks(series.items, 0, watched=True)
    assert found.target is not None and found.target.leaking is leaking
    assert found.target.trend is not None
    assert found.target.trend.slope_per_s * 3600 == pytest.approx(leak_per_hour, abs=0.02 * MB)
    assert found.generator.leaking is False


@pytest.mark.parametrize(
    ("mb_per_hour", "noise_mb", "leaking"),
    [(0.0, 0.1, False), (6.0, 0.1, False), (7.2, 1.0, None), (9.0, 0.1, True), (30.0, 0.5, True)],
)
def test_a_verdict_on_a_leak_agrees_with_its_interval(
    mb_per_hour: float, noise_mb: float, leaking: bool | None
) -> None:
    """Over 20 minutes, with 2 % of 120 MB allowed: 7.2 MB an hour is where a leak begins."""
    noise = np.random.default_rng(15).normal(0, noise_mb * MB, 1200)
    series = [
        point(t + 1.0, target_rss=int(120 * MB + mb_per_hour * MB * t / 3600 + noise[t]))
        for t in range(1200)
    ]
    found = leaks(series, 0, watched=True).target
    assert found is not None and found.trend is not None and found.leaking is leaking
    ends = [end * 1199 > 0.02 * 120 * MB for end in (found.trend.low, found.trend.high)]
    assert leaking is (ends[0] if ends[0] == ends[1] else None)
    assert ("not sure" in found.reason) == (leaking is None)


def test_a_start_that_fills_its_caches_is_no_leak() -> None:
    """Memory that grows for a tenth of the run and then stays is no leak once warm-up is over."""
    series = [point(t + 1.0, target_rss=int(100 * MB + min(t, 60) * MB)) for t in range(600)]
    found = leaks(series, 60 * 10**9, watched=True).target
    assert found is not None and found.leaking is False


def test_too_short_a_run_is_not_judged() -> None:
    """A few points, or none, say nothing of leaks or steadiness."""
    for series in ([], [point(t + 1.0) for t in range(5)]):
        found = leaks(series, 0, watched=True)
        assert found.target is not None and found.target.leaking is None
        assert steadiness(series, scenario("100@5s"), 0).steady is None
    assert leaks([], 0, watched=False).target is None


def test_steadiness_is_said_and_denied() -> None:
    """Noise around a level is steady; a latency that grows by half is denied by name."""
    noise = NOISE.normal(0, 0.05, 60)
    level = [point(t + 1.0, mean_ms=1 + noise[t]) for t in range(60)]
    growing = [point(t + 1.0, mean_ms=1 + noise[t] + t / 120) for t in range(60)]
    plan = scenario("100@60s")
    assert steadiness(level, plan, 0).steady is True
    found = steadiness(growing, plan, 0)
    assert found.steady is False and "latency drifts" in found.reason
    assert found.latency_ms is not None and found.latency_ms.slope_per_s == pytest.approx(
        1 / 120, rel=0.2
    )
    assert steadiness(level, plan, None).steady is False
    assert steadiness(growing, scenario("1..100@60s"), 0).steady is None


def test_steadiness_looks_at_the_longest_stage() -> None:
    """The other stages, and the warm-up, do not count."""
    series = [point(t + 1.0, mean_ms=50.0 if t < 20 else 1.0) for t in range(60)]
    assert steadiness(series, scenario("1@20s,100@40s"), 0).steady is True
    assert steadiness(series, scenario("100@60s"), 0).from_s == 0
    assert steadiness(series, scenario("100@60s"), 20 * 10**9).steady is True


def spiked(back_after: int) -> list[Point]:
    """The spike preset's series, slow and busy until so many seconds after the spike."""
    busy = range(60, 90 + back_after)
    return [
        point(t + 1.0, p99_ms=400.0 if t in busy else 2.0, target_cpu=90.0 if t in busy else 4.0)
        for t in range(150)
    ]


@pytest.mark.parametrize("seconds", [0, 1, 7, 40])
def test_recovery_takes_its_time(seconds: int) -> None:
    """The time from the end of the spike until both figures are in their bands, to stay."""
    found = recovery(spiked(seconds), load("spike"), 0)
    assert found is not None and found.peak_end_s == 90
    for back in (found.latency_ms, found.target_cpu_percent):
        assert back is not None and back.recovered and back.seconds == seconds
    assert found.target_cpu_percent is not None
    assert (found.target_cpu_percent.baseline, found.target_cpu_percent.limit) == (4, 9)


def test_no_recovery() -> None:
    """A figure not back at the end has not recovered; a lull of two seconds is no recovery; a
    scenario without a peak has none to recover from."""
    found = recovery(spiked(60), load("spike"), 0)
    assert found is not None and found.latency_ms is not None
    assert (found.latency_ms.recovered, found.latency_ms.seconds) == (False, None)
    lull = spiked(40)
    lull[100:102] = [point(101.0), point(102.0)]
    found = recovery(lull, load("spike"), 0)
    assert found is not None and found.latency_ms is not None and found.latency_ms.seconds == 40
    assert recovery(spiked(0), scenario("100@150s"), 0) is None


def test_segments_cut_at_stages_and_at_the_warmup() -> None:
    """Each stage is a segment, and the warm-up's end cuts the one that it lies in."""
    cut = Segments.of(scenario("1@10s,2@20s", warmup=WarmUp(duration_ns=15 * 10**9)))
    assert (cut.starts / 1e9).tolist() == [0, 10, 15]
    assert cut.stages == (0, 1, 1)
    assert [cut.end(s) / 1e9 for s in range(3)] == [10, 15, 30]
    assert list(cut.after(15 * 10**9)) == [2] and list(cut.after(0)) == [0, 1, 2]


def test_segments_of_a_warmup_to_be_found() -> None:
    """The first half of the first stage is in slices, and the series is fine enough to look."""
    plan = scenario("1@40s,2@20s", warmup=WarmUp(auto=True))
    cut = Segments.of(plan)
    assert len(cut) == SLICES + 2 and cut.starts[SLICES] == 20 * 10**9
    assert interval_ns(plan) == 200_000_000
    many = scenario(",".join(["1@1s"] * 500))
    assert len(Segments.of(many)) == 1, "too many stages are not kept apart"


def run_until(end_s: float, *, load_s: float = 10.0, points: int = 10) -> Run:
    """A run of 100 spans a second, with a point each second, that ends when ``end_s`` says."""
    plan = Plan.of(scenario(f"100@{load_s}s"), seed=1, workers=1)
    run = Run(plan, Ledger(1, plan.segments), 0.0, start_ns=SECOND)
    for second in range(points):
        run.series.add(point(second + 1.003, scheduled=100, accepted=100))
    run.end_ns = SECOND + round(end_s * SECOND)
    if end_s < load_s:
        run.ledger.control.stop_ns = run.end_ns
    return run


@pytest.mark.parametrize(
    ("end_s", "points", "ends"),
    [
        (10.05, 10, [10.003]),  # the last answers, after the load
        (10.9, 10, [10.003]),
        (9.4, 9, [9.4]),  # less than half a second of load
        (9.7, 9, [9.003, 9.7]),
        (0.05, 0, [0.05]),
    ],
)
def test_the_last_second_is_no_cliff(end_s: float, points: int, ends: list[float]) -> None:
    """What comes after the load belongs to its last interval, and so does a short rest of it."""
    run = run_until(end_s, points=points)
    run.end_series(point(end_s, scheduled=3, accepted=5))
    found = run.series.items
    assert [p.t for p in found][-len(ends) :] == ends
    assert sum(p.accepted for p in found) == 100 * points + 5
    assert sum(p.scheduled for p in found) == 100 * points + 3


@pytest.mark.parametrize("stages", ["1000@1s", "0..900@700ms,300@500ms"])
@pytest.mark.parametrize("workers", [1, 3])
def test_due_spans_are_the_workers(stages: str, workers: int) -> None:
    """Counted on from moment to moment, due is what the workers count, by whole requests."""
    plan = Plan.of(scenario(stages, batch=7), seed=1, workers=workers)
    due = DueSpans()
    shards = [plan.shard(worker) for worker in range(workers)]
    for elapsed in range(0, 2 * SECOND, 77_777_777):
        expected = sum(shard.spans_of(shard.due(elapsed)) for shard in shards)
        assert due.until(plan.own_shards(), elapsed) == expected
    assert due.until(plan.own_shards(), 0) == plan.pacer.total  # type: ignore[union-attr]

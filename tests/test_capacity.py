"""The capacity search: over targets made up here, the embedded sink, the Collector and rotel."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support import cli, peers

from blaster import capacity as finder
from blaster import trials
from blaster.engine.signals import StopSignals
from blaster.job.options import CapacityOptions
from blaster.job.search import resolve_search
from blaster.report.capacity import law, plot, rows
from blaster.run import embedded_endpoint
from blaster.sink.process import EmbeddedSink
from blaster.transport.base import OUTCOME, Status
from blaster.transport.choice import wire_is_built
from blaster.transport.otlp_settings import OtlpSettings
from blaster.transport.probe import probe
from blaster.verdict import usl
from blaster.verdict.capacity import Ceiling, Goals
from blaster.verdict.search import search_ceiling
from blaster.verdict.trial import Trial

GOALS = Goals(trial_s=1.0, repeats=1)
FAST = Ceiling(50, 2e6, 1000, 8e6)


def trial(phase: str, load: float, seconds: float, accepted_rate: float, **more: Any) -> Trial:
    """A trial in which so much was accepted."""
    scheduled = round(load * seconds)
    accepted = min(scheduled, round(accepted_rate * seconds))
    values: dict[str, Any] = {
        "phase": phase,
        "load_spans_per_s": load,
        "duration_s": seconds,
        "scheduled": scheduled,
        "accepted": accepted,
        "failed": scheduled - accepted,
        "loss_ratio": 1 - accepted / scheduled,
        "accepted_spans_per_s": accepted / seconds,
        "limited_by": "target" if accepted < scheduled else "nobody",
        "reason": "it was made up",
        **dict.fromkeys(("late", "rejected", "unknown", "not_offered"), 0),
        **dict.fromkeys(("p50_ms", "p99_ms", "target_cpu_percent", "generator_cpu_percent")),
        **{"grace_ms": 10.0, "concurrency": 1.0, "broken": []},
        **more,
    }
    return Trial(**values)


def target(rate: float, **more: Any) -> Callable[[str, float, float, int], Trial]:
    """A target that accepts so many spans a second."""
    return lambda phase, load, seconds, _: trial(phase, load, seconds, rate, **more)


@pytest.mark.parametrize("rate", [1_500, 2_000, 5_000, 20_000, 50_000, 150_000, 1_234_567])
def test_finds_the_ceiling(rate: int) -> None:
    """The no-drop rate is within the precision of the target's, in some twenty trials."""
    found = search_ceiling(GOALS, FAST, target(rate))
    assert found.ndr == pytest.approx(rate, rel=0.011) and found.ndr <= rate
    assert found.pdr is not None and found.ndr <= found.pdr <= rate * 1.002
    assert found.limited_by == "target"
    assert len(found.trials) < 35


def test_partial_drops() -> None:
    """A target that drops 1 % above 10,000 and all above 40,000 has these for its two rates."""

    def measure(phase: str, load: float, seconds: float, _: int) -> Trial:
        share = 1.0 if load <= 10_000 else 0.99 if load <= 40_000 else 0.2
        return trial(phase, load, seconds, load * share)

    found = search_ceiling(dataclasses.replace(GOALS, loss_ratio=0.02), FAST, measure)
    assert found.ndr == pytest.approx(10_000, rel=0.011)
    assert found.pdr == pytest.approx(40_000 * 0.99, rel=0.011)


def test_the_generator_is_never_the_capacity() -> None:
    """Where the generator was the limit, no rate is reported."""
    all_in = search_ceiling(GOALS, FAST, target(1e12))
    assert (all_in.ndr, all_in.pdr, all_in.limited_by) == (None, None, "generator")
    ours = {"limited_by": "generator"}
    late = search_ceiling(GOALS, FAST, target(30_000, **ours))
    assert (late.ndr, late.pdr, late.limited_by) == (None, None, "generator")
    near = search_ceiling(GOALS, None, target(30_000))
    assert near.ndr is not None and near.limited_by == "target"


@pytest.mark.parametrize(
    ("rate", "hiccups", "limit"),
    [
        (1e12, {7.2e6}, "generator"),
        (1e12, {1000 * 4**3}, "generator"),
        (300_000, {64_000}, "target"),
    ],
)
def test_a_hiccup_is_no_ceiling(rate: float, hiccups: set[float], limit: str) -> None:
    """Where the bracket loses something and the search does not lose it again, neither is that rate
    the capacity, nor is it one that the generator may have been the limit of."""
    left = set(hiccups)

    def measure(phase: str, load: float, seconds: float, _: int) -> Trial:
        lost = next((h for h in left if phase == "bracket" and load == pytest.approx(h)), None)
        left.discard(lost or 0.0)
        return trial(phase, load, seconds, 0.5 * load if lost else rate)

    found = search_ceiling(GOALS, FAST, measure)
    assert not left and found.limited_by == limit
    assert found.ndr == (None if limit == "generator" else pytest.approx(rate, rel=0.011))


def test_the_highest_rate_asked_for() -> None:
    """When the highest rate asked for comes through, the target takes at least that much."""
    found = search_ceiling(dataclasses.replace(GOALS, max_rate=3_000), FAST, target(5_000))
    assert (found.ndr, found.ndr_at_least, found.limited_by) == (3_000, 3_000, "nobody")
    shown = dict(rows(found))
    assert shown["No-drop rate"] == "at least 3,000 spans/s"
    assert shown["Partial-drop rate (0.10%)"] == "at least 3,000 spans/s"


@pytest.mark.parametrize("batch", [None, 10])
def test_a_target_that_takes_nothing(batch: int | None) -> None:
    """Its rates are 0, not unknown, and below one request a second."""
    found = search_ceiling(dataclasses.replace(GOALS, batch=batch), FAST, target(0))
    assert (found.ndr, found.pdr, found.limited_by) == (0, 0, "target")
    assert found.ndr_below == (batch or 1)
    assert dict(rows(found))["No-drop rate"] == f"below {batch or 1} spans/s"


@pytest.mark.parametrize("rate", [2, 13, 200, 500, 900])
def test_a_slow_target(rate: int) -> None:
    """Rates below the first are tried where that is too much, and only then."""
    found = search_ceiling(GOALS, FAST, target(rate))
    # Trials of a second offer and accept whole spans.
    assert found.ndr == pytest.approx(rate, rel=0.011, abs=0.5) and found.limited_by == "target"
    asked = search_ceiling(dataclasses.replace(GOALS, lower=False), FAST, target(rate))
    assert (asked.ndr, asked.ndr_below) == (0, 1000)


def test_what_is_known_where_the_generator_was_the_limit() -> None:
    """The no-drop rate is at least what came through."""
    found = search_ceiling(GOALS, FAST, target(1e12))
    most = max(trial.load_spans_per_s for trial in found.trials)
    assert (found.ndr, found.ndr_at_least) == (None, most)
    assert dict(rows(found))["No-drop rate"] == f"at least {most:,.0f} spans/s"
    late = search_ceiling(GOALS, FAST, target(30_000, limited_by="generator"))
    assert 16_000 <= (late.ndr_at_least or 0) <= 30_000


def test_a_rate_that_lost_spans_is_no_no_drop_rate() -> None:
    """Not even where it is the highest asked for, and what it lost is within the loss ratio."""

    def drops(phase: str, load: float, seconds: float, _: int) -> Trial:
        return trial(phase, load, seconds, load * 0.995)

    highest = search_ceiling(
        dataclasses.replace(GOALS, max_rate=3_000, loss_ratio=0.01), FAST, drops
    )
    assert (highest.ndr, highest.ndr_below, highest.pdr) == (0, 1_000, 3_000)
    assert highest.ndr_at_least is None


def test_the_laws_undetermined_parameters_are_left_out() -> None:
    """A negative contention is not shown, nor what comes with it."""
    known = usl.fit([1, 18, 36, 72, 108, 144, 216], [65, 996, 1652, 1853, 1829, 1775, 1702])
    assert known is not None and [name for name, _ in law(known)] == [
        *("Contention σ", "Coherency κ", "Law's fit")
    ]
    unknown = usl.fit([1, 4, 16, 20, 21, 40], [1e3, 4e3, 16e3, 20e3, 20e3, 20e3])
    assert unknown is not None and unknown.contention < 0
    assert law(unknown) == []


def test_within_thresholds() -> None:
    """The thresholds have a rate of their own, below the no-drop rate."""

    def measure(phase: str, load: float, seconds: float, _: int) -> Trial:
        broken = ["latency_ms.response.p99 < 10"] if load > 12_000 else []
        return trial(phase, load, seconds, 20_000, broken=broken)

    found = search_ceiling(dataclasses.replace(GOALS, thresholds=True), FAST, measure)
    assert found.ndr == pytest.approx(20_000, rel=0.011)
    assert found.within_thresholds == pytest.approx(12_000, rel=0.011)


def test_one_hiccup_does_not_decide() -> None:
    """Of three trials at a rate, one that fails for no reason is outvoted."""
    calls = iter(range(1, 1000))

    def measure(phase: str, load: float, seconds: float, _: int) -> Trial:
        hiccup = phase == "search" and next(calls) % 7 == 0
        return trial(phase, load, seconds, 0.9 * load if hiccup else 20_000)

    found = search_ceiling(dataclasses.replace(GOALS, repeats=3), FAST, measure)
    assert found.ndr == pytest.approx(20_000, rel=0.03)


def test_the_generators_ceiling_by_batch() -> None:
    """A request costs a + b × spans: exact at both calibrations, in between and beyond."""
    a, b = 20e-6, 0.1e-6
    ceiling = Ceiling(50, 50 / (a + 50 * b), 1000, 1000 / (a + 1000 * b))
    for batch in (1, 50, 300, 1000, 5000):
        assert ceiling.at(batch) == pytest.approx(batch / (a + batch * b))


def test_recovery() -> None:
    """It has recovered from the last tenth of a second on that lost something or was slow."""
    outcomes = np.zeros(1000, OUTCOME)  # ten seconds, a hundred requests a second
    outcomes["scheduled"] = outcomes["sent"] = np.arange(1000) * 10_000_000
    outcomes["done"] = outcomes["sent"] + 2_000_000
    end = 2_000_000_000
    assert trials.recovery_s(outcomes, end, 5.0) == 0
    outcomes["done"][200:331] += 100_000_000
    assert trials.recovery_s(outcomes, end, 5.0) == pytest.approx(1.3, abs=0.11)
    outcomes["status"][500] = Status.UNAVAILABLE
    assert trials.recovery_s(outcomes, end, 5.0) == pytest.approx(3.1)
    outcomes["status"][999] = Status.UNAVAILABLE
    assert trials.recovery_s(outcomes, end, 5.0) is None


def test_the_plot() -> None:
    """Every trial is on it, and the axes say their ends."""
    drawn = plot([trial("search", load, 1.0, 20_000) for load in (1000, 4000, 16_000, 64_000)])
    assert drawn.count("●") == 4 + 1 and "20,000" in drawn and "64,000 offered" in drawn
    assert plot([]) == ""


def search(folder: Path, *options: str) -> dict[str, Any]:
    """The findings of `blaster capacity`, with a short trial."""
    out = folder / "capacity.json"
    ran = cli.blaster(
        *("capacity", "--trial-duration", "1s", "--repeats", "1", "--json", str(out)),
        *options,
        timeout_s=170,
    )
    assert ran.returncode in (0, 1), ran.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    cli.validate(found, "Capacity")
    assert (ran.returncode == 1) == (found["ndr"] is None)
    assert {"ndr", "pdr", "trials", "usl", "limited_by"} <= set(found)
    for one in found["trials"]:
        answered = one["accepted"] + one["late"] + one["rejected"] + one["failed"] + one["unknown"]
        assert one["scheduled"] == answered + one["not_offered"], one
    return found


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The findings of a sink that refuses what comes beyond 20,000 spans/s."""
    return search(
        tmp_path_factory.mktemp("refusing"),
        *("--embedded", "--sink-capacity", "20000", "--sink-overload", "refuse"),
        *("--min-rate", "5k", "--precision", "0.02"),
    )


@pytest.mark.quiet
@pytest.mark.skipif(not wire_is_built(), reason="the native sink was not built")
def test_finds_the_capacity_of_a_sink_that_refuses(refusing: dict[str, Any]) -> None:
    """The search finds what the sink pretends to manage, and that it holds at twice as much."""
    assert refusing["ndr"] == pytest.approx(20_000, rel=0.03)
    assert refusing["pdr"] == pytest.approx(20_000, rel=0.03)
    assert refusing["limited_by"] == "target"
    assert not refusing["overload"]["collapsed"]
    assert refusing["overload"]["recovery_s"] < 1


@pytest.mark.quiet
@pytest.mark.skipif(not wire_is_built(), reason="the native sink was not built")
def test_finds_the_capacity_of_a_sink_that_queues(
    refusing: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the backlog of the overload is worked off afterwards. What this machine can send is
    known from the other search."""
    ceiling = msgspec.convert(refusing["ceiling"], Ceiling)
    monkeypatch.setattr(finder, "calibrate", lambda *_: ceiling)
    monkeypatch.setattr(trials, "OVERLOAD_S", 1.0)
    monkeypatch.setattr(trials, "WATCHED_S", 3.5)
    options = CapacityOptions(
        embedded=True,
        sink_capacity=50_000,
        sink_overload="queue",
        min_rate="12500",
        precision=0.02,
        trial_duration="1s",
        repeats=1,
        environ={},
    )
    with StopSignals() as signals:
        found = finder.find(resolve_search(options), signals)
    assert found.ndr == pytest.approx(50_000, rel=0.03)
    assert found.pdr == pytest.approx(50_000, rel=0.03)
    assert found.limited_by == "target"
    assert found.overload is not None and not found.overload.collapsed
    # Half of the ceiling is offered afterwards: a backlog of 1 s is worked off in 2 s.
    assert found.overload.recovery_s is not None and 1.5 < found.overload.recovery_s < 3.5


@pytest.mark.quiet
@pytest.mark.skipif(not wire_is_built(), reason="the native sink was not built")
def test_a_sink_faster_than_the_generator(tmp_path: Path) -> None:
    """grpcio's client has no headroom long before the native sink has none, and it says so."""
    found = search(
        tmp_path,
        *("--embedded", "--transport", "grpc", "--workers", "1", "--batch", "10"),
        *("--precision", "0.2", "--trial-duration", "500ms"),
    )
    assert (found["ndr"], found["pdr"], found["limited_by"]) == (None, None, "generator")


def test_collector_with_a_memory_limiter(tmp_path: Path, collector_binary: Path) -> None:
    """The search ends, and over all trials, those past the ceiling too, the Collector's counters
    are what blaster counted."""
    with peers.collector(collector_binary, memory_limit_mib=60) as target:
        found = search(
            tmp_path,
            *("--endpoint", target.endpoint, "--watch", str(target.pid), "--batch", "200"),
            *("--min-rate", "20k", "--precision", "0.3", "--trial-duration", "500ms"),
        )
        accounts = found["trials"]
        if found["overload"]:  # the last trial is its first stage
            accounts = [*accounts[:-1], found["overload"]["spans"]]
        accepted = sum(one["accepted"] + one.get("late", 0) for one in accounts)
        failed = sum(one["failed"] for one in accounts)
        unknown = sum(one["unknown"] for one in accounts)
        metrics = target.wait_for("otelcol_receiver_accepted_spans", accepted)
    assert found["limited_by"] in ("target", "generator", "nobody")
    assert max(one["loss_ratio"] for one in found["trials"]) > 0
    assert accepted <= metrics["otelcol_receiver_accepted_spans"] <= accepted + unknown
    refused = metrics.get("otelcol_receiver_refused_spans", 0)
    assert failed - unknown <= refused <= failed + unknown


def test_rotel(tmp_path: Path, rotel_binary: Path) -> None:
    """The search ends with rotel, too, with a rate or the word that it was not rotel's limit."""
    with peers.rotel(rotel_binary) as target:
        found = search(
            tmp_path,
            *("--endpoint", target.endpoint, "--watch", str(target.pid), "--batch", "200"),
            *("--min-rate", "20k", "--precision", "0.3", "--trial-duration", "500ms"),
        )
    assert (found["ndr"] is None) == (found["limited_by"] == "generator")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--min-rate", "5k", "--max-rate", "1k"), "--max-rate 1000: must be above"),
        (("--min-rate", "max"), "--min-rate 'max': must be"),
        (("--precision", "0"), "--precision 0: must be from"),
        (("--repeats", "2"), "--repeats 2: must be odd"),
        (("--trial-duration", "1h"), "--trial-duration 3600: must be from"),
        (("--sink-capacity", "10"), "--sink-capacity 10: only with --embedded"),
        (("--embedded", "--endpoint", "http://x:1"), "--endpoint 'http://x:1': cannot be used"),
        (("--threshold", "latency < 5"), "latency"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], said: str) -> None:
    """Impossible options are refused by name, with status 2, before anything is sent."""
    ran = cli.blaster("capacity", *options)
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "transport", ["grpc", "http", "betrace", *(["wire"] if wire_is_built() else [])]
)
def test_every_transport_finds_the_embedded_sink(transport: str) -> None:
    """Calibration and search aim at the port that speaks what is sent."""
    with EmbeddedSink() as sink:
        probe(OtlpSettings(transport, embedded_endpoint(sink, transport)))

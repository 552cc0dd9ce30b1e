"""Jobs: made from options or by hand, and run without the command line."""

from __future__ import annotations

from typing import Any

import pytest

from blaster.engine.control import Progress
from blaster.engine.plan import Plan
from blaster.engine.results import Configuration
from blaster.engine.signals import StopSignals
from blaster.errors import UsageError
from blaster.job.job import Job
from blaster.job.options import RunOptions
from blaster.job.resolution import resolve
from blaster.job.sizing import Hosts, Sizing, Wanted, size
from blaster.listener import Listener, Listeners
from blaster.run import run
from blaster.scenario.scenario import Scenario, Stage
from blaster.sink.settings import SinkSettings
from blaster.transport.choice import wire_is_built
from blaster.transport.endpoint import Endpoint
from blaster.transport.otlp_settings import OtlpSettings

NOWHERE = OtlpSettings("null", Endpoint("http://127.0.0.1:1", "127.0.0.1", 1))


def stage(rate: int | None, seconds: float = 1.0) -> Stage:
    return Stage(duration_ns=round(seconds * 1e9), start_rate=rate, end_rate=rate)


def options(**given: Any) -> RunOptions:
    return RunOptions(environ={}, **given)


class Heard(Listener):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.points: list[Progress] = []

    def begin(self, plan: Plan, configuration: Configuration) -> None:
        self.plan = plan

    def update(self, progress: Progress) -> None:
        self.points.append(progress)


def test_a_job_is_made_and_run_without_a_command_line() -> None:
    """Typed values alone make a run, and its listeners hear of it."""
    job = Job.of(Scenario(name="by-hand", stages=(stage(2000, 0.5),), seed=7), NOWHERE)
    first, second = Heard(), Heard()
    with StopSignals() as signals:
        results = run(job, signals, Listeners(first, second))
    assert results.spans.accepted == results.spans.scheduled == 1000
    assert results.scenario == "by-hand" and results.seed == 7
    for heard in (first, second):
        assert heard.plan is job.plan
        assert sum(progress.point.accepted for progress in heard.points) == 1000


def test_every_option_of_a_run_reaches_its_job() -> None:
    """Each value is parsed to what the Job holds of it."""
    job = resolve(
        options(
            rate="5k",
            duration="10s",
            violation_rate="0.2",
            transport="null",
            seed=3,
            batch=50,
            connections=4,
            in_flight=9,
            workers=2,
            warmup="1s",
            threshold=["spans.failed < 5"],
            abort_on=["spans.failed > 1k"],
            verify=["collector=http://c:1", "tempo"],
            verify_header=["X-Scope=me"],
            verify_limit="3s",
            read_back=7,
            sampling_policy="keep errors, else 10 %",
            scrape=["http://x:1/m"],
            scrape_metric=["go_*"],
            alerts=["http://p"],
            watch=[":4317"],
            chaos="2s pause 1s",
            allow_chaos=True,
            record="out.jsonl",
            record_limit="1MB",
        )
    )
    scenario = job.scenario
    assert scenario.stages == (stage(5000, 10),) and scenario.batch == 50
    assert job.plan.seed == 3 and job.sizing == Sizing(2, 2, 5) and job.retry == "spec"
    assert scenario.warmup.duration_ns == 10**9
    assert [t.number for t in (*scenario.thresholds, *scenario.abort_on)] == [5, 1000]
    assert [(name, base and base.port) for name, base in job.verify.targets] == [
        ("collector", 1),
        ("tempo", None),
    ]
    assert job.verify.headers == (("x-scope", "me"),) == job.observe.headers
    assert (job.verify.limit_s, job.verify.read_back) == (3.0, 7)
    assert job.verify.policy is not None and job.verify.policy.errors
    assert job.observe.metrics == ("go_*",) and job.observe.pages[0][1] == "/m"
    assert [base.port for base in job.observe.alerts] == [9090]
    assert [watch.port for watch in job.watches] == [4317]
    assert [(event.at_ns, event.duration_ns) for event in job.chaos] == [(2 * 10**9, 10**9)]
    assert job.record is not None and job.record.most_bytes == 10**6


def test_an_embedded_sink_is_settled_before_it_starts() -> None:
    job = resolve(options(embedded=True, fault=["delay=5ms@10%"], seed=9))
    assert isinstance(job.embedded, SinkSettings)
    assert [fault.text for fault in job.embedded.faults] == ["delay=5ms@10%"]
    assert job.embedded.fault_seed == 9 and job.configuration.faults == ["delay=5ms@10%"]


def test_a_job_at_another_rate() -> None:
    """Stages and sizes follow the rate; seed and everything else stay, unless the seed was random:
    then no two jobs send the same IDs."""
    job = resolve(options(transport="null", seed=4, spans_per_trace=3))
    other = job.offering([stage(10_000_000)], 1000)
    assert other.plan.seed == 4 and other.retry == "off"
    assert other.plan.pacer is not None and other.plan.pacer.total == 10_000_000
    assert other.scenario.workload == job.scenario.workload
    drawn = resolve(options(transport="null"))
    seeds = {drawn.offering([stage(10)], 1).plan.seed for _ in range(4)}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("wanted", "rate", "transport", "hosts", "sizing"),
    [
        (Wanted(), 100, "wire", Hosts(1, 4), Sizing(1, 1, 256)),
        (Wanted(), 5_000_000, "wire", Hosts(1, 4), Sizing(3, 1, 86)),
        (Wanted(), None, "wire", Hosts(1, 4), Sizing(3, 1, 16)),
        (Wanted(), None, "wire", Hosts(1, 1), Sizing(1, 1, 16)),
        (Wanted(), 100, "http", Hosts(1, 4), Sizing(1, 64, 64)),
        (Wanted(), None, "http", Hosts(1, 3), Sizing(2, 8, 8)),
        (Wanted(in_flight=10), 100, "http", Hosts(1, 4), Sizing(1, 10, 10)),
        (Wanted(2, 5, 7), 100, "grpc", Hosts(3, 4), Sizing(6, 1, 2)),
        (Wanted(), 100, "wire", Hosts(3, 4), Sizing(3, 1, 256)),
    ],
)
def test_sizes(
    wanted: Wanted, rate: int | None, transport: str, hosts: Hosts, sizing: Sizing
) -> None:
    assert size(wanted, rate, transport, hosts) == sizing


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rate": "fast"}, "--rate 'fast': must be"),
        ({"workers": 0}, "--workers 0: must be from 1 to"),
        ({"connections": 0, "transport": "grpc"}, "--connections 0: must be from 1 to 10,000"),
        ({"in_flight": 0, "transport": "grpc"}, "--in-flight 0: must be from 1 to 100,000"),
        *(
            (
                (
                    {"connections": 300, "workers": 1},
                    "--connections 300: must be from 1 to 256 with",
                ),
                (
                    {"in_flight": 70_000, "workers": 1},
                    "--in-flight 70000: must be from 1 to 65,536",
                ),
            )
            if wire_is_built()
            else ()
        ),
        ({"seed": -1}, "--seed -1: must be from 0 to 2^63 - 1"),
        ({"layout": "odd"}, "--layout 'odd': must be sdk, gateway, scattered"),
        ({"arrivals": "odd"}, "--arrivals 'odd': must be uniform or poisson"),
        ({"warmup": "odd"}, "--warmup 'odd': must be auto or a time such as 10s"),
        ({"retry": "odd"}, "--retry 'odd': must be off, spec, ignore-throttle"),
        ({"threshold": ["odd"]}, "--threshold 'odd': must be PATH < NUMBER"),
        ({"threshold": ["spans.odd < 1"]}, "--threshold 'spans.odd < 1': results have no"),
        ({"abort_on": ["odd"]}, "--abort-on 'odd': must be PATH < NUMBER"),
        ({"record_limit": "1MB"}, "--record-limit '1MB': needs --record"),
        ({"record": "x", "record_limit": "odd"}, "--record-limit 'odd': must be a whole number"),
        ({"verify_limit": "odd"}, "--verify-limit 'odd': must be a time"),
        ({"verify_header": ["a=b"]}, "--verify-header: needs --verify, --scrape or --alerts"),
        ({"watch": ["/x"]}, "--watch '/x': must be a pid"),
        ({"fault": ["rst"]}, "--fault 'rst': is for the embedded sink"),
        ({"chaos": "1s kill"}, "--chaos '1s kill': stops processes: only with --allow-chaos"),
        ({"embedded": True, "endpoint": "http://x:1"}, "--endpoint 'http://x:1': cannot be"),
        ({"embedded": True, "transport": "null"}, "--transport 'null': sends nothing"),
        ({"spans_per_trace": 2, "workload": "deep"}, "--spans-per-trace 2: only for the workload"),
        ({"batch": 1_000_000}, "--batch 1000000: a request could take"),
    ],
)
def test_what_is_wrong_is_named_before_anything_starts(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        resolve(options(**given))
    assert str(raised.value).startswith(message)

"""The options of ``blaster run`` and ``blaster capacity``, as given; None: not given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from blaster.option import (
    CLUSTER,
    FAULTS,
    LOAD,
    OBSERVE,
    OUTPUT,
    PASS_FAIL,
    SEARCH,
    SENDERS,
    TARGET,
    TRANSPORT,
    VERIFY,
    WORKLOAD,
    Argument,
    Option,
)
from blaster.transport.otlp_options import OtlpOptions


@dataclass(frozen=True, kw_only=True)
class LoadOptions(OtlpOptions):
    """The options that a run and a search have in common."""

    embedded: Annotated[
        bool, Option("Start the embedded sink, send to it and watch it.", TARGET)
    ] = False
    watch: Annotated[
        Sequence[str], Option("PID, NAME or :PORT of processes to sample; repeatable.", TARGET)
    ] = ()
    violation_rate: Annotated[
        str | None,
        Option("Share of traces with a violation, 0 to 1; also VIOLATION_RATE.", WORKLOAD),
    ] = None
    spans_per_trace: Annotated[
        int | None, Option("Spans in each trace of the workload flat (default 1).", WORKLOAD)
    ] = None
    seed: Annotated[
        int | None, Option("The same seed makes the same spans (default: random).", WORKLOAD)
    ] = None
    batch: Annotated[
        int | None, Option("Spans in a request (default: by the rate, at most 1,000).", SENDERS)
    ] = None
    workers: Annotated[
        int | None, Option("Worker processes (default: by the rate and the CPUs).", SENDERS)
    ] = None
    connections: Annotated[
        int | None, Option("Connections of all workers (default: one a worker).", SENDERS)
    ] = None
    in_flight: Annotated[
        int | None,
        Option("Most requests in flight (default 256; with --rate max, 16 a worker).", SENDERS),
    ] = None
    threshold: Annotated[
        Sequence[str],
        Option(
            "Condition on the results, such as 'latency_ms.response.p99 < 500'; repeatable. A run "
            "fails, and a search looks for a lower rate, where it does not hold.",
            PASS_FAIL,
        ),
    ] = ()
    fault: Annotated[
        Sequence[str],
        Option("Fault of the embedded sink; see blaster sink --help. Repeatable.", FAULTS),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """Which backends are asked what came of the spans, and how."""

    verify: Annotated[
        Sequence[str],
        Option(
            "Backend to ask what came of the spans: betrace (rules are made and removed), "
            "collector, tempo or jaeger, each with =URL; repeatable. With --embedded betrace is "
            "the sink's stand-in.",
            VERIFY,
        ),
    ] = ()
    verify_limit: Annotated[str, Option("How long to wait for each answer.", VERIFY)] = "60s"
    verify_header: Annotated[
        Sequence[str],
        Option("NAME=VALUE, sent with every question, such as a tenant; repeatable.", VERIFY),
    ] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class RunOptions(LoadOptions, VerifyOptions):
    """The options of ``blaster run`` that say what a run is."""

    scenario: Annotated[str, Argument("normal, medium, high, spike, soak, or a TOML file.")] = (
        "normal"
    )
    rate: Annotated[
        str | None,
        Option(
            "Spans per second, or max; also SPANS_PER_SECOND. As 500req/s or 10MB/s: requests or "
            "bytes.",
            LOAD,
        ),
    ] = None
    duration: Annotated[str | None, Option("As 60s, 5m, 24h; also DURATION_SECONDS.", LOAD)] = None
    stages: Annotated[
        str | None,
        Option(
            "As 100@60s,10k@30s; 100..10k@2m is a ramp, sine:100..1k/30s@5m a sine with that "
            "period, spike:100..10k/30s@5m a spike of that width. Not with --rate or --duration.",
            LOAD,
        ),
    ] = None
    arrivals: Annotated[
        str | None, Option("uniform (default), or poisson: at random, by the seed.", LOAD)
    ] = None
    burst: Annotated[int | None, Option("Requests sent at once (default 1).", LOAD)] = None
    warmup: Annotated[
        str | None,
        Option("As 10s: left out of rates, latency, lateness and CPU. auto: by MSER-5.", LOAD),
    ] = None
    retry: Annotated[
        str | None,
        Option(
            "off, spec (OTLP's rules) or ignore-throttle (those, but not the delay that the target "
            "asks for). Default: spec; with --rate max, off.",
            TRANSPORT,
        ),
    ] = None
    workload: Annotated[
        str | None, Option("flat, web-shop, deep, wide, llm-agent, or a TOML file.", WORKLOAD)
    ] = None
    layout: Annotated[
        str | None,
        Option(
            "Which spans share a request: sdk (one service's), gateway (whole traces) or scattered "
            "(a quarter of each trace, seconds apart). Default: sdk for one service, else gateway.",
            WORKLOAD,
        ),
    ] = None
    template: Annotated[
        str | None,
        Option(
            "Send captured traces, with fresh IDs and times: a file of OTLP JSON lines, OTLP "
            "protobuf or a Jaeger JSON export.",
            WORKLOAD,
        ),
    ] = None
    abort_on: Annotated[
        Sequence[str],
        Option("End the run once this holds, as 'spans.failed > 1000'; repeatable.", PASS_FAIL),
    ] = ()
    chaos: Annotated[
        str | None,
        Option(
            "Pause, continue, terminate or kill what --watch names, such as '30s pause 5s; 60s "
            "kill'; needs --allow-chaos.",
            FAULTS,
        ),
    ] = None
    allow_chaos: Annotated[bool, Option("Let --chaos touch those processes.", FAULTS)] = False
    read_back: Annotated[
        int, Option("Traces to read back from a store and compare span by span.", VERIFY)
    ] = 20
    sampling_policy: Annotated[
        str | None,
        Option(
            "The collector's tail sampling, as 'keep errors, keep > 1000 ms, else 10 %'.", VERIFY
        ),
    ] = None
    scrape: Annotated[
        Sequence[str],
        Option(
            "URL of Prometheus metrics to read before, during and after the run; repeatable.",
            OBSERVE,
        ),
    ] = ()
    scrape_metric: Annotated[
        Sequence[str],
        Option(
            "Which of those metrics, such as otelcol_*; repeatable. Default: usual ones.", OBSERVE
        ),
    ] = ()
    alerts: Annotated[
        Sequence[str],
        Option("URL of a Prometheus whose firing alerts are reported; repeatable.", OBSERVE),
    ] = ()
    record: Annotated[
        str | None,
        Option(
            "Write what is sent to this file, for --template or a Collector: OTLP JSON lines "
            "(.json, .jsonl, .ndjson), else OTLP protobuf with lengths. Slows the run.",
            OUTPUT,
        ),
    ] = None
    record_limit: Annotated[str | None, Option("Most bytes to record (default 1GiB).", OUTPUT)] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class CapacityOptions(LoadOptions):
    """The options of ``blaster capacity`` that say what a search is."""

    min_rate: Annotated[
        str | None,
        Option(
            "Lowest rate to try, in spans per second (default: 1000, or what comes through).",
            SEARCH,
        ),
    ] = None
    max_rate: Annotated[
        str | None, Option("Highest rate to try (default: what this machine can send).", SEARCH)
    ] = None
    precision: Annotated[float, Option("Relative precision of the rates found.", SEARCH)] = 0.01
    loss_ratio: Annotated[
        float, Option("Share of spans that the partial-drop rate may lose.", SEARCH)
    ] = 0.001
    trial_duration: Annotated[str, Option("Trial duration.", SEARCH)] = "2s"
    repeats: Annotated[
        int, Option("Trials at a rate, of which the majority decides; odd.", SEARCH)
    ] = 3
    sink_capacity: Annotated[
        int, Option("Spans per second that the embedded sink pretends to manage.", TARGET)
    ] = 0
    sink_overload: Annotated[
        str, Option("What the embedded sink does beyond its capacity: refuse or queue.", TARGET)
    ] = "refuse"


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """The hosts that send, in place of this machine."""

    cluster: Annotated[
        str | None,
        Option(
            "Send from the hosts of this Dask scheduler, as tcp://HOST:8786 or tls://.", CLUSTER
        ),
    ] = None
    hosts: Annotated[
        int | None, Option("How many of the cluster's hosts send (default: all).", CLUSTER)
    ] = None

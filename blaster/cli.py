"""The command line: parses, calls, and turns errors into one line and an exit status."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.exceptions import TyperException

from blaster import __version__
from blaster.errors import BlasterError
from blaster.process_title import hide_secrets

app = typer.Typer(
    name="blaster",
    help="A load generator for OpenTelemetry trace backends.",
    epilog="Examples:  blaster run normal --embedded   |   blaster run --help   |   "
    "blaster report results.json --html report.html   |   blaster --install-completion",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


# The options that run and capacity share.
SpansPerTrace = Annotated[int | None, typer.Option(help="Spans in each trace (default 1).")]
Workers = Annotated[
    int | None, typer.Option(help="Worker processes (default: by the rate and the CPUs).")
]
Connections = Annotated[
    int | None, typer.Option(help="Connections of all workers (default: one a worker).")
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        help="http(s)://HOST:PORT; else OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, "
        "OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4317."
    ),
]
TransportName = Annotated[
    str,
    typer.Option(
        "--transport",
        help="auto, wire, grpc, http, betrace (its own ingest) or null; auto follows "
        "OTEL_EXPORTER_OTLP_PROTOCOL.",
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option(help="Deadline of a request (10s); also OTEL_EXPORTER_OTLP_TIMEOUT, in ms."),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE, sent with every request; repeatable; also OTEL_EXPORTER_OTLP_HEADERS."
    ),
]
Encoding = Annotated[
    str | None, typer.Option(help="protobuf (default) or json; json over HTTP only.")
]
Compression = Annotated[
    str | None,
    typer.Option(help="none (default), gzip or zstd; also OTEL_EXPORTER_OTLP_COMPRESSION."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="In the clear where the endpoint has no scheme.")
]
SkipVerify = Annotated[
    bool,
    typer.Option("--insecure-skip-verify", help="Trust any server: its certificate is not read."),
]
CaCert = Annotated[
    str | None,
    typer.Option(help="PEM of whom to trust; also OTEL_EXPORTER_OTLP_CERTIFICATE."),
]
ClientCert = Annotated[
    str | None,
    typer.Option(help="PEM of our own certificate; also OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE."),
]
ClientKey = Annotated[
    str | None, typer.Option(help="PEM of its key; also OTEL_EXPORTER_OTLP_CLIENT_KEY.")
]
Watches = Annotated[
    list[str] | None,
    typer.Option(help="PID, NAME or :PORT of processes to sample; repeatable."),
]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", help="A fault of the embedded sink, on purpose; see blaster sink. Repeatable."
    ),
]
Seed = Annotated[int | None, typer.Option(help="Makes the same spans again (default: drawn).")]
ClusterUrl = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Send from the hosts of this Dask scheduler, as tcp://HOST:8786 or tls://.",
    ),
]
Hosts = Annotated[
    int | None, typer.Option(help="How many of the cluster's hosts send (default: all).")
]

# What run and send ask of the backends.
Verify = Annotated[
    list[str] | None,
    typer.Option(
        help="Ask a system what came of it: betrace (rules are made and removed), collector, tempo "
        "or jaeger, each with =URL; repeatable. With --embedded betrace is the sink's stand-in."
    ),
]
VerifyLimit = Annotated[
    str, typer.Option(help="How long to wait for what comes late, at each question.")
]
VerifyHeaders = Annotated[
    list[str] | None,
    typer.Option(
        "--verify-header",
        help="NAME=VALUE, sent with every question, as a tenant; repeatable.",
    ),
]

# Where results go: of run, capacity and report.
MarkdownFile = Annotated[
    str | None, typer.Option(help="Write a Markdown report to this file; - for standard output.")
]
HtmlFile = Annotated[
    str | None,
    typer.Option(help="Write a report with charts to this file, which opens offline; - likewise."),
]
CsvFile = Annotated[str | None, typer.Option(help="Write the series, a row a second; - likewise.")]
JunitFile = Annotated[
    str | None, typer.Option(help="Write the verdict's checks as JUnit XML; - likewise.")
]
GithubSummary = Annotated[
    bool,
    typer.Option("--github-summary", help="Add the Markdown report to GITHUB_STEP_SUMMARY."),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"blaster {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A load generator for OpenTelemetry trace backends."""


@app.command(
    epilog="Examples:  blaster run normal --embedded   |   "
    "blaster run high --endpoint http://tempo:4317 --watch tempo --json results.json   |   "
    "blaster run --rate max --duration 30s --embedded"
)
def run(
    scenario: Annotated[
        str, typer.Argument(help="normal, medium, high, spike, soak, or a TOML file.")
    ] = "normal",
    endpoint: Endpoint = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start the embedded sink, aim at it and watch it.")
    ] = False,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Spans per second, or max; also SPANS_PER_SECOND. As 500req/s or 10MB/s: requests "
            "or bytes."
        ),
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="As 60s, 5m, 24h; also DURATION_SECONDS.")
    ] = None,
    violation_rate: Annotated[
        str | None,
        typer.Option(help="Share of traces with a violation, 0 to 1; also VIOLATION_RATE."),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="As 100@60s,10k@30s; 100..10k@2m is a ramp, sine:100..1k/30s@5m a sine with that "
            "period, spike:100..10k/30s@5m a spike of that width. Not with rate or duration."
        ),
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(help="uniform (default) or poisson: requests come at random, by the seed."),
    ] = None,
    burst: Annotated[
        int | None, typer.Option(help="Requests that come at once (default 1).")
    ] = None,
    warmup: Annotated[
        str | None,
        typer.Option(
            help="As 10s: left out of rates, latency, lateness and CPU. auto: found by MSER-5."
        ),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="What must hold of the results, as 'latency_ms.response.p99 < 500'; repeatable."
        ),
    ] = None,
    abort_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Ends the run as soon as it holds, as 'spans.failed > 1000'; repeatable."
        ),
    ] = None,
    spans_per_trace: SpansPerTrace = None,
    workload: Annotated[
        str | None,
        typer.Option(help="flat, web-shop, deep, wide, llm-agent, or a TOML file."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="What a request holds: sdk (one service's spans), gateway (whole traces), "
            "scattered (a quarter of each trace, seconds apart). Default: sdk for one service, "
            "else gateway."
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Send captured traces, with fresh IDs and times: a file of OTLP JSON lines, "
            "OTLP protobuf or a Jaeger JSON export."
        ),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            help="Write what is sent to this file, for --template or a Collector: OTLP JSON "
            "lines (.json, .jsonl, .ndjson), else OTLP protobuf with lengths. Slows the run."
        ),
    ] = None,
    record_limit: Annotated[
        str | None, typer.Option(help="Most bytes to record (default 1GiB).")
    ] = None,
    workers: Workers = None,
    connections: Connections = None,
    in_flight: Annotated[
        int | None,
        typer.Option(help="Requests in flight at most (default 256; at max 16 a worker)."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Spans in a request (default: by the rate, at most 1,000).")
    ] = None,
    transport: TransportName = "auto",
    encoding: Encoding = None,
    compression: Compression = None,
    timeout: Timeout = None,
    retry: Annotated[
        str | None,
        typer.Option(
            help="off, spec (by OTLP's rules) or ignore-throttle (by them, but not when the target "
            "asks for it). Default: spec; off at max."
        ),
    ] = None,
    header: Headers = None,
    insecure: Insecure = False,
    insecure_skip_verify: SkipVerify = False,
    ca_cert: CaCert = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    chaos: Annotated[
        str | None,
        typer.Option(
            help="Stop, continue, terminate or kill what --watch names, such as "
            "'30s pause 5s; 60s kill'; needs --allow-chaos."
        ),
    ] = None,
    allow_chaos: Annotated[
        bool, typer.Option("--allow-chaos", help="Yes, --chaos may touch those processes.")
    ] = False,
    fault: Faults = None,
    watch: Watches = None,
    seed: Seed = None,
    verify: Verify = None,
    read_back: Annotated[
        int, typer.Option(help="Traces that a store has to give back, compared span by span.")
    ] = 20,
    sampling_policy: Annotated[
        str | None,
        typer.Option(
            help="What the collector's tail sampling keeps, as 'keep errors, keep > 1000 ms, else "
            "10 %'."
        ),
    ] = None,
    verify_limit: VerifyLimit = "60s",
    verify_header: VerifyHeaders = None,
    scrape: Annotated[
        list[str] | None,
        typer.Option(
            help="A page of Prometheus metrics to read before, during and after the run; "
            "repeatable."
        ),
    ] = None,
    scrape_metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Which of its metrics, as otelcol_*; repeatable. Default: what is usual."
        ),
    ] = None,
    alerts: Annotated[
        list[str] | None,
        typer.Option(help="A Prometheus whose alerts that fire are reported; repeatable."),
    ] = None,
    cluster: ClusterUrl = None,
    hosts: Hosts = None,
    on_host_lost: Annotated[
        str, typer.Option(help="What a lost host does to the run: continue or stop.")
    ] = "continue",
    json: Annotated[
        str | None, typer.Option(help="Write the results to this file; - for standard output.")
    ] = None,
    markdown: MarkdownFile = None,
    html: HtmlFile = None,
    csv: CsvFile = None,
    junit: JunitFile = None,
    github_summary: GithubSummary = False,
    hdr: Annotated[
        list[str] | None,
        typer.Option(
            help="Write the latencies for HdrHistogram's tools: FILE.hgrm a percentile "
            "distribution, any other name an interval log; repeatable."
        ),
    ] = None,
    metrics_port: Annotated[
        str | None,
        typer.Option(
            help="Serve Prometheus metrics while it runs: PORT on loopback (0: any), or HOST:PORT."
        ),
    ] = None,
    otlp_metrics: Annotated[
        str | None,
        typer.Option(help="Push metrics by OTLP/HTTP while it runs, as http://localhost:4318."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no summary.")
    ] = False,
) -> None:
    """Run a load test and judge it."""
    from blaster import run as load_test
    from blaster.cluster.joined import joined
    from blaster.engine.results import Results
    from blaster.engine.signals import StopSignals
    from blaster.measure.hdr import Latencies
    from blaster.report import console, exporting, hdr_file, json_file
    from blaster.report.outputs import Outputs

    outputs = Outputs(json, markdown, html, csv, junit, github_summary)
    outputs.check()
    for path in hdr or ():
        json_file.check_writable("--hdr", path)
    options = load_test.Options(
        scenario=scenario,
        endpoint=endpoint,
        embedded=embedded,
        rate=rate,
        duration=duration,
        violation_rate=violation_rate,
        stages=stages,
        spans_per_trace=spans_per_trace,
        workload=workload,
        layout=layout,
        template=template,
        record=record,
        record_limit=record_limit,
        workers=workers,
        connections=connections,
        in_flight=in_flight,
        batch=batch,
        retry=retry,
        transport=transport,
        encoding=encoding,
        compression=compression,
        timeout=timeout,
        headers=header or (),
        insecure=insecure,
        insecure_skip_verify=insecure_skip_verify,
        ca_cert=ca_cert,
        client_cert=client_cert,
        client_key=client_key,
        watch=watch or (),
        faults=fault or (),
        chaos=chaos,
        allow_chaos=allow_chaos,
        seed=seed,
        arrivals=arrivals,
        burst=burst,
        warmup=warmup,
        thresholds=threshold or (),
        abort_on=abort_on or (),
        verify=verify or (),
        verify_limit_s=_verify_limit_s(verify_limit),
        read_back=read_back,
        sampling_policy=sampling_policy,
        scrapes=scrape or (),
        scrape_metrics=scrape_metric or (),
        alerts=alerts or (),
        verify_headers=verify_header or (),
    )

    def checkpoint(so_far: Results) -> None:
        if json is not None and json != "-":
            json_file.write(json_file.to_json(so_far), json)

    def latencies(found: Latencies) -> None:
        for path in hdr or ():
            hdr_file.write(found, path)

    with StopSignals() as signals:
        with (
            console.ProgressDisplay(quiet, keys=cluster is None) as display,
            exporting.Exporting(metrics_port, otlp_metrics, quiet=quiet) as exported,
            joined(cluster, hosts, on_host_lost) as members,
        ):
            results = load_test.run(
                options,
                signals,
                exported.after(display.update),
                exported.beside(display.begin),
                on_checkpoint=checkpoint,
                on_latencies=latencies if hdr else None,
                cluster=members,
                control=display.control,
            )
        outputs.write(results)
    if not quiet:
        # Standard output is the file's where a file was sent there.
        console.summary(results, Console(stderr=outputs.takes_stdout, soft_wrap=True))
    assert results.verdict is not None
    if results.interrupted:
        raise typer.Exit(130)
    raise typer.Exit(0 if results.verdict.passed else 1)


@app.command(
    epilog="Examples:  blaster capacity --endpoint http://tempo:4317 --watch tempo "
    "--threshold 'latency_ms.response.p99 < 100'   |   "
    "blaster capacity --embedded --sink-capacity 20000 --json capacity.json"
)
def capacity(
    endpoint: Endpoint = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start the embedded sink and search for its ceiling.")
    ] = False,
    sink_capacity: Annotated[
        int, typer.Option(help="Spans a second that the embedded sink pretends to manage.")
    ] = 0,
    sink_overload: Annotated[
        str, typer.Option(help="What the embedded sink does beyond: refuse or queue.")
    ] = "refuse",
    min_rate: Annotated[
        str, typer.Option(help="The lowest rate to try, in spans per second.")
    ] = "1000",
    max_rate: Annotated[
        str | None, typer.Option(help="The highest (default: what this machine can offer).")
    ] = None,
    precision: Annotated[float, typer.Option(help="Of the rates found, as a share.")] = 0.01,
    loss_ratio: Annotated[
        float, typer.Option(help="What the partial-drop rate may drop, as a share.")
    ] = 0.001,
    trial_duration: Annotated[str, typer.Option(help="Of one trial.")] = "2s",
    repeats: Annotated[
        int, typer.Option(help="Trials at a rate of which the majority decides; odd.")
    ] = 3,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            help="Search for the highest rate at which this holds, too, such as "
            "'latency_ms.response.p99 < 100'; repeatable."
        ),
    ] = None,
    violation_rate: Annotated[
        str | None, typer.Option(help="Share of traces with a violation, 0 to 1.")
    ] = None,
    spans_per_trace: SpansPerTrace = None,
    workers: Workers = None,
    connections: Connections = None,
    in_flight: Annotated[
        int | None, typer.Option(help="Requests in flight at most (default 256).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Spans in a request (default: by the ceiling).")
    ] = None,
    transport: TransportName = "auto",
    encoding: Encoding = None,
    compression: Compression = None,
    timeout: Timeout = None,
    header: Headers = None,
    insecure: Insecure = False,
    insecure_skip_verify: SkipVerify = False,
    ca_cert: CaCert = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    fault: Faults = None,
    watch: Watches = None,
    seed: Seed = None,
    cluster: ClusterUrl = None,
    hosts: Hosts = None,
    json: Annotated[
        str | None, typer.Option(help="Write the findings to this file; - for standard output.")
    ] = None,
    html: HtmlFile = None,
    csv: CsvFile = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No trial by trial and no summary.")
    ] = False,
) -> None:
    """Find the rate at which a backend stops keeping up.

    Exit status 1 where the generator, not the backend, was the limit.
    """
    from blaster import capacity as finder
    from blaster import run as load_test
    from blaster.cluster.joined import joined
    from blaster.engine.signals import StopSignals
    from blaster.report import capacity as report
    from blaster.report.outputs import Outputs
    from blaster.verdict.trial import Trial

    outputs = Outputs(json=json, html=html, csv=csv)
    outputs.check()
    options = load_test.Options(
        endpoint=endpoint,
        embedded=embedded,
        violation_rate=violation_rate,
        spans_per_trace=spans_per_trace,
        workers=workers,
        connections=connections,
        in_flight=in_flight,
        transport=transport,
        encoding=encoding,
        compression=compression,
        timeout=timeout,
        headers=header or (),
        insecure=insecure,
        insecure_skip_verify=insecure_skip_verify,
        ca_cert=ca_cert,
        client_cert=client_cert,
        client_key=client_key,
        watch=watch or (),
        seed=seed,
        thresholds=threshold or (),
    )
    goals = finder.goals(
        min_rate=min_rate,
        max_rate=max_rate,
        precision=precision,
        loss_ratio=loss_ratio,
        trial_duration=trial_duration,
        repeats=repeats,
        batch=batch,
        thresholds=bool(threshold),
    )
    sink = finder.sink_arguments(embedded, sink_capacity, sink_overload, fault or ())
    console = Console(stderr=outputs.takes_stdout, soft_wrap=True)

    def show(trial: Trial) -> None:
        if not quiet:
            console.print(report.trial_line(trial), markup=False, highlight=False)

    with StopSignals() as signals, joined(cluster, hosts, "stop") as members:
        found = finder.find(finder.Search(options, goals, sink, members), signals, show)
        outputs.write(found)
    if not quiet:
        report.summary(found, console)
    raise typer.Exit(1 if found.ndr is None else 0)


@app.command(
    epilog="Examples:  blaster sink --grpc-port 4317 --api-port 4319   |   "
    "blaster sink --capacity 20000 --overload queue"
)
def sink(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="OTLP/gRPC; 0: any free port.")] = 4317,
    http_port: Annotated[int, typer.Option(help="OTLP/HTTP; 0: any free port.")] = 4318,
    api_port: Annotated[int, typer.Option(help="Counts and metrics; 0: any free port.")] = 4319,
    capacity: Annotated[
        int, typer.Option(help="Spans a second that it pretends to manage; 0: all it can.")
    ] = 0,
    overload: Annotated[
        str, typer.Option(help="Beyond its capacity: refuse, or queue (answers come later).")
    ] = "refuse",
    service_time: Annotated[
        str, typer.Option(help="What each answer takes besides, as 5ms.")
    ] = "0s",
    remember: Annotated[int, typer.Option(help="IDs remembered to find duplicates exactly.")] = 1
    << 22,
    betrace: Annotated[
        list[str] | None,
        typer.Option(
            help="Peculiarities of the stand-in for BeTrace: snake, twice, old-dialect, "
            "new-dialect, never-ready, no-metrics; repeatable."
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="A fault on purpose, such as delay=50ms..200ms@10% or "
            "status=UNAVAILABLE,retry=2s@5%,from=10s,for=5s; repeatable."
        ),
    ] = None,
    fault_seed: Annotated[int, typer.Option(help="Decides which requests meet the faults.")] = 0,
    violations_endpoint: Annotated[
        str | None,
        typer.Option(help="Where violations are exported as spans: OTLP/gRPC, http://HOST:PORT."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Say the ports in one line of JSON.")
    ] = False,
) -> None:
    """Receive OTLP, count and check every span, and evaluate the rules.

    SIGUSR1, or POST /v1/freeze?seconds=N at the API, makes it stand still.
    """
    from blaster.sink.server import SinkOptions, serve

    serve(
        SinkOptions(
            host=host,
            grpc_port=grpc_port,
            http_port=http_port,
            api_port=api_port,
            json=json,
            remember=remember,
            capacity=capacity,
            overload=overload,
            service_time=service_time,
            betrace=betrace or (),
            violations_endpoint=violations_endpoint,
            fault=fault or (),
            fault_seed=fault_seed,
        )
    )


@app.command(
    epilog="Examples:  blaster proxy --listen 14317 --target 127.0.0.1:4317 --fault latency=20ms   "
    "|   blaster proxy --target :4317 --fault 'blackhole,from=30s,for=5s' --fault bandwidth=1MB"
)
def proxy(
    target: Annotated[str, typer.Option(help="HOST:PORT, or :PORT on this machine.")],
    listen: Annotated[int, typer.Option(help="The port; 0: any free one.")] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="latency=20ms, jitter=5ms, bandwidth=1MB, reset, blackhole or half-open, with "
            "from=5s, for=5s and, for reset, @SHARE of connections; repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides jitter and shares.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Say the port in one line of JSON.")] = False,
) -> None:
    """Stand between a sender and its target, over TCP, and spoil the way."""
    from blaster.proxy.server import ProxyOptions, serve

    serve(ProxyOptions(target, listen, host, fault or (), seed, json))


@app.command(epilog="Example:  blaster scenarios")
def scenarios() -> None:
    """List the scenarios that come with blaster."""
    from blaster.scenario.loading import describe

    table = Table(box=None, show_header=False, pad_edge=False)
    for row in describe():
        table.add_row(*row)
    Console().print(table)


@app.command(
    epilog="Examples:  blaster profile   |   blaster profile --batch 100 --endpoint "
    "http://localhost:4317   |   blaster profile --flame-graph wire.svg --rung wire"
)
def profile(
    endpoint: Annotated[
        str | None, typer.Option(help="A target to add as the last rung, http://HOST:PORT.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=20_000, help="Spans in a request.")] = 1000,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="How long each rung runs, three times.")
    ] = 2.0,
    json: Annotated[
        str | None, typer.Option(help="Write the ladder to this file; - for standard output.")
    ] = None,
    flame_graph: Annotated[
        str | None, typer.Option(help="Instead: sample one rung and write its flame graph (SVG).")
    ] = None,
    rung: Annotated[
        str, typer.Option(help="memcpy, loopback, columns, stamp, null, wire, grpc or target.")
    ] = "null",
) -> None:
    """Show where the generator's own time goes, rung by rung."""
    import msgspec

    from blaster.engine.results import host
    from blaster.profile import ladder
    from blaster.report import json_file, ladder_table
    from blaster.transport.otlp_settings import OtlpOptions, resolve

    target = None if endpoint is None else resolve(OtlpOptions(endpoint=endpoint))
    if flame_graph is not None:
        json_file.check_writable("--flame-graph", flame_graph)
        ladder.flame_graph(rung, flame_graph, batch, seconds, target)
        return
    json_file.check_writable("--json", json)
    measured = []
    for step in ladder.climb(batch, seconds, target):
        print(f"{step.name}: {step.ns_per_span:,.1f} ns a span", file=sys.stderr, flush=True)
        measured.append(step)
    if json is not None:
        json_file.write(ladder.to_json(measured, batch, msgspec.to_builtins(host())), json)
    if json != "-":
        ladder_table.show(measured, batch, Console(soft_wrap=True))


@app.command(epilog="Example:  blaster dashboard > blaster.json")
def dashboard() -> None:
    """Print a Grafana dashboard for the metrics of --metrics-port and --otlp-metrics."""
    from blaster.report import dashboard as grafana

    typer.echo(grafana.to_json(), nl=False)


def _verify_limit_s(text: str) -> float:
    from blaster.errors import UsageError
    from blaster.units import parse_duration, quoted

    try:
        return parse_duration(text) / 1e9
    except ValueError as error:
        raise UsageError(f"--verify-limit {quoted(text)}: {error}") from None


@app.command(
    epilog="Examples:  blaster send   |   blaster send --endpoint http://collector:4317 "
    "--verify collector=http://collector:8888 --verify tempo=http://tempo:3200"
)
def send(
    endpoint: Endpoint = None,
    transport: TransportName = "auto",
    timeout: Timeout = None,
    header: Headers = None,
    insecure: Insecure = False,
    insecure_skip_verify: SkipVerify = False,
    ca_cert: CaCert = None,
    client_cert: ClientCert = None,
    client_key: ClientKey = None,
    verify: Verify = None,
    verify_limit: VerifyLimit = "60s",
    verify_header: VerifyHeaders = None,
) -> None:
    """Send one span (slow-operation, 2 s) and, with --verify, wait until it is seen.

    Exit status 1 where it was not accepted, or a backend does not show it.
    """
    from blaster import send as sending
    from blaster.backends.verify import parse_headers
    from blaster.engine.signals import StopSignals
    from blaster.report.sent import show_answers, show_sent
    from blaster.transport.otlp_settings import OtlpOptions

    options = OtlpOptions(
        endpoint=endpoint,
        transport=transport,
        timeout=timeout,
        headers=header or (),
        insecure=insecure,
        insecure_skip_verify=insecure_skip_verify,
        ca_cert=ca_cert,
        client_cert=client_cert,
        client_key=client_key,
    )
    limit_s, headers = _verify_limit_s(verify_limit), parse_headers(verify_header or ())
    with StopSignals() as signals:
        sent = sending.send(options, verify or (), limit_s, headers, signals, show_sent)
    show_answers(sent)
    raise typer.Exit(0 if sent.arrived else 1)


@app.command(epilog="Example:  blaster doctor")
def doctor() -> None:
    """Show what is built, what is missing, and what it would gain."""
    from blaster.doctor import examine

    marks = {True: "[green]ok[/]", False: "[yellow]missing[/]", None: ""}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in examine():
        said = f"{finding.found}; {finding.advice}" if finding.advice else finding.found
        table.add_row(finding.name, marks[finding.ok], escape(said))
    Console().print(table)


@app.command(
    epilog="Examples:  blaster report results.json --html report.html   |   "
    "blaster report before.json after.json --max-regression 5%   |   "
    "blaster report runs/ --save-baseline main   |   blaster report results.json --baseline main"
)
def report(
    files: Annotated[
        list[str],
        typer.Argument(
            help="What run --json or capacity --json wrote: one to render, several to compare "
            "with the first; a folder holds repeats."
        ),
    ],
    json: Annotated[
        str | None,
        typer.Option(help="Write the results, or the comparison, to this file; - likewise."),
    ] = None,
    markdown: MarkdownFile = None,
    html: HtmlFile = None,
    csv: CsvFile = None,
    junit: JunitFile = None,
    github_summary: GithubSummary = False,
    baseline: Annotated[
        str | None, typer.Option(help="Compare with the results kept by this name.")
    ] = None,
    save_baseline: Annotated[
        str | None,
        typer.Option(help="Keep the results by this name, unless they have regressed."),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(help="The folder of baselines (default: in XDG_DATA_HOME)."),
    ] = None,
    max_regression: Annotated[
        list[str] | None,
        typer.Option(help="How much worse a figure may be, as 10% or FIGURE=10%; repeatable."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on the console.")] = False,
) -> None:
    """Render results, or compare them.

    Exit status 1 where a comparison shows a regression.
    """
    from blaster.report.command import Request, report

    regressed = report(
        Request(
            files=files,
            json=json,
            markdown=markdown,
            html=html,
            csv=csv,
            junit=junit,
            github_summary=github_summary,
            baseline=baseline,
            save_baseline=save_baseline,
            baselines=baselines,
            max_regression=max_regression or (),
            quiet=quiet,
        )
    )
    raise typer.Exit(1 if regressed else 0)


templates = typer.Typer(help="Look at captured traces, as --template sends them.")
app.add_typer(templates, name="templates")


@templates.callback()
def _templates() -> None:
    """Look at captured traces, as --template sends them."""


@templates.command(
    epilog="Examples:  blaster templates inspect traces.jsonl   |   "
    "blaster templates inspect jaeger.json --json"
)
def inspect(
    file: Annotated[
        str,
        typer.Argument(help="OTLP JSON lines, OTLP protobuf or a Jaeger JSON export."),
    ],
    json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show the shapes of captured traces: sizes, spans, slots and which attributes vary."""
    from blaster.payload.capture.capture import read
    from blaster.report import templates as report

    capture = read(file)
    if json:
        typer.echo(report.to_json(capture), nl=False)
    else:
        report.show(capture, Console(soft_wrap=True))


cluster = typer.Typer(help="Hosts that Dask distributed has started, for run --cluster.")
app.add_typer(cluster, name="cluster")


@cluster.callback()
def _cluster() -> None:
    """Hosts that Dask distributed has started, for run --cluster."""


@cluster.command(
    epilog="Example:  blaster cluster check tcp://scheduler:8786 --endpoint http://tempo:4317"
)
def check(
    url: Annotated[str, typer.Argument(help="The Dask scheduler, as tcp://HOST:8786 or tls://.")],
    endpoint: Endpoint = None,
    transport: TransportName = "auto",
    ca_cert: CaCert = None,
    hosts: Hosts = None,
    ceiling: Annotated[
        bool,
        typer.Option(help="Measure what each host can send to a sink of its own: some 10 s."),
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show what each host has, whether it reaches the endpoint, and what it can send.

    Exit status 1 where a run could not use a host.
    """
    from blaster.cluster.check import check as examine
    from blaster.cluster.joined import joined
    from blaster.report import cluster_table
    from blaster.transport import otlp_settings

    options = otlp_settings.OtlpOptions(endpoint=endpoint, transport=transport, ca_cert=ca_cert)
    otlp = otlp_settings.resolve(options)
    with joined(url, hosts, "stop") as members:
        assert members is not None
        found = examine(members, otlp, ceiling)
    if json:
        typer.echo(cluster_table.to_json(found), nl=False)
    else:
        cluster_table.show(found, Console(soft_wrap=True))
    raise typer.Exit(0 if all(host.ok for host in found) else 1)


@cluster.command(epilog="Example:  blaster cluster ceiling --workers 2")
def ceiling(
    transport: TransportName = "auto",
    workers: Workers = None,
    spans_per_trace: SpansPerTrace = None,
    violation_rate: Annotated[
        str | None, typer.Option(help="Share of traces with a violation, 0 to 1.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Measure what this machine can send, against a sink of its own."""
    import msgspec

    from blaster import capacity as finder
    from blaster import run as load_test
    from blaster.engine.signals import StopSignals

    options = load_test.Options(
        transport=transport,
        workers=workers,
        spans_per_trace=spans_per_trace,
        violation_rate=violation_rate,
    )
    with StopSignals() as signals:
        found = finder.calibrate(options, signals)
    if json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    for batch, rate in (
        (found.small_batch, found.small_rate),
        (found.large_batch, found.large_rate),
    ):
        typer.echo(f"{rate:,.0f} spans/s with {batch:,} spans in a request")


@cluster.command(
    epilog="Example:  blaster cluster manifest --image registry/blaster:1 | kubectl apply -f -"
)
def manifest(
    image: Annotated[str, typer.Option(help="A container image with blaster[cluster].")],
    hosts: Annotated[int, typer.Option(help="How many hosts.")] = 4,
) -> None:
    """Print a DaskCluster for Dask's operator on Kubernetes: one host on each node."""
    from blaster.cluster.manifests import manifest as filled

    typer.echo(filled(image, hosts), nl=False)


def main() -> None:
    """The ``blaster`` command."""
    hide_secrets()
    try:
        arguments = sys.argv[1:] or ["--help"]
        status: Any = app(arguments, prog_name="blaster", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except BlasterError as error:
        _fail(str(error), error.exit_status)


def _fail(message: str, status: int) -> None:
    print(f"blaster: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)

"""``blaster run``: a load test and its verdict."""

from __future__ import annotations

from typing import Annotated

import typer

from blaster.commands import option
from blaster.engine.signals import StopSignals

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster run normal --embedded   |   "
    "blaster run high --endpoint http://tempo:4317 --watch tempo --json results.json   |   "
    "blaster run --rate max --duration 30s --embedded"
)
def run(
    context: typer.Context,
    scenario: Annotated[
        str, typer.Argument(help="normal, medium, high, spike, soak, or a TOML file.")
    ] = "normal",
    endpoint: option.Endpoint = None,
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
    spans_per_trace: option.SpansPerTrace = None,
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
    workers: option.Workers = None,
    connections: option.Connections = None,
    in_flight: Annotated[
        int | None,
        typer.Option(help="Requests in flight at most (default 256; at max 16 a worker)."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Spans in a request (default: by the rate, at most 1,000).")
    ] = None,
    transport: option.TransportName = "auto",
    encoding: option.Encoding = None,
    compression: option.Compression = None,
    timeout: option.Timeout = None,
    retry: Annotated[
        str | None,
        typer.Option(
            help="off, spec (by OTLP's rules) or ignore-throttle (by them, but not when the target "
            "asks for it). Default: spec; off at max."
        ),
    ] = None,
    headers: option.Headers = None,
    insecure: option.Insecure = False,
    insecure_skip_verify: option.SkipVerify = False,
    ca_cert: option.CaCert = None,
    client_cert: option.ClientCert = None,
    client_key: option.ClientKey = None,
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
    fault: option.Faults = None,
    watch: option.Watches = None,
    seed: option.Seed = None,
    verify: option.Verify = None,
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
    verify_limit: option.VerifyLimit = "60s",
    verify_header: option.VerifyHeaders = None,
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
    cluster: option.ClusterUrl = None,
    hosts: option.Hosts = None,
    on_host_lost: Annotated[
        str, typer.Option(help="What a lost host does to the run: continue or stop.")
    ] = "continue",
    json: Annotated[
        str | None, typer.Option(help="Write the results to this file; - for standard output.")
    ] = None,
    markdown: option.MarkdownFile = None,
    html: option.HtmlFile = None,
    csv: option.CsvFile = None,
    junit: option.JunitFile = None,
    github_summary: option.GithubSummary = False,
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
    signals: StopSignals = context.obj
    if cluster is not None:
        signals.release()  # the hosts may take long to find, and there is no run without them
    from rich.console import Console

    from blaster import run as load_test
    from blaster.cluster.joined import joined
    from blaster.engine.results import Results
    from blaster.measure.hdr import Latencies
    from blaster.report import console, exporting, hdr_file, json_file
    from blaster.report.outputs import Outputs

    outputs = Outputs(json, markdown, html, csv, junit, github_summary)
    outputs.check()
    for path in hdr or ():
        json_file.check_writable("--hdr", path)
    options = load_test.Options(
        **option.otlp(locals()),
        scenario=scenario,
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
        verify_limit_s=option.limit_s(verify_limit),
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

    with (
        console.ProgressDisplay(quiet, keys=cluster is None) as display,
        exporting.MetricsExporter(metrics_port, otlp_metrics, quiet=quiet) as exported,
        joined(cluster, hosts, on_host_lost) as members,
    ):
        results = load_test.run(
            options,
            signals,
            exported.on_progress(display.update),
            exported.on_begin(display.begin),
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

"""``blaster run``: a load test and its verdict."""

from __future__ import annotations

from typing import Annotated

import typer

from blaster.commands import option
from blaster.engine.signals import StopSignals
from blaster.job.options import HostOptions, RunOptions
from blaster.option import CLUSTER, OUTPUT

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster run normal --embedded   |   "
    "blaster run high --endpoint http://tempo:4317 --watch tempo --json results.json   |   "
    "blaster run --rate max --duration 30s --embedded"
)
@option.expanded
def run(
    context: typer.Context,
    options: RunOptions,
    cluster: HostOptions,
    on_host_lost: Annotated[
        str,
        typer.Option(
            help="When a host is lost: continue without it, or stop.", rich_help_panel=CLUSTER
        ),
    ] = "continue",
    json: option.Json = None,
    markdown: option.Markdown = None,
    html: option.Html = None,
    csv: option.Csv = None,
    junit: option.Junit = None,
    github_summary: option.GithubSummary = False,
    hdr: Annotated[
        list[str] | None,
        typer.Option(
            help="Write the latencies for HdrHistogram's tools: FILE.hgrm a percentile "
            "distribution, any other name an interval log; repeatable.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    metrics_port: Annotated[
        str | None,
        typer.Option(
            help="Serve Prometheus metrics while it runs: PORT on loopback (0: any), or HOST:PORT.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    otlp_metrics: Annotated[
        str | None,
        typer.Option(
            help="Push metrics by OTLP/HTTP while it runs, as http://localhost:4318.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: option.Quiet = False,
) -> None:
    """Run a load test and judge it."""
    signals: StopSignals = context.obj
    if cluster.cluster is not None:
        signals.release()  # the hosts may take long to find, and there is no run without them
    from blaster import run as load_test
    from blaster.cluster.joined import joined
    from blaster.job.resolution import resolve
    from blaster.listener import Listeners
    from blaster.report import console, exporting
    from blaster.report.outputs import Outputs, RunOutputs
    from blaster.report.show import show

    outputs = Outputs(json, markdown, html, csv, junit, github_summary)
    written = RunOutputs(outputs, hdr or ())
    with (
        console.ProgressDisplay(quiet, keys=cluster.cluster is None) as display,
        exporting.MetricsExporter(metrics_port, otlp_metrics, quiet=quiet) as exported,
        joined(cluster.cluster, cluster.hosts, on_host_lost) as members,
    ):
        results = load_test.run(
            resolve(options, members),
            signals,
            Listeners(display, exported, written),
            cluster=members,
        )
    show(results, outputs, quiet=quiet, more=written.latency_writers())
    assert results.verdict is not None
    if results.interrupted:
        raise typer.Exit(130)
    raise typer.Exit(0 if results.verdict.passed else 1)

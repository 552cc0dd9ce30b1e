"""``blaster capacity``: the rate at which a backend stops keeping up."""

from __future__ import annotations

from typing import Annotated

import typer

from blaster.commands import option

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster capacity --endpoint http://tempo:4317 --watch tempo "
    "--threshold 'latency_ms.response.p99 < 100'   |   "
    "blaster capacity --embedded --sink-capacity 20000 --json capacity.json"
)
def capacity(
    endpoint: option.Endpoint = None,
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
    violation_rate: option.ViolationRate = None,
    spans_per_trace: option.SpansPerTrace = None,
    workers: option.Workers = None,
    connections: option.Connections = None,
    in_flight: Annotated[
        int | None, typer.Option(help="Requests in flight at most (default 256).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Spans in a request (default: by the ceiling).")
    ] = None,
    transport: option.TransportName = "auto",
    encoding: option.Encoding = None,
    compression: option.Compression = None,
    timeout: option.Timeout = None,
    headers: option.Headers = None,
    insecure: option.Insecure = False,
    insecure_skip_verify: option.SkipVerify = False,
    ca_cert: option.CaCert = None,
    client_cert: option.ClientCert = None,
    client_key: option.ClientKey = None,
    fault: option.Faults = None,
    watch: option.Watches = None,
    seed: option.Seed = None,
    cluster: option.ClusterUrl = None,
    hosts: option.Hosts = None,
    json: Annotated[
        str | None, typer.Option(help="Write the findings to this file; - for standard output.")
    ] = None,
    html: option.HtmlFile = None,
    csv: option.CsvFile = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No trial by trial and no summary.")
    ] = False,
) -> None:
    """Find the rate at which a backend stops keeping up.

    Exit status 1 where the generator, not the backend, was the limit.
    """
    from rich.console import Console

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
        **option.otlp(locals()),
        embedded=embedded,
        violation_rate=violation_rate,
        spans_per_trace=spans_per_trace,
        workers=workers,
        connections=connections,
        in_flight=in_flight,
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

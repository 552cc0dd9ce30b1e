"""``blaster cluster``: the hosts that run --cluster sends from."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from blaster.commands import option
from blaster.job.options import HostOptions, LoadOptions
from blaster.transport.otlp_options import OtlpOptions

app = typer.Typer(help="Hosts that Dask distributed has started, for run --cluster.")


@app.callback()
def _cluster() -> None:
    """Hosts that Dask distributed has started, for run --cluster."""


@app.command(
    epilog="Example:  blaster cluster check tcp://scheduler:8786 --endpoint http://tempo:4317"
)
@option.expanded
def check(
    url: Annotated[str, typer.Argument(help="The Dask scheduler, as tcp://HOST:8786 or tls://.")],
    options: Annotated[OtlpOptions, option.Only("endpoint", "transport", "ca_cert")],
    hosts: Annotated[HostOptions, option.Only("hosts")],
    ceiling: Annotated[
        bool,
        typer.Option(help="Measure what each host can send to a sink of its own: some 10 s."),
    ] = True,
    json: option.AsJson = False,
) -> None:
    """Show what each host has, whether it reaches the endpoint, and what it can send.

    Exit status 1 where a run could not use a host.
    """
    from rich.console import Console

    from blaster.cluster.check import check as examine
    from blaster.cluster.joined import joined
    from blaster.report import cluster_table
    from blaster.transport import otlp_settings

    otlp = otlp_settings.resolve(options)
    with joined(url, hosts.hosts, "stop") as members:
        assert members is not None
        found = examine(members, otlp, ceiling)
    if json:
        typer.echo(cluster_table.to_json(found), nl=False)
    else:
        cluster_table.show(found, Console(soft_wrap=True))
    raise typer.Exit(0 if all(host.ok for host in found) else 1)


@app.command(epilog="Example:  blaster cluster ceiling --workers 2")
@option.expanded
def ceiling(
    options: Annotated[
        LoadOptions, option.Only("transport", "workers", "spans_per_trace", "violation_rate")
    ],
    json: option.AsJson = False,
) -> None:
    """Measure what this machine can send, against a sink of its own."""
    import msgspec

    from blaster.calibration import calibrate
    from blaster.engine.signals import StopSignals
    from blaster.job.search import load_job

    job = load_job(replace(options, endpoint="http://localhost"))
    with StopSignals() as signals:
        found = calibrate(job, signals)
    if json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    for batch, rate in (
        (found.small_batch, found.small_rate),
        (found.large_batch, found.large_rate),
    ):
        typer.echo(f"{rate:,.0f} spans/s with {batch:,} spans in a request")


@app.command(
    epilog="Example:  blaster cluster manifest --image registry/blaster:1 | kubectl apply -f -"
)
def manifest(
    image: Annotated[str, typer.Option(help="A container image with blaster[cluster].")],
    hosts: Annotated[int, typer.Option(help="How many hosts.")] = 4,
) -> None:
    """Print a DaskCluster for Dask's operator on Kubernetes: one host on each node."""
    from blaster.cluster.manifests import manifest as filled

    typer.echo(filled(image, hosts), nl=False)

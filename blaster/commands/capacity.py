"""``blaster capacity``: the rate at which a backend stops keeping up."""

from __future__ import annotations

import typer

from blaster.commands import option
from blaster.job.options import CapacityOptions, HostOptions

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster capacity --endpoint http://tempo:4317 --watch tempo "
    "--threshold 'latency_ms.response.p99 < 100'   |   "
    "blaster capacity --embedded --sink-capacity 20000 --json capacity.json"
)
@option.expanded
def capacity(
    options: CapacityOptions,
    cluster: HostOptions,
    json: option.Json = None,
    html: option.Html = None,
    csv: option.Csv = None,
    quiet: option.Quiet = False,
) -> None:
    """Find the rate at which a backend stops keeping up.

    Exit status 1 if the generator was the limit, or every rate lost spans.
    """
    from rich.console import Console

    from blaster import capacity as finder
    from blaster.cluster.joined import joined
    from blaster.engine.signals import StopSignals
    from blaster.job.search import resolve_search
    from blaster.report import capacity as report
    from blaster.report.outputs import Outputs
    from blaster.report.show import show
    from blaster.verdict.trial import Trial

    outputs = Outputs(json=json, html=html, csv=csv)
    outputs.check()
    console = Console(stderr=outputs.takes_stdout, soft_wrap=True)

    def show_trial(trial: Trial) -> None:
        if not quiet:
            console.print(report.trial_line(trial), markup=False, highlight=False)

    with StopSignals() as signals, joined(cluster.cluster, cluster.hosts, "stop") as members:
        search = resolve_search(options, members)
        found = finder.find(search, signals, show_trial, cluster=members)
        show(found, outputs, quiet=quiet)
    raise typer.Exit(0 if found.ndr else 1)

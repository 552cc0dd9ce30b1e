"""``blaster dashboard``: a run's metrics in Grafana."""

from __future__ import annotations

import typer

app = typer.Typer()


@app.command(epilog="Example:  blaster dashboard > blaster.json")
def dashboard() -> None:
    """Print a Grafana dashboard for the metrics of --metrics-port and --otlp-metrics."""
    from blaster.report import dashboard as grafana

    typer.echo(grafana.to_json(), nl=False)

"""``blaster templates``: captured traces as --template sends them."""

from __future__ import annotations

from typing import Annotated

import typer

from blaster.commands import option

app = typer.Typer(help="Look at captured traces, as --template sends them.")


@app.callback()
def _templates() -> None:
    """Look at captured traces, as --template sends them."""


@app.command(
    epilog="Examples:  blaster templates inspect traces.jsonl   |   "
    "blaster templates inspect jaeger.json --json"
)
def inspect(
    file: Annotated[
        str,
        typer.Argument(help="OTLP JSON lines, OTLP protobuf or a Jaeger JSON export."),
    ],
    json: option.AsJson = False,
) -> None:
    """Show the shapes of captured traces: sizes, spans, slots and which attributes vary."""
    from rich.console import Console

    from blaster.payload.capture.capture import read
    from blaster.report import templates as report

    capture = read(file)
    if json:
        typer.echo(report.to_json(capture), nl=False)
    else:
        report.show(capture, Console(soft_wrap=True))

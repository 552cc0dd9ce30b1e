"""``blaster schema``: the JSON Schema of the results."""

from __future__ import annotations

import typer

app = typer.Typer()


@app.command(epilog="Example:  blaster schema > results.schema.json")
def schema() -> None:
    """Print the JSON Schema of what --json writes."""
    from blaster.report import json_schema

    typer.echo(json_schema.to_json(), nl=False)

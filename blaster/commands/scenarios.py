"""``blaster scenarios``: those that come with blaster."""

from __future__ import annotations

import typer

app = typer.Typer()


@app.command(epilog="Example:  blaster scenarios")
def scenarios() -> None:
    """List the scenarios that come with blaster."""
    from rich.console import Console
    from rich.table import Table

    from blaster.scenario.loading import describe

    table = Table(box=None, show_header=False, pad_edge=False)
    for row in describe():
        table.add_row(*row)
    Console().print(table)

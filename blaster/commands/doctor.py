"""``blaster doctor``: what is built and what is missing."""

from __future__ import annotations

import typer

app = typer.Typer()


@app.command(epilog="Example:  blaster doctor")
def doctor() -> None:
    """Show what is built, what is missing, and what it would gain."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from blaster.doctor import examine

    marks = {True: "[green]ok[/]", False: "[yellow]missing[/]", None: ""}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in examine():
        said = f"{finding.found}; {finding.advice}" if finding.advice else finding.found
        table.add_row(finding.name, marks[finding.ok], escape(said))
    Console().print(table)

"""``blaster guide``: the manual in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()

WIDEST = 100
"""Columns; longer lines are hard to read."""


@app.command(epilog="Examples:  blaster guide   |   blaster guide load   |   blaster guide faults")
def guide(
    topic: Annotated[str | None, typer.Argument(help="A page of the manual.")] = None,
) -> None:
    """Show a page of the manual, or list the pages."""
    import re

    from rich.console import Console
    from rich.markdown import Markdown
    from rich.table import Table

    from blaster.guide import pages

    console = Console()
    console.width = min(console.width, WIDEST)
    if topic is None:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name in pages.TOPICS:
            table.add_row(name, pages.description(name))
        console.print(table)
        return
    # A link to another page is its name here.
    text = re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", pages.read(topic))
    console.print(Markdown(text, hyperlinks=False))

"""The ladder of ``blaster profile`` as a table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from blaster.profile.ladder import Rung


def show(measured: list[Rung], batch: int, console: Console) -> None:
    """Print a row for each rung: the cost of a span, and what the rung adds to the one below."""
    below = {rung.name: rung.ns_per_span for rung in measured}
    table = Table(
        title=f"CPU of the generator, {batch:,} spans a request",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 1),
    )
    table.add_column("rung")
    for title in ("ns/span", "adds", "bytes/span", "instr/span", "spans/CPU-s"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("what")
    for rung in measured:
        adds = "" if rung.on is None else f"{rung.ns_per_span - below[rung.on]:+,.1f}"
        counted = rung.instructions_per_span
        table.add_row(
            rung.name,
            f"{rung.ns_per_span:,.1f}",
            adds,
            f"{rung.bytes_per_span:,.1f}",
            "–" if counted is None else f"{counted:,.0f}",
            f"{rung.spans_per_cpu_second / 1e6:,.2f} M",
            rung.what,
        )
    console.print(table)

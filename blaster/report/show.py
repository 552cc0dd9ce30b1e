"""The end of a command: results are cleaned, written and shown."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from blaster.engine.results import Results
from blaster.report import capacity, console
from blaster.report.outputs import Outputs
from blaster.text import cleaned
from blaster.verdict.capacity import Capacity


def show(
    found: Results | Capacity, outputs: Outputs, *, quiet: bool, raw: dict[str, Any] | None = None
) -> None:
    """Write the outputs, and print the summary unless ``quiet``: to standard error if an output
    takes standard output. ``raw``: see :func:`blaster.report.html.to_html`."""
    found = cleaned(found)
    outputs.write(found, raw)
    if quiet:
        return
    screen = Console(stderr=outputs.takes_stdout, soft_wrap=True)
    if isinstance(found, Results):
        console.summary(found, screen)
    else:
        capacity.summary(found, screen)

"""The end of a command: results are cleaned, written and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from blaster.engine.results import Results
from blaster.report import capacity, console
from blaster.report.outputs import Outputs, write_each
from blaster.text import cleaned
from blaster.verdict.capacity import Capacity


def show(
    found: Results | Capacity,
    outputs: Outputs,
    *,
    quiet: bool,
    raw: dict[str, Any] | None = None,
    more: Sequence[Callable[[], None]] = (),
) -> None:
    """Write the outputs, and print the summary unless ``quiet``: to standard error if an output
    takes standard output. ``raw``: see :func:`blaster.report.html.to_html`; ``more``: what
    writes more outputs. Raises BlasterError for those that fail; all others are written."""
    found = cleaned(found)
    try:
        write_each([*outputs.writers(found, raw), *more])
    finally:
        if not quiet:
            _summarise(found, outputs)


def _summarise(found: Results | Capacity, outputs: Outputs) -> None:
    screen = Console(stderr=outputs.takes_stdout, soft_wrap=True)
    if isinstance(found, Results):
        console.summary(found, screen)
    else:
        capacity.summary(found, screen)

"""``blaster send``: one span, and whether it can be seen."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from blaster.commands import option
from blaster.job.options import VerifyOptions
from blaster.transport.otlp_options import OtlpOptions

app = typer.Typer()

NOT_OF_ONE_SPAN = {"encoding", "compression"}


@app.command(
    epilog="Examples:  blaster send   |   blaster send --endpoint http://collector:4317 "
    "--verify collector=http://collector:8888 --verify tempo=http://tempo:3200"
)
@option.expanded
def send(
    options: Annotated[
        OtlpOptions, option.Only(*({f.name for f in fields(OtlpOptions)} - NOT_OF_ONE_SPAN))
    ],
    verify: VerifyOptions,
) -> None:
    """Send one span (slow-operation, 2 s) and, with --verify, wait until it is seen.

    Exit status 1 where it was not accepted, or a backend does not show it.
    """
    from blaster import send as sending
    from blaster.engine.signals import StopSignals
    from blaster.job.resolution import resolve_verify
    from blaster.report.sent import show_answers, show_sent
    from blaster.transport.otlp_settings import resolve

    asked = resolve_verify(verify)
    with StopSignals() as signals:
        sent = sending.send(resolve(options), asked, signals, show_sent)
    show_answers(sent)
    raise typer.Exit(0 if sent.arrived else 1)

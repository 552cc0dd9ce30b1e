"""``blaster profile``: where the generator's own time goes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster profile   |   blaster profile --batch 100 --endpoint "
    "http://localhost:4317   |   blaster profile --flame-graph wire.svg --rung wire"
)
def profile(
    endpoint: Annotated[
        str | None, typer.Option(help="A target to add as the last rung, http://HOST:PORT.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=20_000, help="Spans in a request.")] = 1000,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="How long each rung runs, three times.")
    ] = 2.0,
    json: Annotated[
        str | None, typer.Option(help="Write the ladder to this file; - for standard output.")
    ] = None,
    flame_graph: Annotated[
        str | None, typer.Option(help="Instead: sample one rung and write its flame graph (SVG).")
    ] = None,
    rung: Annotated[
        str, typer.Option(help="memcpy, loopback, columns, stamp, null, wire, grpc or target.")
    ] = "null",
) -> None:
    """Show where the generator's own time goes, rung by rung."""
    import msgspec
    from rich.console import Console

    from blaster.engine.machine import this_host
    from blaster.profile import ladder
    from blaster.report import json_file, ladder_table
    from blaster.transport.otlp_options import OtlpOptions
    from blaster.transport.otlp_settings import resolve

    target = None if endpoint is None else resolve(OtlpOptions(endpoint=endpoint))
    if flame_graph is not None:
        json_file.check_writable("--flame-graph", flame_graph)
        ladder.flame_graph(rung, flame_graph, batch, seconds, target)
        return
    json_file.check_writable("--json", json)
    measured = []
    for step in ladder.measure_rungs(batch, seconds, target):
        print(f"{step.name}: {step.ns_per_span:,.1f} ns a span", file=sys.stderr, flush=True)
        measured.append(step)
    if json is not None:
        json_file.write(ladder.to_json(measured, batch, msgspec.to_builtins(this_host())), json)
    if json != "-":
        ladder_table.show(measured, batch, Console(soft_wrap=True))

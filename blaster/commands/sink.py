"""``blaster sink``: the embedded receiver on its own."""

from __future__ import annotations

import typer

from blaster.commands import option
from blaster.sink.options import SinkOptions

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster sink --grpc-port 4317 --api-port 4319   |   "
    "blaster sink --capacity 20000 --overload queue"
)
@option.expanded
def sink(options: SinkOptions) -> None:
    """Receive OTLP, count and check every span, and evaluate the rules.

    SIGUSR1, or POST /v1/freeze?seconds=N at the API, makes it stand still.
    """
    from blaster.sink.server import serve
    from blaster.sink.settings import resolve

    serve(resolve(options), as_json=options.json)

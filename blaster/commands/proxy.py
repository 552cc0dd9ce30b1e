"""``blaster proxy``: a way to the target that is spoilt on purpose."""

from __future__ import annotations

from typing import Annotated

import typer

from blaster.commands import option

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster proxy --listen 14317 --target 127.0.0.1:4317 --fault latency=20ms   "
    "|   blaster proxy --target :4317 --fault 'blackhole,from=30s,for=5s' --fault bandwidth=1MB"
)
def proxy(
    target: Annotated[str, typer.Option(help="HOST:PORT, or :PORT on this machine.")],
    listen: Annotated[int, typer.Option(help="The port; 0: any free one.")] = 0,
    host: option.ListenHost = "127.0.0.1",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="latency=20ms, jitter=5ms, bandwidth=1MB, reset, blackhole or half-open, with "
            "from=5s, for=5s and, for reset, @SHARE of connections; repeatable."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides jitter and shares.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Say the port in one line of JSON.")] = False,
) -> None:
    """Stand between a sender and its target, over TCP, and spoil the way."""
    from blaster.proxy.server import ProxyOptions, serve

    serve(ProxyOptions(target, listen, host, fault or (), seed, json))

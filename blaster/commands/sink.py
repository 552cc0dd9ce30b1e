"""``blaster sink``: the embedded receiver on its own."""

from __future__ import annotations

from typing import Annotated

import typer

from blaster.commands import option

app = typer.Typer()


@app.command(
    epilog="Examples:  blaster sink --grpc-port 4317 --api-port 4319   |   "
    "blaster sink --capacity 20000 --overload queue"
)
def sink(
    host: option.ListenHost = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="OTLP/gRPC; 0: any free port.")] = 4317,
    http_port: Annotated[int, typer.Option(help="OTLP/HTTP; 0: any free port.")] = 4318,
    api_port: Annotated[int, typer.Option(help="Counts and metrics; 0: any free port.")] = 4319,
    capacity: Annotated[
        int, typer.Option(help="Spans a second that it pretends to manage; 0: all it can.")
    ] = 0,
    overload: Annotated[
        str, typer.Option(help="Beyond its capacity: refuse, or queue (answers come later).")
    ] = "refuse",
    service_time: Annotated[
        str, typer.Option(help="What each answer takes besides, as 5ms.")
    ] = "0s",
    remember: Annotated[int, typer.Option(help="IDs remembered to find duplicates exactly.")] = 1
    << 22,
    betrace: Annotated[
        list[str] | None,
        typer.Option(
            help="Peculiarities of the stand-in for BeTrace: snake, twice, old-dialect, "
            "new-dialect, never-ready, no-metrics; repeatable."
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="A fault on purpose, such as delay=50ms..200ms@10% or "
            "status=UNAVAILABLE,retry=2s@5%,from=10s,for=5s; repeatable."
        ),
    ] = None,
    fault_seed: Annotated[int, typer.Option(help="Decides which requests meet the faults.")] = 0,
    violations_endpoint: Annotated[
        str | None,
        typer.Option(help="Where violations are exported as spans: OTLP/gRPC, http://HOST:PORT."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Say the ports in one line of JSON.")
    ] = False,
) -> None:
    """Receive OTLP, count and check every span, and evaluate the rules.

    SIGUSR1, or POST /v1/freeze?seconds=N at the API, makes it stand still.
    """
    from blaster.sink.server import SinkOptions, serve

    serve(
        SinkOptions(
            host=host,
            grpc_port=grpc_port,
            http_port=http_port,
            api_port=api_port,
            json=json,
            remember=remember,
            capacity=capacity,
            overload=overload,
            service_time=service_time,
            betrace=betrace or (),
            violations_endpoint=violations_endpoint,
            fault=fault or (),
            fault_seed=fault_seed,
        )
    )

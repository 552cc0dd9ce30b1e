"""The command line: parses, calls, and turns errors into one line and an exit status."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.exceptions import TyperException

from blaster import __version__
from blaster.errors import BlasterError

app = typer.Typer(
    name="blaster",
    help="A load generator for OpenTelemetry trace backends.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"blaster {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """A load generator for OpenTelemetry trace backends."""


@app.command(
    epilog="Examples:  blaster run normal --embedded   |   "
    "blaster run high --endpoint http://tempo:4317 --watch tempo --json results.json   |   "
    "blaster run --rate max --duration 30s --embedded"
)
def run(
    scenario: Annotated[
        str, typer.Argument(help="normal, medium, high, spike, soak, or a TOML file.")
    ] = "normal",
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="http://HOST:PORT; else OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, "
            "OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4317."
        ),
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Start the embedded sink, aim at it and watch it.")
    ] = False,
    rate: Annotated[
        str | None, typer.Option(help="Spans per second, or max; also SPANS_PER_SECOND.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="As 60s, 5m, 24h; also DURATION_SECONDS.")
    ] = None,
    violation_rate: Annotated[
        str | None,
        typer.Option(help="Share of traces with a violation, 0 to 1; also VIOLATION_RATE."),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(help="As 100@60s,10k@30s; 100..10k@2m is a ramp. Not with rate or duration."),
    ] = None,
    spans_per_trace: Annotated[
        int | None, typer.Option(help="Spans in each trace (default 1).")
    ] = None,
    workload: Annotated[
        str | None,
        typer.Option(help="flat, web-shop, deep, wide, llm-agent, or a TOML file."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="What a request holds: sdk (one service's spans), gateway (whole traces), "
            "scattered (a quarter of each trace, seconds apart). Default: sdk for one service, "
            "else gateway."
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Send captured traces, with fresh IDs and times: a file of OTLP JSON lines, "
            "OTLP protobuf or a Jaeger JSON export."
        ),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(
            help="Write what is sent to this file, for --template or a Collector: OTLP JSON "
            "lines (.json, .jsonl, .ndjson), else OTLP protobuf with lengths. Slows the run."
        ),
    ] = None,
    record_limit: Annotated[
        str | None, typer.Option(help="Most bytes to record (default 1GiB).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes (default: by the rate and the CPUs).")
    ] = None,
    connections: Annotated[
        int | None, typer.Option(help="Connections of all workers (default: one a worker).")
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(help="Requests in flight at most (default 256; at max 8 a worker)."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Spans in a request (default: by the rate, at most 1,000).")
    ] = None,
    transport: Annotated[str, typer.Option(help="auto, wire, grpc or null.")] = "auto",
    timeout: Annotated[str, typer.Option(help="Deadline of a request.")] = "10s",
    header: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, sent with every request; repeatable.")
    ] = None,
    watch: Annotated[
        list[str] | None,
        typer.Option(help="PID, NAME or :PORT of processes to sample; repeatable."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Makes the same spans again (default: drawn).")
    ] = None,
    json: Annotated[
        str | None, typer.Option(help="Write the results to this file; - for standard output.")
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(help="Write a Markdown report to this file; - likewise.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no summary.")
    ] = False,
) -> None:
    """Run a load test and judge it."""
    from blaster import run as load_test
    from blaster.engine.signals import StopSignals
    from blaster.errors import UsageError
    from blaster.report import console, json_file
    from blaster.report.markdown import to_markdown
    from blaster.units import parse_duration, quoted

    try:
        timeout_s = parse_duration(timeout) / 1e9
    except ValueError as error:
        raise UsageError(f"--timeout {quoted(timeout)}: {error}") from None
    json_file.check_writable("--json", json)
    json_file.check_writable("--markdown", markdown)
    options = load_test.Options(
        scenario=scenario,
        endpoint=endpoint,
        embedded=embedded,
        rate=rate,
        duration=duration,
        violation_rate=violation_rate,
        stages=stages,
        spans_per_trace=spans_per_trace,
        workload=workload,
        layout=layout,
        template=template,
        record=record,
        record_limit=record_limit,
        workers=workers,
        connections=connections,
        in_flight=in_flight,
        batch=batch,
        transport=transport,
        timeout_s=timeout_s,
        headers=header or (),
        watch=watch or (),
        seed=seed,
    )
    with StopSignals() as signals:
        with console.ProgressDisplay(quiet) as display:
            results = load_test.run(options, signals, display.update, display.begin)
        if json is not None:
            json_file.write(json_file.to_json(results), json)
        if markdown is not None:
            json_file.write(to_markdown(results), markdown)
    if not quiet:
        # Standard output is the file's where a file was sent there.
        console.summary(results, Console(stderr="-" in (json, markdown), soft_wrap=True))
    assert results.verdict is not None
    if results.interrupted:
        raise typer.Exit(130)
    raise typer.Exit(0 if results.verdict.passed else 1)


@app.command(epilog="Example:  blaster sink --grpc-port 4317 --api-port 4319")
def sink(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="OTLP/gRPC; 0: any free port.")] = 4317,
    api_port: Annotated[int, typer.Option(help="Counts and metrics; 0: any free port.")] = 4319,
    json: Annotated[
        bool, typer.Option("--json", help="Say the ports in one line of JSON.")
    ] = False,
) -> None:
    """Receive OTLP, count and check every span, and evaluate the rules."""
    from blaster.sink.server import SinkOptions, serve

    serve(SinkOptions(host=host, grpc_port=grpc_port, api_port=api_port, json=json))


@app.command(epilog="Example:  blaster scenarios")
def scenarios() -> None:
    """List the scenarios that come with blaster."""
    from blaster.scenario.loading import describe

    table = Table(box=None, show_header=False, pad_edge=False)
    for row in describe():
        table.add_row(*row)
    Console().print(table)


templates = typer.Typer(help="Look at captured traces, as --template sends them.")
app.add_typer(templates, name="templates")


@templates.callback()
def _templates() -> None:
    """Look at captured traces, as --template sends them."""


@templates.command(
    epilog="Examples:  blaster templates inspect traces.jsonl   |   "
    "blaster templates inspect jaeger.json --json"
)
def inspect(
    file: Annotated[
        str,
        typer.Argument(help="OTLP JSON lines, OTLP protobuf or a Jaeger JSON export."),
    ],
    json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show the shapes of captured traces: sizes, spans, slots and which attributes vary."""
    from blaster.payload.capture.capture import read
    from blaster.report import templates as report

    capture = read(file)
    if json:
        typer.echo(report.to_json(capture), nl=False)
    else:
        report.show(capture, Console(soft_wrap=True))


def main() -> None:
    """The ``blaster`` command."""
    try:
        status: Any = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except TyperException as error:
        _fail(error.format_message(), error.exit_code)
    except typer.Abort:
        _fail("interrupted", 130)
    except BlasterError as error:
        _fail(str(error), error.exit_status)


def _fail(message: str, status: int) -> None:
    print(f"blaster: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)

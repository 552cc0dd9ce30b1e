"""The options that several commands share, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer

# What is sent, and how: of run, capacity and others.
ViolationRate = Annotated[
    str | None, typer.Option(help="Share of traces with a violation, 0 to 1.")
]
SpansPerTrace = Annotated[int | None, typer.Option(help="Spans in each trace (default 1).")]
Workers = Annotated[
    int | None, typer.Option(help="Worker processes (default: by the rate and the CPUs).")
]
Connections = Annotated[
    int | None, typer.Option(help="Connections of all workers (default: one a worker).")
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        help="http(s)://HOST:PORT; else OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, "
        "OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4317."
    ),
]
TransportName = Annotated[
    str,
    typer.Option(
        "--transport",
        help="auto, wire, grpc, http, betrace (its own ingest) or null; auto follows "
        "OTEL_EXPORTER_OTLP_PROTOCOL.",
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option(help="Deadline of a request (10s); also OTEL_EXPORTER_OTLP_TIMEOUT, in ms."),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        help="NAME=VALUE, sent with every request; repeatable; also OTEL_EXPORTER_OTLP_HEADERS.",
    ),
]
Encoding = Annotated[
    str | None, typer.Option(help="protobuf (default) or json; json over HTTP only.")
]
Compression = Annotated[
    str | None,
    typer.Option(help="none (default), gzip or zstd; also OTEL_EXPORTER_OTLP_COMPRESSION."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="In the clear where the endpoint has no scheme.")
]
SkipVerify = Annotated[
    bool,
    typer.Option("--insecure-skip-verify", help="Trust any server: its certificate is not read."),
]
CaCert = Annotated[
    str | None,
    typer.Option(help="PEM of whom to trust; also OTEL_EXPORTER_OTLP_CERTIFICATE."),
]
ClientCert = Annotated[
    str | None,
    typer.Option(help="PEM of our own certificate; also OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE."),
]
ClientKey = Annotated[
    str | None, typer.Option(help="PEM of its key; also OTEL_EXPORTER_OTLP_CLIENT_KEY.")
]
Watches = Annotated[
    list[str] | None,
    typer.Option(help="PID, NAME or :PORT of processes to sample; repeatable."),
]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", help="A fault of the embedded sink, on purpose; see blaster sink. Repeatable."
    ),
]
Seed = Annotated[int | None, typer.Option(help="Makes the same spans again (default: drawn).")]
ClusterUrl = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        help="Send from the hosts of this Dask scheduler, as tcp://HOST:8786 or tls://.",
    ),
]
Hosts = Annotated[
    int | None, typer.Option(help="How many of the cluster's hosts send (default: all).")
]

# What run and send ask of the backends.
Verify = Annotated[
    list[str] | None,
    typer.Option(
        help="Ask a system what came of it: betrace (rules are made and removed), collector, tempo "
        "or jaeger, each with =URL; repeatable. With --embedded betrace is the sink's stand-in."
    ),
]
VerifyLimit = Annotated[
    str, typer.Option(help="How long to wait for what comes late, at each question.")
]
VerifyHeaders = Annotated[
    list[str] | None,
    typer.Option(
        "--verify-header",
        help="NAME=VALUE, sent with every question, as a tenant; repeatable.",
    ),
]

# Of those that listen.
ListenHost = Annotated[str, typer.Option(help="Address to listen on.")]

# Where results go.
AsJson = Annotated[bool, typer.Option("--json", help="Everything, as JSON.")]
MarkdownFile = Annotated[
    str | None, typer.Option(help="Write a Markdown report to this file; - for standard output.")
]
HtmlFile = Annotated[
    str | None,
    typer.Option(help="Write a report with charts to this file, which opens offline; - likewise."),
]
CsvFile = Annotated[str | None, typer.Option(help="Write the series, a row a second; - likewise.")]
JunitFile = Annotated[
    str | None, typer.Option(help="Write the verdict's checks as JUnit XML; - likewise.")
]
GithubSummary = Annotated[
    bool,
    typer.Option("--github-summary", help="Add the Markdown report to GITHUB_STEP_SUMMARY."),
]


def otlp(given: Mapping[str, Any]) -> dict[str, Any]:
    """What OtlpOptions takes, of a command's parameters: those of the same name that were given."""
    from blaster.transport.otlp_settings import OtlpOptions

    names = {field.name for field in fields(OtlpOptions)}
    return {name: value for name, value in given.items() if name in names and value is not None}


def limit_s(text: str) -> float:
    """--verify-limit in seconds. Raises UsageError."""
    from blaster.errors import UsageError
    from blaster.units import parse_duration, quoted

    try:
        return parse_duration(text) / 1e9
    except ValueError as error:
        raise UsageError(f"--verify-limit {quoted(text)}: {error}") from None

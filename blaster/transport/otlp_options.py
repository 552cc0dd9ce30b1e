"""OtlpOptions: how the peer is spoken to, as the command line says it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from blaster.option import TARGET, TRANSPORT, Option


@dataclass(frozen=True, kw_only=True)
class OtlpOptions:
    """Text as it was given; None: not given. :func:`blaster.transport.otlp_settings.resolve` makes
    OtlpSettings of it. ``environ``: where the variables are looked up."""

    endpoint: Annotated[
        str | None,
        Option(
            "http(s)://HOST:PORT; else OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, "
            "OTEL_EXPORTER_OTLP_ENDPOINT, http://localhost:4317.",
            TARGET,
        ),
    ] = None
    transport: Annotated[
        str,
        Option(
            "auto, wire, grpc, http, betrace (its own ingest) or null; auto follows "
            "OTEL_EXPORTER_OTLP_PROTOCOL.",
            TRANSPORT,
        ),
    ] = "auto"
    encoding: Annotated[
        str | None, Option("protobuf (default) or json; json over HTTP only.", TRANSPORT)
    ] = None
    compression: Annotated[
        str | None,
        Option("none (default), gzip or zstd; also OTEL_EXPORTER_OTLP_COMPRESSION.", TRANSPORT),
    ] = None
    timeout: Annotated[
        str | None,
        Option("Deadline of a request (10s); also OTEL_EXPORTER_OTLP_TIMEOUT, in ms.", TRANSPORT),
    ] = None
    headers: Annotated[
        Sequence[str],
        Option(
            "NAME=VALUE, sent with every request; repeatable; also OTEL_EXPORTER_OTLP_HEADERS.",
            TRANSPORT,
            name="--header",
        ),
    ] = field(default=(), repr=False)
    insecure: Annotated[bool, Option("Plaintext if the endpoint has no scheme.", TRANSPORT)] = False
    insecure_skip_verify: Annotated[
        bool, Option("Don't verify the server's certificate.", TRANSPORT)
    ] = False
    ca_cert: Annotated[
        str | None,
        Option("CA bundle (PEM); also OTEL_EXPORTER_OTLP_CERTIFICATE.", TRANSPORT),
    ] = None
    client_cert: Annotated[
        str | None,
        Option("Client certificate (PEM); also OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE.", TRANSPORT),
    ] = None
    client_key: Annotated[
        str | None, Option("Its key (PEM); also OTEL_EXPORTER_OTLP_CLIENT_KEY.", TRANSPORT)
    ] = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

"""Endpoint: where the spans go, and how the environment names it.

The precedence and the variables are the OpenTelemetry specification's:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from blaster.errors import UsageError
from blaster.units import quoted

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
DEFAULT = "http://localhost:4317"
GRPC_PORT = 4317


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port; ``url`` as the user wrote it."""

    url: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """host:port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def resolve(option: str | None, environ: Mapping[str, str]) -> Endpoint:
    """The endpoint of --endpoint, else of the environment, else the default. UsageError in one
    line for what is not an http:// URL of host and port."""
    if option is not None:
        return _parse("--endpoint", option)
    for variable in VARIABLES:
        if environ.get(variable):
            return _parse(variable, environ[variable])
    return _parse("the default endpoint", DEFAULT)


def _parse(source: str, url: str) -> Endpoint:
    wanted = f"{source} {quoted(url)}: must be http://HOST:PORT"
    # host:port alone is what gRPC's own tools take.
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UsageError(f"{wanted}, with a port from 1 to 65535") from None
    if parts.scheme == "https":
        raise UsageError(f"{wanted}: TLS is not supported yet")
    if parts.scheme != "http":
        raise UsageError(wanted)
    if not parts.hostname or any(c.isspace() for c in text):
        raise UsageError(f"{wanted}: the host is missing or malformed")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"{wanted}, without user, query or fragment")
    if parts.path not in ("", "/"):
        raise UsageError(f"{wanted}, without a path: OTLP/gRPC has none")
    if port == 0:
        raise UsageError(f"{wanted}, with a port from 1 to 65535")
    return Endpoint(url, parts.hostname, port or GRPC_PORT)

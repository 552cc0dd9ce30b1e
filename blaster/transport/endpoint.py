"""Endpoint: the address of the target, from an option or the environment.

The precedence, the variables and the handling of paths follow the OpenTelemetry specification:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from blaster.address import is_host, without_secrets
from blaster.errors import UsageError
from blaster.units import quoted

TRACES_VARIABLE, VARIABLE = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
GRPC_PORT = 4317
TRACES_PATH = "/v1/traces"
BETRACE, BETRACE_PATH = "http://localhost:12011", "/v1/spans"

Protocol = Literal["grpc", "http"]

_DEFAULTS: dict[Protocol, str] = {"grpc": "http://localhost:4317", "http": "http://localhost:4318"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port; ``url`` as the user wrote it.

    ``path``: the path of OTLP/HTTP requests; empty for OTLP/gRPC. ``tls``: whether to encrypt.
    """

    url: str
    host: str
    port: int
    path: str = ""
    tls: bool = False

    @property
    def authority(self) -> str:
        """host:port, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def resolve(
    option: str | None,
    environ: Mapping[str, str],
    protocol: Protocol = "grpc",
    *,
    insecure: bool = False,
) -> Endpoint:
    """Resolve the endpoint: --endpoint, else the environment, else the default.

    Without a scheme it is https, or http if ``insecure``. With ``http``, /v1/traces is added to the
    path of the general variable and to an option without a path; the path of the traces' own
    variable is used as it is. UsageError in one line for anything but a URL of host and port.
    """
    if option is not None:
        endpoint = _parse("--endpoint", option, protocol, insecure)
        return endpoint if endpoint.path != "/" else _with_path(endpoint, TRACES_PATH)
    if environ.get(TRACES_VARIABLE):
        return _parse(TRACES_VARIABLE, environ[TRACES_VARIABLE], protocol, insecure)
    source, url = "the default endpoint", _DEFAULTS[protocol]
    if environ.get(VARIABLE):
        source, url = VARIABLE, environ[VARIABLE]
    endpoint = _parse(source, url, protocol, insecure)
    if protocol == "grpc":
        return endpoint
    return _with_path(endpoint, endpoint.path.rstrip("/") + TRACES_PATH)


def resolve_betrace(option: str | None, *, insecure: bool = False) -> Endpoint:
    """Resolve the endpoint of BeTrace's own ingest: --endpoint, with /v1/spans added if it has no
    path, else http://localhost:12011. OTLP's variables do not apply to it."""
    source, url = ("the default endpoint", BETRACE) if option is None else ("--endpoint", option)
    endpoint = _parse(source, url, "http", insecure)
    return endpoint if endpoint.path != "/" else _with_path(endpoint, BETRACE_PATH)


def _with_path(endpoint: Endpoint, path: str) -> Endpoint:
    return Endpoint(endpoint.url, endpoint.host, endpoint.port, path, endpoint.tls)


def _parse(source: str, url: str, protocol: Protocol, insecure: bool) -> Endpoint:
    text = url if "://" in url else f"{'http' if insecure else 'https'}://{url}"
    form = "http(s)://HOST:PORT" + ("/PATH" if protocol == "http" else "")
    wanted = f"{source} {quoted(without_secrets(url))}: must be {form}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise UsageError(f"{wanted}, with a port from 1 to 65535") from None
    if parts.scheme not in ("http", "https"):
        raise UsageError(wanted)
    host = parts.hostname
    if not host or not is_host(host) or re.search(r"[\s\0-\x1f\x7f]", text):
        raise UsageError(f"{wanted}: the host is missing or malformed")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"{wanted}, without user, query or fragment")
    if protocol == "grpc" and parts.path not in ("", "/"):
        raise UsageError(f"{wanted}, without a path: OTLP/gRPC has none")
    if not parts.path.isascii():
        raise UsageError(f"{wanted}, what is not ASCII in its path percent-encoded")
    if port == 0:
        raise UsageError(f"{wanted}, with a port from 1 to 65535")
    tls = parts.scheme == "https"
    default = 443 if tls else GRPC_PORT if protocol == "grpc" else 80
    path = "" if protocol == "grpc" else parts.path or "/"
    return Endpoint(url, host, port or default, path, tls)

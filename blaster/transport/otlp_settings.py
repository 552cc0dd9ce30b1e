"""OtlpSettings: how to reach the target, with every precedence resolved.

Option, then environment, then default; the variables of the traces before those of all signals:
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from blaster.errors import UsageError
from blaster.payload.template import Encoding
from blaster.transport import choice, compression, endpoint, headers
from blaster.transport.endpoint import Endpoint, Protocol
from blaster.transport.headers import Headers
from blaster.transport.otlp_options import OtlpOptions
from blaster.transport.tls import Tls
from blaster.units import parse_duration, quoted

DEFAULT_TIMEOUT_S = 10.0
ENCODINGS = ("protobuf", "json")

_PROTOCOLS: dict[str, tuple[Protocol, Encoding]] = {
    "grpc": ("grpc", "protobuf"),
    "http/protobuf": ("http", "protobuf"),
    "http/json": ("http", "json"),
}


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Resolved settings. ``transport``: the name of the transport. ``tls``: None for plaintext.
    ``timeout_s``: each request's deadline."""

    transport: str
    endpoint: Endpoint
    tls: Tls | None = None
    encoding: Encoding = "protobuf"
    compression: str = "none"
    timeout_s: float = DEFAULT_TIMEOUT_S
    headers: Headers = field(default=(), repr=False)

    @property
    def protocol(self) -> Protocol:
        """The protocol that the target must speak."""
        return choice.protocol(self.transport)

    def hide(self, text: str) -> str:
        """Return ``text`` without the headers' values."""
        return headers.hide(text, self.headers)


def resolve(options: OtlpOptions) -> OtlpSettings:
    """Settles the options and the environment. Raises UsageError in one line, naming the option or
    the variable; no value of a header stands in it."""
    environ, name = options.environ, options.transport
    protocol, encoding = _spoken(options)
    insecure = options.insecure or _flag(environ, "INSECURE")
    if name == "betrace":
        if options.compression not in (None, "none"):
            raise UsageError("--compression: --transport betrace sends JSON uncompressed")
        where = endpoint.resolve_betrace(options.endpoint, insecure=insecure)
    else:
        where = endpoint.resolve(options.endpoint, environ, protocol, insecure=insecure)
    _check_scheme(options, where)
    tls = _tls(options) if where.tls else None
    transport = choice.choose(name, protocol, tls)
    return OtlpSettings(
        transport=transport,
        endpoint=where,
        tls=tls,
        # As what is stamped; the transport makes its JSON of it.
        encoding="protobuf" if name == "betrace" else encoding,
        compression="none" if name == "betrace" else _compression(options, transport),
        timeout_s=_timeout_s(options),
        headers=headers.resolve(options.headers, environ),
    )


def protocol_of(options: OtlpOptions) -> Protocol:
    """What the peer must speak. Raises UsageError."""
    return _spoken(options)[0]


def _spoken(options: OtlpOptions) -> tuple[Protocol, Encoding]:
    """The protocol and the encoding."""
    named, spoken = _variable(options.environ, "PROTOCOL")
    if spoken is not None and spoken not in _PROTOCOLS:
        raise UsageError(f"{named} {quoted(spoken)}: must be {', '.join(_PROTOCOLS)}")
    protocol, encoding = _PROTOCOLS[spoken or "grpc"]
    if choice.check(options.transport) != "auto":
        protocol = choice.protocol(options.transport)
    wanted = options.encoding
    if wanted is not None and wanted not in ENCODINGS:
        raise UsageError(f"--encoding {quoted(wanted)}: must be {' or '.join(ENCODINGS)}")
    if wanted == "json" and protocol != "http":
        raise UsageError("--encoding 'json': only with --transport http")
    if wanted is not None or protocol != "http":
        encoding = "json" if wanted == "json" else "protobuf"
    return protocol, encoding


def _variable(environ: Mapping[str, str], suffix: str) -> tuple[str, str | None]:
    """The variable in force and its value; an empty one is not set."""
    for name in (f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"):
        if environ.get(name):
            return name, environ[name]
    return f"OTEL_EXPORTER_OTLP_{suffix}", None


def _flag(environ: Mapping[str, str], suffix: str) -> bool:
    name, value = _variable(environ, suffix)
    if value is not None and value.lower() not in ("true", "false"):
        raise UsageError(f"{name} {quoted(value)}: must be true or false")
    return value is not None and value.lower() == "true"


def _check_scheme(options: OtlpOptions, where: Endpoint) -> None:
    """Refuses options that contradict the endpoint's scheme; variables give way to it."""
    if where.tls and options.insecure:
        raise UsageError(
            f"--insecure: cannot be used with {quoted(where.url)}, which asks for TLS; "
            "--insecure-skip-verify leaves the certificate unchecked"
        )
    for option, given in (
        ("--insecure-skip-verify", options.insecure_skip_verify),
        ("--ca-cert", options.ca_cert),
        ("--client-cert", options.client_cert),
        ("--client-key", options.client_key),
    ):
        if given and not where.tls:
            raise UsageError(f"{option}: needs an https:// endpoint")
    if options.insecure_skip_verify and options.ca_cert is not None:
        raise UsageError(
            "--ca-cert: cannot be used with --insecure-skip-verify, which trusts anybody"
        )


def _tls(options: OtlpOptions) -> Tls:
    sources, paths = [], []
    for option, given, suffix in (
        ("--ca-cert", options.ca_cert, "CERTIFICATE"),
        ("--client-cert", options.client_cert, "CLIENT_CERTIFICATE"),
        ("--client-key", options.client_key, "CLIENT_KEY"),
    ):
        variable, value = _variable(options.environ, suffix)
        from_option = given is not None or value is None
        sources.append(option if from_option else variable)
        paths.append(given if given is not None else value)
    ca, certificate, key = paths
    tls = Tls(ca, certificate, key, verify=not options.insecure_skip_verify)
    tls.check(sources)
    return tls


def _compression(options: OtlpOptions, transport: str) -> str:
    source, value = "--compression", options.compression
    if value is None:
        source, value = _variable(options.environ, "COMPRESSION")
    if value is None:
        return compression.NONE
    wrong = f"{source} {quoted(value)}"
    if value not in compression.NAMES:
        raise UsageError(f"{wrong}: must be {', '.join(compression.NAMES)}")
    if value == compression.ZSTD and transport == "grpc":
        raise UsageError(f"{wrong}: grpcio knows gzip only; use --transport wire or http")
    if value == compression.ZSTD and transport == "wire" and not choice.wire_takes_zstd():
        raise UsageError(f"{wrong}: blaster._wire was built without libzstd; see blaster doctor")
    if value == compression.ZSTD and compression.library(value) is None:
        raise UsageError(f"{wrong}: needs pip install 'blaster[compression]'")
    return value


def _timeout_s(options: OtlpOptions) -> float:
    if options.timeout is not None:
        try:
            return parse_duration(options.timeout) / 1e9
        except ValueError as error:
            raise UsageError(f"--timeout {quoted(options.timeout)}: {error}") from None
    name, value = _variable(options.environ, "TIMEOUT")
    if value is None:
        return DEFAULT_TIMEOUT_S
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= 10**9):
        raise UsageError(f"{name} {quoted(value)}: must be milliseconds, from 1 to 1,000,000,000")
    return int(value) / 1000

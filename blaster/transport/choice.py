"""The choice of the transport that carries a run."""

from __future__ import annotations

import importlib
import importlib.util
from typing import NamedTuple

from blaster.errors import UsageError
from blaster.transport.endpoint import Protocol
from blaster.transport.tls import Tls
from blaster.units import quoted

NAMES = ("auto", "wire", "grpc", "http", "betrace", "null")


def wire_is_built() -> bool:
    """Whether the extension on libnghttp2 was built."""
    return importlib.util.find_spec("blaster._wire") is not None


def wire_takes_zstd() -> bool:
    """Whether that extension was built with libzstd: answers may come in the request's encoding."""
    return wire_is_built() and bool(importlib.import_module("blaster._wire").ZSTD)


class WireLimits(NamedTuple):
    """The most connections and requests in flight that one worker may have."""

    connections: int
    in_flight: int


def wire_limits() -> WireLimits:
    """Return the limits of the extension on libnghttp2, which must be built."""
    wire = importlib.import_module("blaster._wire")
    return WireLimits(wire.MAX_CONNECTIONS, wire.MAX_IN_FLIGHT)


def wire_speaks_tls() -> bool:
    """Whether that extension was built with OpenSSL."""
    return wire_is_built() and bool(importlib.import_module("blaster._wire").TLS)


def check(name: str) -> str:
    """Return ``name``, the value of ``--transport``. UsageError if there is no such transport."""
    if name not in NAMES:
        raise UsageError(f"--transport {quoted(name)}: must be {', '.join(NAMES)}")
    return name


def protocol(name: str) -> Protocol:
    """The protocol that this transport speaks."""
    return "http" if name in ("http", "betrace") else "grpc"


def choose(name: str, spoken: Protocol = "grpc", tls: Tls | None = None) -> str:
    """Resolve ``--transport NAME`` for a peer that speaks the protocol ``spoken``.

    UsageError if the transport is not built or cannot use these settings.
    """
    check(name)
    if name == "auto" and spoken == "http":
        return "http"
    if name == "auto":
        name = "wire" if wire_is_built() and (tls is None or wire_speaks_tls()) else "grpc"
    if name == "wire" and not wire_is_built():
        raise UsageError(
            "--transport 'wire': blaster._wire is not built; blaster doctor says what to install"
        )
    if name == "wire" and tls is not None and not wire_speaks_tls():
        raise UsageError(
            "--transport 'wire': blaster._wire was built without OpenSSL; grpc and http speak TLS"
        )
    if name == "grpc" and tls is not None and not tls.verify:
        raise UsageError(
            "--insecure-skip-verify: grpcio always verifies; use --ca-cert, or --transport wire or "
            "http"
        )
    return name

"""Which transport carries the run, and how it is made in a worker."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from blaster.errors import UsageError
from blaster.transport.base import Int64, Transport
from blaster.transport.endpoint import Endpoint
from blaster.units import quoted

NAMES = ("auto", "wire", "grpc", "null")


@dataclass(frozen=True, slots=True)
class Settings:
    """What every transport is given. ``connections`` and ``in_flight`` are one worker's;
    ``timeout_s`` each request's deadline."""

    endpoint: Endpoint
    connections: int
    in_flight: int
    timeout_s: float
    metadata: tuple[tuple[str, str], ...] = ()


def wire_is_built() -> bool:
    """Whether the extension on libnghttp2 was built."""
    return importlib.util.find_spec("blaster._wire") is not None


def choose(name: str) -> str:
    """The transport that ``--transport NAME`` means here. UsageError when there is none."""
    if name not in NAMES:
        raise UsageError(f"--transport {quoted(name)}: must be {', '.join(NAMES)}")
    if name == "auto":
        return "wire" if wire_is_built() else "grpc"
    if name == "wire" and not wire_is_built():
        raise UsageError(
            "--transport 'wire': blaster._wire is not built; blaster doctor says what to install"
        )
    return name


def factory(name: str, settings: Settings) -> Callable[[Int64, Int64], Transport]:
    """A function that makes the transport from its ``sent`` and ``stop`` arrays.

    It imports what the transport needs when it is called, after the fork: never in the parent.
    """

    def make(sent: Int64, stop: Int64) -> Transport:
        if name == "null":
            from blaster.transport.null import NullTransport

            return NullTransport(sent=sent, stop=stop)
        if name == "wire":
            from blaster.transport.wire import WireTransport

            return WireTransport(
                host=settings.endpoint.host,
                port=settings.endpoint.port,
                connections=settings.connections,
                in_flight=settings.in_flight,
                timeout_s=settings.timeout_s,
                metadata=settings.metadata,
                sent=sent,
                stop=stop,
            )
        from blaster.transport.grpc import GrpcTransport

        return GrpcTransport(
            target=settings.endpoint.authority,
            connections=settings.connections,
            in_flight=settings.in_flight,
            timeout_s=settings.timeout_s,
            metadata=settings.metadata,
            sent=sent,
            stop=stop,
        )

    return make

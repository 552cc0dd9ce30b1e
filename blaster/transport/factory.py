"""How a transport is made in a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blaster.transport import compression, retry
from blaster.transport.base import Int64, Transport
from blaster.transport.compression import CompressingTransport
from blaster.transport.otlp_settings import OtlpSettings
from blaster.transport.retrying import retried


@dataclass(frozen=True, slots=True)
class Settings:
    """What every transport is given. ``connections`` and ``in_flight`` are one worker's;
    ``retry``: one of retry.MODES, its jitter by ``seed``."""

    otlp: OtlpSettings
    connections: int
    in_flight: int
    retry: str = retry.OFF
    seed: int = 0


def factory(settings: Settings) -> Callable[[Int64, Int64], Transport]:
    """A function that makes the transport from its ``sent`` and ``stop`` arrays.

    It imports what the transport needs when it is called, after the fork: never in the parent.
    """
    otlp = settings.otlp

    def make(sent: Int64, stop: Int64) -> Transport:
        if otlp.transport == "null":
            from blaster.transport.null import NullTransport

            return NullTransport(sent=sent, stop=stop)
        if otlp.transport == "wire":
            from blaster.transport.wire import WireTransport

            return WireTransport(
                host=otlp.endpoint.host,
                port=otlp.endpoint.port,
                connections=settings.connections,
                in_flight=settings.in_flight,
                timeout_s=otlp.timeout_s,
                metadata=otlp.headers,
                tls=otlp.tls,
                encoding=otlp.compression,
                sent=sent,
                stop=stop,
            )
        if otlp.transport == "http":
            from blaster.transport.http import HttpTransport

            return HttpTransport(
                endpoint=otlp.endpoint,
                tls=otlp.tls,
                encoding=otlp.encoding,
                compression=otlp.compression,
                connections=settings.connections,
                timeout_s=otlp.timeout_s,
                headers=otlp.headers,
                sent=sent,
                stop=stop,
            )
        if otlp.transport == "betrace":
            from blaster.transport.betrace import BetraceTransport

            return BetraceTransport(
                endpoint=otlp.endpoint,
                tls=otlp.tls,
                connections=settings.connections,
                timeout_s=otlp.timeout_s,
                headers=otlp.headers,
                sent=sent,
                stop=stop,
            )
        from blaster.transport.grpc import GrpcTransport

        return GrpcTransport(
            target=otlp.endpoint.authority,
            tls=otlp.tls,
            connections=settings.connections,
            in_flight=settings.in_flight,
            timeout_s=otlp.timeout_s,
            metadata=otlp.headers,
            gzip=otlp.compression == compression.GZIP,
            sent=sent,
            stop=stop,
        )

    again = retried(
        make,
        settings.retry,
        in_flight=settings.in_flight,
        timeout_s=otlp.timeout_s,
        seed=settings.seed,
    )
    # grpcio takes no messages that are compressed already: it compresses them itself.
    if otlp.compression == compression.NONE or otlp.transport in ("grpc", "null"):
        return again
    return lambda sent, stop: CompressingTransport(again(sent, stop), otlp.compression, sent)

"""The factory that makes a worker's transport, after the fork."""

from __future__ import annotations

from dataclasses import dataclass

from blaster.layout import Int64
from blaster.transport import compression, retry
from blaster.transport.base import SendCounts, Transport, TransportFactory
from blaster.transport.compression import CompressingTransport
from blaster.transport.otlp_settings import OtlpSettings
from blaster.transport.retrying import with_retries


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of every transport. ``connections`` and ``in_flight`` are those of one worker;
    ``retry``: one of retry.MODES, with jitter from ``seed``."""

    otlp: OtlpSettings
    connections: int
    in_flight: int
    retry: str = retry.OFF
    seed: int = 0


def factory(settings: Settings) -> TransportFactory:
    """Return a function that makes the transport with its ``counts`` and ``stop``.

    It imports the transport's modules when it is called, after the fork: never in the parent.
    """
    otlp = settings.otlp

    def make(counts: SendCounts, stop: Int64) -> Transport:
        if otlp.transport == "null":
            from blaster.transport.null import NullTransport

            return NullTransport(counts=counts, stop=stop)
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
                counts=counts,
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
                counts=counts,
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
                counts=counts,
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
            counts=counts,
            stop=stop,
        )

    retrying = with_retries(
        make,
        settings.retry,
        in_flight=settings.in_flight,
        timeout_s=otlp.timeout_s,
        seed=settings.seed,
    )
    # grpcio compresses messages itself; it takes none that are compressed already.
    if otlp.compression == compression.NONE or otlp.transport in ("grpc", "null"):
        return retrying
    return lambda counts, stop: CompressingTransport(
        retrying(counts, stop), otlp.compression, counts
    )

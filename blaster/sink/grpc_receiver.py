"""OTLP/gRPC on grpcio. Only the sink's own process may import this: grpcio starts threads."""

from __future__ import annotations

import os
import socket
import time
from concurrent import futures
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters is raised or answered

import grpc

from blaster._native import Scanner
from blaster.errors import UsageError
from blaster.sink.capacity import NO_LIMIT, Capacity, Gate
from blaster.sink.counts import SinkCounts

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
THREADS = 4
"""grpcio's own threads take requests off the wire; these only scan. Measured on 2 cores: 4 threads
take 10 to 25 % less CPU a request than one thread or than grpc.aio."""

EMPTY_RESPONSE = b""
"""ExportTraceServiceResponse without partial_success: all was accepted."""


class GrpcReceiver:
    """Listens for OTLP/gRPC and scans what comes."""

    def __init__(
        self,
        host: str,
        port: int,
        remember: int,
        max_message_bytes: int,
        capacity: Capacity = NO_LIMIT,
    ) -> None:
        self._host = host
        self._port = port
        self._scanner = Scanner(remember)
        self._gate = Gate(capacity)
        self._server = grpc.server(
            futures.ThreadPoolExecutor(THREADS),
            options=[
                ("grpc.so_reuseport", 0),  # else a second sink would take half of the connections
                ("grpc.max_receive_message_length", max_message_bytes),
            ],
        )
        export = grpc.unary_unary_rpc_method_handler(self._export)
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Export": export})
        self._server.add_generic_rpc_handlers((handler,))

    def start(self) -> int:
        """Listens; returns the port. Raises UsageError when the address can't be listened on."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            port = self._server.add_insecure_port(f"{host}:{self._port}")
        except RuntimeError:
            raise UsageError(
                f"--grpc-port {self._port}: can't listen on {host}:{self._port}: "
                f"{_why_not(self._host, self._port)}; choose another port, or 0 for a free one"
            ) from None
        self._server.start()
        return port

    def stop(self, grace_s: float = 1.0) -> None:
        """Stops listening; requests in flight have ``grace_s`` seconds to end."""
        self._server.stop(grace_s).wait()

    def watch(self, rules: int) -> None:
        """From now on keeps the spans that break one of these rules; see sink.kept."""
        self._scanner.watch(rules)

    def take(self) -> tuple[bytes, int]:
        """Takes the spans that were kept; see sink.kept."""
        return self._scanner.take()

    def counts(self) -> SinkCounts:
        """What was counted so far."""
        return SinkCounts.from_scan(self._scanner.counts())

    def scan(self, data: bytes) -> int:
        """Scans a message that came another way; its spans, or -1 when it is malformed."""
        return self._scanner.request(data)

    def freeze(self, seconds: float) -> None:
        """Answers nobody for so long."""
        self._gate.freeze(seconds)

    def _export(self, data: bytes, context: Any) -> bytes:
        self._gate.thaw()
        # An empty message asks for nothing: a client's first look whether anybody is there.
        if data and not self._gate.admits():
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            context.set_details("over capacity")
            return EMPTY_RESPONSE
        spans = self._scanner.request(data)
        if spans >= 0:
            time.sleep(self._gate.take(spans))
        else:
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details("the message is not an ExportTraceServiceRequest")
        return EMPTY_RESPONSE


def _why_not(host: str, port: int) -> str:
    """The system's reason why this address can't be listened on: grpcio keeps it to itself."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return "grpcio could not bind it"

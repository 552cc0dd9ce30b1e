"""OTLP/gRPC on grpcio. Only the sink's own process may import this: grpcio starts threads."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from concurrent import futures
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what matters is raised or answered

import grpc

from blaster._native import Scanner
from blaster.address import cannot_listen, family, written
from blaster.otlp import response
from blaster.otlp.response import PartialSuccess
from blaster.otlp.status import DETAILS_TRAILER
from blaster.sink.capacity import NO_LIMIT, Capacity, Gate
from blaster.sink.counts import SinkCounts
from blaster.sink.fault import GRPC, Fault, Kind
from blaster.sink.fault_table import NO_FAULT, FaultTable, garbage

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
THREADS = 4
"""grpcio's own threads take requests off the wire; these only scan. Measured on 2 cores: 4 threads
take 10 to 25 % less CPU a request than one thread or than grpc.aio."""

CODES = {code.value[0]: code for code in grpc.StatusCode}

EMPTY_RESPONSE = b""
"""ExportTraceServiceResponse without partial_success: all was accepted."""


class GrpcReceiver:
    """Listens for OTLP/gRPC and scans what comes."""

    kind = GRPC

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
        self._faults = FaultTable(GRPC)
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
        try:
            port = self._server.add_insecure_port(written(self._host, self._port))
        except RuntimeError:
            why = _why_not(self._host, self._port)
            raise cannot_listen("--grpc-port", self._host, self._port, why) from None
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

    def scan(self, data: bytes, json: bool, share: int, random: int) -> tuple[int, int]:
        """Scans a message that came another way: (spans, rejected); see Receiver in server."""
        return self._scanner.partly(data, json, share, random)

    def set_faults(self, faults: Sequence[Fault], seed: int) -> None:
        """Replace the faults; their time begins with the next request."""
        self._faults.set(faults, seed)

    def fault_hits(self) -> Sequence[int]:
        """How often each was met."""
        return tuple(self._faults.hits)

    def freeze(self, seconds: float) -> None:
        """Answers nobody for so long."""
        self._gate.freeze(seconds)

    def _export(self, data: bytes, context: Any) -> bytes:
        self._gate.thaw()
        # An empty message asks for nothing: a client's first look whether anybody is there.
        drawn = self._faults.draw(time.monotonic_ns()) if data else NO_FAULT
        fault = drawn.fault
        kind = None if fault is None else fault.kind
        if fault is not None and kind == Kind.STATUS:
            context.set_code(CODES[fault.low])
            context.set_details("a fault on purpose")
            if fault.retry_ns is not None:
                details = ((DETAILS_TRAILER, fault.status_details()),)
                context.set_trailing_metadata(details)
            return EMPTY_RESPONSE
        if fault is not None and kind == Kind.FREEZE:
            self._gate.freeze(fault.low / 1e9)
            self._gate.thaw()
        if data and not self._gate.admits():
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            context.set_details("over capacity")
            return EMPTY_RESPONSE
        share = fault.low if fault is not None and kind == Kind.PARTIAL else 0
        spans, rejected = self._scanner.partly(data, False, share, drawn.random & 0xFFFFFFFF)
        if spans < 0:
            context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
            context.set_details("the message is not an ExportTraceServiceRequest")
            return EMPTY_RESPONSE
        time.sleep(self._gate.take(spans) + drawn.delay_ns / 1e9)
        if rejected:
            return response.encode(PartialSuccess(rejected, "rejected on purpose"))
        if fault is not None and kind == Kind.OVERSIZE:
            return response.encode(PartialSuccess(message="x" * fault.low))
        return garbage(drawn.random) if kind == Kind.GARBAGE else EMPTY_RESPONSE


def _why_not(host: str, port: int) -> str:
    """The system's reason why this address can't be listened on: grpcio keeps it to itself."""
    try:
        with socket.socket(family(host), socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return "grpcio could not bind it"

"""Exports violations as spans over OTLP/gRPC, as BeTrace does: into Tempo, usually.

Only the sink's own process may import this: grpcio starts threads.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from urllib.parse import urlsplit

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what goes wrong is counted

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster.errors import UsageError
from blaster.sink.betrace import Violation
from blaster.units import quoted

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SPAN_NAME = "betrace.violation"
SERVICE_NAME = "betrace"

MOST_WAITING = 1000
"""Lots of violations that wait to be sent; what comes when there are more is dropped."""
BATCH = 1000
TIMEOUT_S = 10.0
TRIES = 3


class Exporter:
    """Sends violations from a thread of its own. Raises UsageError for what is no http:// URL."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        if parts.scheme != "http" or not parts.netloc or parts.path not in ("", "/"):
            raise UsageError(
                f"--violations-endpoint {quoted(endpoint)}: must be http://HOST:PORT, OTLP/gRPC"
            )
        self.dropped = 0
        self._channel = grpc.insecure_channel(parts.netloc)
        self._export = self._channel.unary_unary(METHOD, None, None)
        self._waiting: queue.Queue[list[Violation] | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._send_all, name="exporter", daemon=True)
        self._thread.start()

    def add(self, violations: list[Violation]) -> None:
        """Takes them to be sent; never waits."""
        try:
            self._waiting.put_nowait(violations)
        except queue.Full:
            self.dropped += len(violations)

    def close(self) -> None:
        """Sends what waits, for at most a second or two."""
        try:
            self._waiting.put(None, timeout=1.0)
            self._thread.join(1.0)
        except queue.Full:
            pass
        self._channel.close()

    def _send_all(self) -> None:
        while (violations := self._waiting.get()) is not None:
            for first in range(0, len(violations), BATCH):
                self._send(violations[first : first + BATCH])

    def _send(self, violations: list[Violation]) -> None:
        data = request_of(violations)
        for _ in range(TRIES):
            try:
                self._export(data, timeout=TIMEOUT_S)
                return
            except (grpc.RpcError, ValueError):  # ValueError: the channel was closed
                time.sleep(0.1)
        self.dropped += len(violations)


def request_of(violations: list[Violation]) -> bytes:
    """The violations as spans named betrace.violation, each in the trace that it is about."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = SERVICE_NAME
    spans = resource.scope_spans.add().spans
    for violation in violations:
        span = spans.add(
            trace_id=violation.trace_id,
            span_id=bytes.fromhex(violation.id.replace("-", ""))[:8],
            parent_span_id=violation.span_id,
            name=SPAN_NAME,
            start_time_unix_nano=violation.found_ns,
            end_time_unix_nano=violation.found_ns + 1_000_000,
        )
        for key, value in (
            ("id", violation.id),
            ("rule_id", violation.rule.name),
            ("rule_name", violation.rule.name),
            ("severity", violation.rule.severity),
            ("trace_id", violation.trace_id.hex()),
        ):
            span.attributes.add(key=f"betrace.violation.{key}").value.string_value = value
    return request.SerializeToString()

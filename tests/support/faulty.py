"""A sink whose faults are set over its API, and tiny runs of a transport against it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster.errors import TargetUnreachable
from blaster.sink.counts import SinkCounts
from blaster.transport import choice, factory
from blaster.transport.base import (
    FIRST_NOT_PROCESSED,
    FIRST_UNANSWERED,
    Chunk,
    SendCounts,
    Status,
    Transport,
)
from blaster.transport.otlp_options import OtlpOptions
from blaster.transport.otlp_settings import resolve
from support import sinks

SPANS = 4
"""In each request."""

TRANSPORTS = [
    *(["wire"] if choice.wire_is_built() else []),
    "grpc",
    *(["http"] if "http" in choice.NAMES else []),
]
SHOWN = {"wire": "wire", "grpc": "wire", "http": "http"}
"""The kind of the sink's receiver that each transport meets."""


def request(number: int) -> bytes:
    """SPANS spans that nobody else sends who counts on from another number."""
    message = ExportTraceServiceRequest()
    added = message.resource_spans.add().scope_spans.add().spans
    for i in range(SPANS):
        span_id = (number * SPANS + i + 1).to_bytes(8, "big")
        added.add(trace_id=b"\7" * 16, span_id=span_id, name="span", end_time_unix_nano=1)
    return message.SerializeToString()


def raised() -> tuple[Any, Any]:
    """The arrays that a transport raises, and the stop word."""
    return SendCounts.zeros(), np.zeros(1, np.int64)


@dataclass
class Books:
    """A run's accounts, in spans, and its requests by status."""

    sent: int
    accepted: int
    rejected: int
    failed: int
    unknown: int
    by_status: dict[str, int]


class FaultySink:
    """A context manager; ``calls`` counts all requests that were ever sent to it."""

    def __init__(self, **options: Any) -> None:
        self.sink = sinks.started(**options)
        self.calls = 0

    def __enter__(self) -> FaultySink:
        return self

    def __exit__(self, *_: object) -> None:
        self.sink.close()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        api = http.client.HTTPConnection("127.0.0.1", self.sink.api_port, timeout=10)
        with contextlib.closing(api):
            api.request(method, path, None if body is None else json.dumps(body))
            answer = api.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith("{") else text

    def fault(self, faults: Sequence[str], seed: int = 0) -> None:
        status, said = self.ask("POST", "/v1/faults", {"faults": list(faults), "seed": seed})
        assert status == 200, said

    def met(self) -> list[int]:
        """How many requests, or connections, met each fault."""
        return [fault["met"] for fault in self.ask("GET", "/v1/faults")[1]["faults"]]

    def settled(self) -> SinkCounts:
        return self.sink.settled_counts(quiet_s=0.01)

    def endpoint(self, transport: str) -> str:
        return self.sink.http_endpoint if transport == "http" else self.sink.endpoint

    def run(
        self,
        name: str,
        requests: int,
        *,
        timeout_s: float = 0.4,
        spread_s: float = 0.02,
        port: int | None = None,
    ) -> Books:
        """Sends so many requests, evenly over ``spread_s``, and sees that the books balance.

        ``port``: another on the way to the sink."""
        before = self.settled()
        counts, stop = raised()
        url = self.endpoint(name) if port is None else f"http://127.0.0.1:{port}"
        transport = self.connected(name, url, timeout_s, counts, stop)
        counts.words[:] = 0  # the first look is none of the load
        try:
            begin = time.monotonic_ns()
            chunk = self._chunk(transport, requests, begin, round(spread_s * 1e9))
            until = begin + round((spread_s + timeout_s) * 1e9)
            offered = transport.send(chunk, until)
            transport.drain(max(until, time.monotonic_ns() + round(timeout_s * 1e9)))
            outcomes = transport.outcomes()
        finally:
            transport.close()
        books = _books(outcomes)
        after = self.settled()
        assert books.sent == counts.sent_spans == offered * SPANS
        assert len(outcomes) == counts.sent_requests == offered
        assert books.sent == books.accepted + books.rejected + books.failed + books.unknown
        counted = after.spans - before.spans
        assert books.accepted <= counted <= books.accepted + books.unknown, (books, counted)
        assert (after.duplicates, after.invalid, after.malformed) == (0, 0, 0)
        return books

    @staticmethod
    def connected(
        name: str, url: str, timeout_s: float, counts: SendCounts, stop: Any
    ) -> Transport:
        options = OtlpOptions(endpoint=url, transport=name, timeout=f"{timeout_s}s", environ={})
        make = factory.factory(factory.Settings(resolve(options), connections=2, in_flight=8))
        for patience in range(20):
            transport = make(counts, stop)
            try:
                transport.connect(2.0)
            except TargetUnreachable:  # the listener was closed by the last fault
                transport.close()
                if patience == 19:
                    raise
                time.sleep(0.05)
            else:
                return transport
        raise AssertionError

    def _chunk(self, transport: Transport, requests: int, begin: int, spread_ns: int) -> Chunk:
        batches = [request(self.calls + i) for i in range(requests)]
        self.calls += requests
        scheduled = begin + np.arange(requests, dtype=np.int64) * (spread_ns // requests)
        spans = np.full(requests, SPANS, np.int64)
        return Chunk.of(batches, scheduled, spans)


def _books(outcomes: Any) -> Books:
    status, spans, rejected = outcomes["status"], outcomes["spans"], outcomes["rejected"]
    ok = status == Status.OK
    unknown = (status >= FIRST_UNANSWERED) & (status < FIRST_NOT_PROCESSED)
    numbers, counts = np.unique(status, return_counts=True)
    return Books(
        sent=int(spans.sum()),
        accepted=int((spans - rejected)[ok].sum()),
        rejected=int(rejected[ok].sum()),
        failed=int(spans[~ok & ~unknown].sum()),
        unknown=int(spans[unknown].sum()),
        by_status={Status(int(n)).name: int(c) for n, c in zip(numbers, counts, strict=True)},
    )

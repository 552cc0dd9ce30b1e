"""Spans per CPU-second of the sink's scan: all three rules and the search for duplicates.

Spans of some 192 bytes with four string attributes, built by opentelemetry-proto; every span that
is scanned has a fresh ID, and the set of IDs is larger than the caches. Beside it, over the same
bytes in the same run: a plain copy, and what people do instead, opentelemetry-proto's FromString
without even a look at the spans. Figures in spans per CPU-second. Target: 10 million.
"""

from __future__ import annotations

import random
import statistics

import numpy as np
from common import cpu_seconds, interleaved, parse, report
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster._native import Scanner

TARGET = 10_000_000
SIZES = (100, 1000, 8000)
CAPACITY = 1 << 24
POOL_SPANS = 16_000


def request(spans: int, ids: random.Random) -> bytes:
    message = ExportTraceServiceRequest()
    resource_spans = message.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = "bench"
    scope_spans = resource_spans.scope_spans.add()
    for i in range(spans):
        start = 1_700_000_000_000_000_000 + i * 1000
        span = scope_spans.spans.add(
            trace_id=ids.randbytes(16),
            span_id=ids.randbytes(8),
            parent_span_id=ids.randbytes(8),
            name="GET /api/items",
            kind=2,
            start_time_unix_nano=start,
            end_time_unix_nano=start + ids.choice([1_000_000, 600_000_000]),
        )
        span.attributes.add(key="http.route").value.string_value = "/api/items"
        span.attributes.add(key="auth.token").value.string_value = "token-00000000"
        span.attributes.add(key="http.method").value.string_value = "GET"
        span.attributes.add(key="customer.id").value.string_value = "customer-00042"
        span.status.code = ids.choice([0, 0, 0, 2])
    return message.SerializeToString()


class Pool:
    """Requests of ``size`` spans each, 3 MB in all, and the places of their IDs."""

    def __init__(self, size: int, ids: random.Random) -> None:
        count = POOL_SPANS // size
        self.spans = size * count
        whole = request(size, ids)
        self.bytes_per_span = len(whole) / size
        self._bytes = np.frombuffer(whole * count, np.uint8).copy()
        parsed = ExportTraceServiceRequest.FromString(whole).resource_spans[0].scope_spans[0].spans
        starts = np.array([whole.index(span.trace_id) for span in parsed])
        starts = (starts + len(whole) * np.arange(count)[:, None]).reshape(-1, 1)
        # The trace ID, then tag and length of the span ID, then the span ID.
        self._places = starts + np.r_[0:16, 18:26]
        self._random = np.random.default_rng(1)
        view = memoryview(self._bytes)
        self.requests = [view[i * len(whole) : (i + 1) * len(whole)] for i in range(count)]

    def freshen(self) -> None:
        """Gives every span a new ID."""
        self._bytes[self._places] = self._random.integers(0, 256, self._places.shape, np.uint8)


def fill(scanner: Scanner, spans: int) -> None:
    """Gives the scanner that many IDs, in bare spans."""
    rng = np.random.default_rng(2)
    head = b"\x0a\x20\x12\x1e\x12\x1c\x0a\x10"
    bare = np.frombuffer(head + bytes(16) + b"\x12\x08" + bytes(8), np.uint8)
    for _ in range(spans // 100_000):
        blocks = np.tile(bare, (100_000, 1))
        blocks[:, np.r_[8:24, 26:34]] = rng.integers(0, 256, (100_000, 24), np.uint8)
        assert scanner.request(blocks) == 100_000


def main() -> None:
    short = parse(__doc__).short
    ids = random.Random(1)
    figures: dict[str, list[float]] = {}
    ratios: dict[str, dict[str, float]] = {}
    for size in SIZES:
        pool = Pool(size, ids)
        scanner = Scanner(capacity=CAPACITY)
        fill(scanner, 500_000 if short else 2_000_000)

        def scan(pool: Pool = pool, scanner: Scanner = scanner) -> float:
            seconds = 0.0
            for _ in range(2 if short else 10):
                pool.freshen()
                seconds += cpu_seconds(lambda: [scanner.request(data) for data in pool.requests])
            return pool.spans * (2 if short else 10) / seconds

        def copy(pool: Pool = pool) -> float:
            laps = range(5 if short else 20)
            seconds = cpu_seconds(lambda: [len(bytes(d)) for _ in laps for d in pool.requests])
            return pool.spans * len(laps) / seconds

        def parsed(pool: Pool = pool) -> float:
            parse_one = ExportTraceServiceRequest.FromString
            return pool.spans / cpu_seconds(lambda: [parse_one(bytes(d)) for d in pool.requests])

        got = interleaved({"scan": scan, "copy": copy, "FromString": parsed}, 3 if short else 15)
        counts = scanner.counts()
        assert counts["duplicates"] == counts["malformed"] == counts["invalid"] == 0
        assert counts["sampling"] == 1
        medians = {side: statistics.median(values) for side, values in got.items()}
        figures |= {f"{side} {size}": values for side, values in got.items()}
        ratios[str(size)] = {
            "scan/copy": medians["scan"] / medians["copy"],
            "scan/FromString": medians["scan"] / medians["FromString"],
            "scan/target": medians["scan"] / TARGET,
        }
    report(
        "scan",
        figures,
        unit="spans per CPU-second, by spans a request",
        bytes_per_span=pool.bytes_per_span,
        ratios=ratios,
    )


if __name__ == "__main__":
    main()

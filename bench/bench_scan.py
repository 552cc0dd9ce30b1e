"""Spans per CPU-second of the sink's scan: all three rules and the search for duplicates.

Spans of some 192 bytes with four string attributes, built by opentelemetry-proto; every span that
is scanned has a fresh ID, and the set of IDs is larger than the caches. Beside it, over the same
bytes in the same run: a plain copy, and what people do instead, opentelemetry-proto's FromString
without even a look at the spans. The same in OTLP/JSON, as blaster writes it, against json.loads.
Figures in spans per CPU-second. Targets: 10 million, and 2 million in JSON.
"""

from __future__ import annotations

import functools
import json
import random
import re
import statistics
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from common import cpu_seconds, interleaved, parse, report
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.stamping import stamp

from blaster._native import Scanner
from blaster.payload import flat
from blaster.payload.columns import ColumnSource
from blaster.payload.mix import Mix

TARGET, JSON_TARGET = 10_000_000, 2_000_000
SIZES = (100, 1000, 8000)
CAPACITY = 1 << 24
POOL_SPANS = 16_000

IntArray = npt.NDArray[np.int64]


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


def json_request(spans: int) -> bytes:
    """A request of flat's spans, as they are stamped in JSON."""
    mix = Mix([flat.shape()], Fraction(1, 10), encoding="json")
    columns = ColumnSource(1, mix).make(
        np.zeros(1, np.int64), np.array([spans]), np.full(1, 1_700_000_000_000_000_000)
    )
    return stamp(mix.template, columns)[0]


class Pool:
    """Requests of ``size`` spans each, and the places of their IDs, the bytes of which are drawn
    from ``alphabet``."""

    def __init__(self, whole: bytes, size: int, places: IntArray, alphabet: bytes) -> None:
        count = POOL_SPANS // size
        self.spans = size * count
        self.bytes_per_span = len(whole) / size
        self._bytes = np.frombuffer(whole * count, np.uint8).copy()
        self._places = (places + len(whole) * np.arange(count)[:, None, None]).reshape(
            -1, places.shape[1]
        )
        self._alphabet = np.frombuffer(alphabet, np.uint8)
        self._random = np.random.default_rng(1)
        view = memoryview(self._bytes)
        self.requests = [view[i * len(whole) : (i + 1) * len(whole)] for i in range(count)]

    @classmethod
    def protobuf(cls, size: int, ids: random.Random) -> Self:
        whole = request(size, ids)
        parsed = ExportTraceServiceRequest.FromString(whole).resource_spans[0].scope_spans[0].spans
        starts = np.array([[whole.index(span.trace_id)] for span in parsed])
        # The trace ID, then tag and length of the span ID, then the span ID.
        return cls(whole, size, starts + np.r_[0:16, 18:26], bytes(range(256)))

    @classmethod
    def json(cls, size: int) -> Self:
        whole = json_request(size)
        trace_ids, span_ids = (
            np.array([[found.end()] for found in re.finditer(name, whole)])
            for name in (b'"traceId":"', b'"spanId":"')
        )
        places = np.hstack([trace_ids + np.arange(32), span_ids + np.arange(16)])
        return cls(whole, size, places, b"0123456789abcdef")

    def freshen(self) -> None:
        """Gives every span a new ID."""
        drawn = self._random.integers(0, len(self._alphabet), self._places.shape, np.uint8)
        self._bytes[self._places] = self._alphabet[drawn]


def fill(scanner: Scanner, spans: int) -> None:
    """Gives the scanner that many IDs, in bare spans."""
    rng = np.random.default_rng(2)
    head = b"\x0a\x20\x12\x1e\x12\x1c\x0a\x10"
    bare = np.frombuffer(head + bytes(16) + b"\x12\x08" + bytes(8), np.uint8)
    for _ in range(spans // 100_000):
        blocks = np.tile(bare, (100_000, 1))
        blocks[:, np.r_[8:24, 26:34]] = rng.integers(0, 256, (100_000, 24), np.uint8)
        assert scanner.request(blocks) == 100_000


def measure(
    pool: Pool, others: dict[str, Callable[[bytes], object]], *, short: bool, as_json: bool = False
) -> dict[str, list[float]]:
    """Spans per CPU-second of the scan, of a copy, and of these others' reading."""
    scanner = Scanner(capacity=CAPACITY)
    fill(scanner, 500_000 if short else 2_000_000)
    take = scanner.request_json if as_json else scanner.request

    def scan() -> float:
        seconds = 0.0
        for _ in range(2 if short else 10):
            pool.freshen()
            seconds += cpu_seconds(lambda: [take(data) for data in pool.requests])
        return pool.spans * (2 if short else 10) / seconds

    def copy() -> float:
        laps = range(5 if short else 20)
        seconds = cpu_seconds(lambda: [len(bytes(d)) for _ in laps for d in pool.requests])
        return pool.spans * len(laps) / seconds

    def read(one: Callable[[bytes], object]) -> float:
        return pool.spans / cpu_seconds(lambda: [one(bytes(d)) for d in pool.requests])

    sides = {"scan": scan, "copy": copy}
    sides |= {name: functools.partial(read, one) for name, one in others.items()}
    got = interleaved(sides, 3 if short else 15)
    counts = scanner.counts()
    assert counts["duplicates"] == counts["malformed"] == counts["invalid"] == 0
    assert counts["sampling"] == 1
    return got


def main() -> None:
    short = parse(__doc__).short
    ids = random.Random(1)
    figures: dict[str, list[float]] = {}
    ratios: dict[str, dict[str, float]] = {}
    bytes_per_span: dict[str, float] = {}
    for size in SIZES:
        pools = {
            str(size): (Pool.protobuf(size, ids), "FromString", TARGET),
            f"JSON {size}": (Pool.json(size), "json.loads", JSON_TARGET),
        }
        readers = {"FromString": ExportTraceServiceRequest.FromString, "json.loads": json.loads}
        for name, (pool, other, target) in pools.items():
            got = measure(pool, {other: readers[other]}, short=short, as_json=other == "json.loads")
            scan, copied, parsed = (statistics.median(values) for values in got.values())
            figures |= {f"{side} {name}": values for side, values in got.items()}
            bytes_per_span[name] = pool.bytes_per_span
            ratios[name] = {
                "scan/copy": scan / copied,
                f"scan/{other}": scan / parsed,
                "scan/target": scan / target,
            }
    report(
        "scan",
        figures,
        unit="spans per CPU-second, by spans a request",
        bytes_per_span=bytes_per_span,
        ratios=ratios,
    )


if __name__ == "__main__":
    main()

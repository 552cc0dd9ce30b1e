"""The scanner's memory of IDs: exact up to its capacity, a stable sample beyond it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from blaster._native import Scanner

pytestmark = pytest.mark.native

Ids = Callable[[int], tuple[bytes, bytes]]


def request(ids: Iterable[tuple[bytes, bytes]]) -> bytes:
    """One request with a bare span for each (trace ID, span ID)."""
    spans = b"".join(b"\x12\x1c\x0a\x10" + trace + b"\x12\x08" + span for trace, span in ids)

    def block(tag: bytes, content: bytes) -> bytes:
        size, length = len(content), bytearray()
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return tag + bytes(length) + bytes([size]) + content

    return block(b"\x0a", block(b"\x12", spans))


def sequential_spans(i: int) -> tuple[bytes, bytes]:
    return b"\1" * 16, (i + 1).to_bytes(8, "big")


def sequential_traces(i: int) -> tuple[bytes, bytes]:
    return (i + 1).to_bytes(16, "big"), b"\1" * 8


def high_bytes(i: int) -> tuple[bytes, bytes]:
    return (i + 1).to_bytes(16, "little"), (i + 1).to_bytes(8, "little")


def stepped(i: int) -> tuple[bytes, bytes]:
    """Only bits that are multiples of 2^40 differ."""
    return ((i + 1) << 40).to_bytes(16, "big"), ((i + 1) << 40).to_bytes(8, "big")


ALL_IDS = [sequential_spans, sequential_traces, high_bytes, stepped]


def scan(scanner: Scanner, ids: Ids, first: int, last: int, chunk: int = 1000) -> int:
    """Scans IDs first … last - 1; returns how many duplicates were found."""
    before = scanner.counts()["duplicates"]
    for start in range(first, last, chunk):
        data = request(ids(i) for i in range(start, min(start + chunk, last)))
        assert scanner.request(data) == min(chunk, last - start)
    return scanner.counts()["duplicates"] - before


@pytest.mark.parametrize("ids", ALL_IDS)
@pytest.mark.parametrize("capacity", [1024, 5000, 100_000])
def test_exact_until_the_capacity(ids: Ids, capacity: int) -> None:
    scanner = Scanner(capacity=capacity)
    assert scan(scanner, ids, 0, capacity) == 0
    assert scanner.sampling == 1
    assert scan(scanner, ids, 0, capacity) == capacity
    assert scanner.sampling == 1


@pytest.mark.parametrize("ids", ALL_IDS)
def test_a_stable_sample_beyond_it(ids: Ids) -> None:
    capacity, total = 4096, 100_000
    scanner = Scanner(capacity=capacity)
    assert scan(scanner, ids, 0, total) == 0  # thinning makes no duplicate of an ID that is none
    sampling = scanner.sampling
    assert sampling in (32, 64)  # 100,000 / 4,096 is 24.4: half full at least
    found = scan(scanner, ids, 0, total)
    # Of the IDs those with k zero bits, nearly binomial: five sigma about the mean.
    mean = total / sampling
    assert abs(found - mean) < 5 * mean**0.5
    assert found <= capacity
    assert scan(scanner, ids, 0, total) == found  # the same ones each time
    assert scanner.sampling == sampling


def test_duplicates_within_one_request() -> None:
    scanner = Scanner()
    ids = [sequential_spans(i % 10) for i in range(1000)]
    assert scanner.request(request(ids)) == 1000
    assert scanner.counts()["duplicates"] == 990


def test_the_least_capacity() -> None:
    scanner = Scanner(capacity=1)  # 1,024 are held at least
    assert scan(scanner, sequential_spans, 0, 1024) == 0
    assert scanner.sampling == 1
    for capacity in (0, -1):
        with pytest.raises(ValueError, match="capacity"):
            Scanner(capacity=capacity)

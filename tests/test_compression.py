"""Compression: what is compressed on the workers is, everywhere, what was to be sent."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from support import cli, peers

from blaster.transport import compression
from blaster.transport.base import OUTCOME, Chunk, Framing, SendCounts
from blaster.transport.choice import wire_is_built, wire_takes_zstd
from blaster.transport.compression import CompressingTransport

UNPACK = {"gzip": gzip.decompress, "zstd": zstandard.ZstdDecompressor().decompress}
PAIRS = [("grpc", "gzip"), ("http", "gzip"), ("http", "zstd")]
PAIRS += [("wire", "gzip"), *([("wire", "zstd")] if wire_takes_zstd() else [])] * wire_is_built()


class Taking:
    """A Transport that keeps what it is given, and takes no more than so many batches."""

    framing: Framing = "made"

    def __init__(self, most: int) -> None:
        self._left = most
        self.chunks: list[Chunk] = []

    def connect(self, timeout_s: float) -> None: ...

    def send(self, chunk: Chunk, until: int) -> int:
        took = min(self._left, len(chunk))
        self._left -= took
        self.chunks.append(chunk.part(0, took))
        return took

    def wait(self, until: int) -> None: ...

    def drain(self, until: int) -> None: ...

    def outcomes(self) -> Any:
        return np.zeros(0, OUTCOME)

    def in_flight(self) -> int:
        return 0

    def messages(self) -> dict[int, str]:
        return {}

    def close(self) -> None: ...


@given(
    batches=st.lists(st.binary(max_size=200), min_size=1, max_size=8),
    repeats=st.sampled_from([1, 1000, 20_000]),
    name=st.sampled_from(["gzip", "zstd"]),
    most=st.integers(0, 9),
)
def test_it_is_the_same_again(batches: list[bytes], repeats: int, name: str, most: int) -> None:
    """Compressed batches decompress to the original ones, each with its time, spans and number;
    bytes are counted for those that were offered."""
    batches = [batch * repeats for batch in batches]
    scheduled, spans = np.arange(len(batches)), np.arange(len(batches)) + 5
    offsets = np.cumsum([3, *map(len, batches)])
    chunk = Chunk(scheduled, spans, offsets, memoryview(b"xyz" + b"".join(batches)), first=100)
    counts = SendCounts.zeros()
    inner = Taking(most)
    transport = CompressingTransport(inner, name, counts)
    assert transport.framing == "buffer"
    offered = transport.send(chunk, 0)
    assert offered == min(most, len(batches))
    found = [
        (UNPACK[name](c.batch(i)), int(c.scheduled[i]), int(c.spans[i]), c.first + i)
        for c in inner.chunks
        for i in range(len(c))
    ]
    assert found == [(batches[i], i, i + 5, 100 + i) for i in range(offered)]
    assert counts.uncompressed_bytes == sum(map(len, batches[:offered]))
    assert counts.compressed_bytes == sum(
        len(c.batch(i)) for c in inner.chunks for i in range(len(c))
    )
    assert counts.compression_ns > 0


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """gzip works with what every Python has."""
    find = importlib.util.find_spec
    hidden = lambda name, *more: None if name in ("isal", "zstandard") else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    assert (compression.library("gzip"), compression.library("zstd")) == ("zlib", None)
    data = b"span " * 1000
    assert gzip.decompress(compression.compressor("gzip")(memoryview(data))) == data


@pytest.mark.parametrize(("transport", "name"), PAIRS)
def test_collector_takes_it(
    tmp_path: Path, collector_binary: Path, transport: str, name: str
) -> None:
    """The Collector decompresses every span that was sent, and the results say what it cost."""
    out = tmp_path / "r.json"
    with peers.collector(collector_binary) as target:
        port = target.http_port if transport == "http" else target.grpc_port
        endpoint = f"http://127.0.0.1:{port}"
        ran = cli.blaster(
            *("run", "--endpoint", endpoint, "--rate", "3000", "--duration", "1s"),
            *("--transport", transport, "--compression", name, "--workload", "web-shop"),
            *("--json", str(out)),
        )
        assert ran.returncode == 0, ran
        read = cli.results(out)
        accepted = read["spans"]["accepted"]
        metrics = target.wait_for("otelcol_receiver_accepted_spans", accepted)
    assert accepted == read["spans"]["scheduled"] > 2900
    assert metrics["otelcol_receiver_accepted_spans"] == accepted
    assert metrics.get("otelcol_receiver_refused_spans", 0) == 0
    assert read["configuration"]["compression"] == name
    check_cost(read, transport, name, ran.stdout)


@pytest.mark.parametrize(("transport", "name"), PAIRS)
def test_sink_takes_it(tmp_path: Path, transport: str, name: str) -> None:
    """The sink finds every span in it, with its violations, none twice and none invalid."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--embedded", "--rate", "10000", "--duration", "1s", "--transport", transport),
        *("--compression", name, "--json", str(out)),
    )
    assert ran.returncode == 0, ran
    read = cli.results(out)
    assert read["sink"]["spans"] == read["spans"]["accepted"] == 10_000
    assert read["violations"]["detected"] == read["violations"]["injected"] > 0
    check_cost(read, transport, name, ran.stdout)


def check_cost(read: dict[str, Any], transport: str, name: str, printed: str) -> None:
    """``bytes`` is what was sent before compression, ``compression`` what became of it."""
    found = read["compression"]
    assert 100 < read["bytes"]["per_span"] < 700
    if transport == "grpc":
        assert found is None and "Compression" not in printed
        return
    assert found["encoding"] == name
    assert found["library"] == {"gzip": "isal", "zstd": "zstandard"}[name]
    assert found["bytes_before"] == read["bytes"]["payload"]
    assert 3 < found["ratio"] < 12, "texts as real ones compress"
    assert found["ratio"] == pytest.approx(found["bytes_before"] / found["bytes_after"], abs=0.01)
    assert 0 < found["cpu_seconds"] < read["generator"]["cpu_seconds"]
    assert "Compression" in printed


@pytest.mark.parametrize("workload", ["flat", "web-shop", "deep", "wide", "llm-agent"])
def test_texts_do_not_compress_to_nothing(tmp_path: Path, workload: str) -> None:
    """Every workload compresses as telemetry does: to a third or less, to a twelfth or more."""
    out = tmp_path / "sent.binpb"
    ran = cli.blaster(
        *("run", "--transport", "null", "--workload", workload, "--rate", "10000", "--batch"),
        *("500", "--duration", "0.2s", "--record", str(out), "--record-limit", "2MB", "--quiet"),
    )
    assert ran.returncode in (0, 1), ran
    data = out.read_bytes()[:200_000]
    ratio = len(data) / len(compression.compressor("gzip")(memoryview(data)))
    assert 3 < ratio < 12


def test_zstd_and_grpcio() -> None:
    """A compression that grpcio lacks is refused in one line."""
    ran = cli.blaster("run", "--embedded", "--transport", "grpc", "--compression", "zstd")
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "--compression 'zstd'" in line and "wire" in line

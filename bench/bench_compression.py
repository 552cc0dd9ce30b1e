"""The cost of compression: a run with gzip against one without, and the libraries.

Runs are ``blaster run --rate max`` over wire into the embedded sink, 1,000 spans a request; spans
per CPU-second of the workers and their parent. Libraries: bytes per CPU-second on the same batches,
at the levels that there are, with their ratios. Target: gzip by isal at least 3 times as quick as
by zlib at level 1, and no less of a ratio than 0.9 of it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable

import numpy as np
import zstandard
from common import cpu_seconds, interleaved, parse, report
from isal import isal_zlib

from blaster.engine.plan import Plan, mix_of
from blaster.payload import workload
from blaster.scenario import loading

GZIP = 31
LIBRARIES: dict[str, Callable[[bytes], bytes]] = {
    "zlib 1": lambda data: zlib.compress(data, 1, GZIP),
    "zlib 6": lambda data: zlib.compress(data, 6, GZIP),
    "isal 0": lambda data: bytes(isal_zlib.compress(data, 0, GZIP)),
    "isal 1": lambda data: bytes(isal_zlib.compress(data, 1, GZIP)),
    "isal 3": lambda data: bytes(isal_zlib.compress(data, 3, GZIP)),
    "zstd 1": zstandard.ZstdCompressor(level=1).compress,
    "zstd 3": zstandard.ZstdCompressor(level=3).compress,
}


def batches(name: str, spans: int = 500, count: int = 8) -> list[bytes]:
    """Batches of a workload, as they are sent."""
    loaded = loading.load("normal")
    scenario = loaded.with_overrides(workload=name, batch=spans)
    plan = Plan.of(scenario, seed=1, workers=1, mix=mix_of(scenario, 1))
    held = plan.shard(0).of(np.arange(count))
    source = plan.column_source()
    batches = source.batches(plan.template.compile())
    source.begin(
        batches,
        held.first,
        held.counts,
        np.full(count, time.time_ns()),
        parts=held.parts,
        quota_first=held.quota,
    )
    return list(batches)


def run(encoding: str, seconds: float) -> float:
    command = [sys.executable, "-m", "blaster", "run", "--rate", "max", "--embedded", "--quiet"]
    command += ["--transport", "wire", "--batch", "1000", "--workers", "1", "--in-flight", "8"]
    command += ["--compression", encoding, "--duration", f"{int(seconds * 1000)}ms", "--json", "-"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(ran.stdout)["generator"]["spans_per_cpu_second"])


def main() -> None:
    short = parse(__doc__).short
    seconds, runs, rounds = (1.0, 2, 1) if short else (4.0, 5, 5)
    data = batches("web-shop")
    size = sum(map(len, data))
    library = interleaved(
        {
            name: lambda pack=pack: size / cpu_seconds(lambda: [pack(batch) for batch in data])
            for name, pack in LIBRARIES.items()
        },
        2 + rounds,
    )
    ratio = {
        name: {
            library: sum(map(len, found)) / sum(len(pack(batch)) for batch in found)
            for library, pack in LIBRARIES.items()
        }
        for name in workload.NAMES
        for found in [batches(name)]
    }
    encodings = interleaved(
        {f"run {name}": lambda name=name: run(name, seconds) for name in ("none", "gzip")},
        runs,
    )
    ratios = {
        "run gzip/none": statistics.median(
            a / b for a, b in zip(encodings["run gzip"], encodings["run none"], strict=True)
        ),
        "isal 1/zlib 1": statistics.median(
            a / b for a, b in zip(library["isal 1"], library["zlib 1"], strict=True)
        ),
    }
    kept = ratio["web-shop"]["isal 1"] / ratio["web-shop"]["zlib 1"]
    report(
        "compression",
        library | encodings,
        unit="bytes per CPU-second; of runs, spans",
        compression=ratio,
        ratios=ratios,
        targets={"isal 1/zlib 1": ratios["isal 1/zlib 1"] >= 3 and kept >= 0.9},
    )


if __name__ == "__main__":
    main()

"""Stamping alone against memcpy of the same bytes, in spans per CPU-second.

One chunk of requests of ``flat`` (189 bytes a span) is stamped over and over from the same columns
into the same memory; beside it, in the same run, a plain copy of the very same bytes, and the
making of the columns by numpy. Targets: at least 50 million, and at least half of memcpy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from common import cpu_seconds, interleaved, parse, report

from blaster.payload import flat
from blaster.payload.columns import ColumnSource
from blaster.payload.mix import Mix

TARGET, TARGET_RATIO = 50_000_000, 0.5
CHUNK_SPANS = 16_000
SIZES = (100, 1000, 8000)


def sides(per_request: int, rounds: int) -> dict[str, Callable[[], float]]:
    requests = CHUNK_SPANS // per_request
    spans = requests * per_request * rounds
    mix = Mix([flat.shape(1)], Fraction(1, 10))
    kernel = mix.template.compile()
    source = ColumnSource(1, mix)
    first = np.arange(requests, dtype=np.int64) * per_request
    ended = np.full(requests, 1_800_000_000_000_000_000)
    counts = np.full(requests, per_request)
    columns = source.make(first, counts, ended)
    out = np.zeros(mix.batch_bytes(per_request) * requests, np.uint8)
    offsets = np.zeros(requests + 1, np.int64)
    arguments = (columns.arrays, columns.variants, columns.counts, out, offsets)
    size = kernel.stamp_into(*arguments)
    original, copy = out[:size].copy(), out[:size]

    def times(work: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            return spans / cpu_seconds(lambda: [work() for _ in range(rounds)])

        return measure

    return {
        f"stamp_{per_request}": times(lambda: kernel.stamp_into(*arguments)),
        f"memcpy_{per_request}": times(lambda: np.copyto(copy, original)),
        f"columns_{per_request}": times(lambda: source.make(first, counts, ended)),
    }


def main() -> None:
    short = parse(__doc__).short
    figures: dict[str, list[float]] = {}
    for size in SIZES:
        figures |= interleaved(sides(size, 30 if short else 300), 3 if short else 9)
    median = {name: statistics.median(values) for name, values in figures.items()}
    ratios = {f"stamp/memcpy {s}": median[f"stamp_{s}"] / median[f"memcpy_{s}"] for s in SIZES}
    report(
        "stamp",
        figures,
        unit="spans per CPU-second",
        ratios=ratios,
        targets={
            "stamp": all(median[f"stamp_{s}"] >= TARGET for s in SIZES),
            "stamp/memcpy": all(ratio >= TARGET_RATIO for ratio in ratios.values()),
        },
    )


if __name__ == "__main__":
    main()

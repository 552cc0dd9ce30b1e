"""Stamping the workload ``web-shop`` against ``flat``, per byte, and what high cardinality costs.

One chunk of requests is stamped over and over from the same columns into the same memory, all
sides in the same run. web-shop is also stamped without its digits: the same workload file with its
references to sources taken out. Targets: web-shop at most 2 times flat per byte; digits at most
1.5 times none.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from fractions import Fraction
from importlib import resources

import numpy as np
from common import cpu_seconds, interleaved, parse, report

from blaster.payload import drawing, topology, workload
from blaster.payload.columns import ColumnSource
from blaster.payload.mix import Mix
from blaster.scenario.scenario import Workload

MOST_PER_BYTE, MOST_FOR_DIGITS = 2.0, 1.5
CHUNK_SPANS, REQUESTS = 16_000, 16
RATE = Fraction(1, 10)


def without_digits(name: str) -> Mix:
    """The workload with zeros in the place of the numbers that it draws."""
    text = (resources.files("blaster.payload") / "workloads" / f"{name}.toml").read_text("utf-8")
    shapes = drawing.draw(topology.parse(text, name), 1)
    bare = re.sub(r"\$\{\w+(?::\d+)?\}", "0", text)
    assert len(shapes) == len(drawing.draw(topology.parse(bare, name), 1))
    return Mix(drawing.draw(topology.parse(bare, name), 1), RATE, "gateway")


def sides(name: str, mix: Mix, rounds: int) -> dict[str, Callable[[], float]]:
    """Stamping, copying and making the columns, in nanoseconds of CPU a KiB of what is stamped."""
    per_request = max(1, int(CHUNK_SPANS / REQUESTS / mix.spans_per_trace))
    kernel, source = mix.template.compile(), ColumnSource(1, mix)
    first = np.arange(REQUESTS, dtype=np.int64) * per_request
    counts = np.full(REQUESTS, per_request, np.int64)
    ended = np.full(REQUESTS, 1_800_000_000_000_000_000)
    columns = source.make(first, counts, ended)
    out = np.zeros(mix.batch_bytes(per_request) * REQUESTS, np.uint8)
    offsets = np.zeros(REQUESTS + 1, np.int64)
    arguments = (columns.arrays, columns.variants, columns.counts, out, offsets)
    size = kernel.stamp_into(*arguments)
    original, copy = out[:size].copy(), out[:size]

    def cost(work: Callable[[], object]) -> Callable[[], float]:
        def measure() -> float:
            seconds = cpu_seconds(lambda: [work() for _ in range(rounds)])
            return seconds * 1e9 / (rounds * size / 1024)

        return measure

    return {
        f"stamp_{name}": cost(lambda: kernel.stamp_into(*arguments)),
        f"memcpy_{name}": cost(lambda: np.copyto(copy, original)),
        f"columns_{name}": cost(lambda: source.make(first, counts, ended)),
    }


def main() -> None:
    short = parse(__doc__).short
    rounds = 30 if short else 300
    mixes = {
        "flat": workload.mix(Workload(), 1),
        **{name: workload.mix(Workload(name=name), 1) for name in workload.NAMES[1:]},
        "web-shop without digits": without_digits("web-shop"),
    }
    every: dict[str, Callable[[], float]] = {}
    for name, mix in mixes.items():
        every |= sides(name, mix, rounds)
    figures = interleaved(every, 3 if short else 9)
    median = {name: statistics.median(values) for name, values in figures.items()}
    per_byte = median["stamp_web-shop"] / median["stamp_flat"]
    digits = median["stamp_web-shop"] / median["stamp_web-shop without digits"]
    made = {name: median[f"stamp_{name}"] + median[f"columns_{name}"] for name in mixes}
    report(
        "workloads",
        figures,
        unit="ns of CPU a KiB",
        ratios={
            "stamp web-shop/flat per byte": per_byte,
            "stamp with digits/without": digits,
            "stamp and columns web-shop/flat per byte": made["web-shop"] / made["flat"],
            "stamp and columns with digits/without": made["web-shop"]
            / made["web-shop without digits"],
        },
        targets={
            "stamp web-shop/flat per byte": per_byte <= MOST_PER_BYTE,
            "stamp with digits/without": digits <= MOST_FOR_DIGITS,
        },
    )


if __name__ == "__main__":
    main()

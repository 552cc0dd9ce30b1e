"""The wire transport against the grpc transport, and a long run against a short one.

All sides are ``blaster run --rate max --embedded``: each span stamped, accounted for and checked in
the sink; spans per CPU-second of the workers and their parent. Targets: wire/grpc at least 4 at
1,000 spans a request and 12 at 100; the cost of a span within 10 %, and the generator's memory
within 10 %, from a run of 10 s to one of 120 s.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from common import interleaved, parse, report

TARGETS = {100: 12.0, 1000: 4.0}
IN_FLIGHT = {"wire": 8, "grpc": 8}
FLAT = 0.10


def run(transport: str, spans: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "blaster", "run", "--rate", "max", "--embedded", "--quiet"]
    command += ["--transport", transport, "--batch", str(spans), "--workers", "1"]
    command += ["--in-flight", str(IN_FLIGHT[transport]), "--json", "-"]
    command += ["--duration", f"{int(seconds * 1000)}ms"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(ran.stdout)["generator"])


def main() -> None:
    short = parse(__doc__).short
    seconds, runs = (1.0, 1) if short else (5.0, 5)
    brief, long = (1.0, 4.0) if short else (10.0, 120.0)
    figures: dict[str, list[float]] = {}
    ratios: dict[str, float] = {}
    for size in TARGETS:
        sides = {
            f"{name}_{size}": lambda name=name, size=size: float(
                run(name, size, seconds)["spans_per_cpu_second"]
            )
            for name in ("wire", "grpc")
        }
        both = interleaved(sides, runs)
        pairs = zip(both[f"wire_{size}"], both[f"grpc_{size}"], strict=True)
        ratios[f"wire/grpc {size}"] = statistics.median(a / b for a, b in pairs)
        figures |= both
    # In turns, and a short one before and after each long one: so that a drift of the machine
    # meets both.
    turns = [brief, long, brief] if short else [brief, long, brief, long, brief]
    took = [(seconds, run("wire", 1000, seconds)) for seconds in turns]

    def median(seconds: float, of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(of(found) for length, found in took if length == seconds)

    costs = {length: median(length, lambda r: 1 / r["spans_per_cpu_second"]) for length in turns}
    sizes = {length: median(length, lambda r: r["rss_bytes"]["peak"]) for length in turns}
    ratios["cost long/short"] = costs[long] / costs[brief]
    ratios["memory long/short"] = sizes[long] / sizes[brief]
    flat = all(abs(ratios[f"{what} long/short"] - 1) <= FLAT for what in ("cost", "memory"))
    report(
        "transports",
        figures,
        unit="spans per CPU-second",
        in_flight=IN_FLIGHT,
        seconds={"short": brief, "long": long},
        ratios=ratios,
        targets={
            **{f"wire/grpc {s}": ratios[f"wire/grpc {s}"] >= t for s, t in TARGETS.items()},
            "flat": flat,
        },
    )


if __name__ == "__main__":
    main()

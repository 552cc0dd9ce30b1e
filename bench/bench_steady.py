"""The cost of a steady load: the generator's share of a core, and how exact the rate is.

Each load is offered to the embedded sink; the share is CPU-seconds of the workers and their parent
over the time of the run. It is also given against what grpcio would take for as many requests.
Targets: 10,000 spans/s under 10 % of a core and within 0.1 % of the rate over 30 s.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from common import parse, report

RATE_ERROR = 0.001
LOADS = {
    # (rate, transport): most percent of a core
    (10_000, "grpc"): 10.0,
    (10_000, "wire"): 10.0,
    (100_000, "wire"): 5.0,
}


def offer(rate: int, transport: str, seconds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "blaster", "run", "--embedded", "--rate", str(rate)]
    command += ["--duration", f"{seconds}s", "--transport", transport, "--quiet", "--json", "-"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    results = json.loads(ran.stdout)
    return {
        "percent": results["generator"]["cpu_percent"]["avg"],
        "rate_error": abs(results["rate"]["achieved_spans_per_s"] / rate - 1),
        "lateness_p99_ms": results["lateness_ms"]["p99"],
    }


def main() -> None:
    short = parse(__doc__).short
    seconds, runs = (2, 1) if short else (30, 3)
    percent, errors, late, targets = {}, {}, {}, {}
    for (rate, transport), most in LOADS.items():
        name = f"{transport}_{rate}"
        ran = [offer(rate, transport, seconds) for _ in range(runs)]
        percent[name] = [one["percent"] for one in ran]
        errors[name] = max(one["rate_error"] for one in ran)
        late[name] = [one["lateness_p99_ms"] for one in ran]
        targets[name] = statistics.median(percent[name]) < most and errors[name] <= RATE_ERROR
    report(
        "steady",
        percent,
        unit="percent of a core",
        ratios={f"core/target {n}": statistics.median(p) / 100 for n, p in percent.items()},
        worst_rate_error=errors,
        lateness_p99_ms=late,
        targets=targets,
    )


if __name__ == "__main__":
    main()

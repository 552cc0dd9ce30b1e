"""How near the capacity search comes to what a sink of known capacity manages, and how fast.

For each capacity, refusing and queueing: the error of the no-drop rate and the seconds it took.
With ``--collector BINARY`` also the spread of three searches against a real Collector.
Targets: within 3 %, in under 3 minutes each; within 10 % over three searches of the Collector.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import parse, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

ERROR, SECONDS, REPEATABLE = 0.03, 180.0, 0.10
CAPACITIES = (2_000, 5_000, 20_000, 50_000, 150_000)


def search(*options: str, short: bool = False) -> dict[str, Any]:
    """The findings of one search."""
    command = [sys.executable, "-m", "blaster", "capacity", "--quiet", "--json", "-", *options]
    if short:
        command += ["--trial-duration", "1s", "--repeats", "1"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@contextmanager
def collector(binary: str) -> Iterator[str]:
    """Runs a Collector that throws away what it gets; gives its endpoint."""
    import peers

    with peers.collector(Path(binary), memory_limit_mib=200) as target:
        yield target.endpoint


def main() -> None:
    arguments = parse(__doc__, ("--collector", {"help": "the Collector's binary"}))
    short = arguments.short
    seconds: dict[str, list[float]] = {}
    errors: dict[str, float | None] = {}
    for capacity in CAPACITIES[2:3] if short else CAPACITIES:
        for overload in ("refuse", "queue"):
            name = f"{overload}_{capacity}"
            found = search(
                *("--embedded", "--sink-capacity", str(capacity), "--sink-overload", overload),
                short=short,
            )
            errors[name] = None if found["ndr"] is None else found["ndr"] / capacity - 1
            seconds[name] = [found["duration_s"]]
            print(f"{name}: error {errors[name]}, {found['duration_s']:.0f} s", file=sys.stderr)
    more: dict[str, Any] = {}
    if arguments.collector:
        rates = []
        for _ in range(3):
            with collector(arguments.collector) as endpoint:
                found = search("--endpoint", endpoint, "--batch", "200", "--min-rate", "20k")
                rates.append(found["pdr"])
        known = [rate for rate in rates if rate is not None]
        spread = (max(known) - min(known)) / statistics.median(known) if known else None
        more = {
            "collector_pdr": rates,
            "collector_spread": spread,
            "collector_repeatable": len(known) == 3 and spread is not None and spread <= REPEATABLE,
        }
    report(
        "capacity",
        seconds,
        unit="seconds",
        errors=errors,
        targets={
            name: error is not None and abs(error) <= ERROR and seconds[name][0] < SECONDS
            for name, error in errors.items()
        },
        **more,
    )


if __name__ == "__main__":
    main()

"""How near the capacity search comes to what a sink of known capacity manages, and how fast.

For each capacity, refusing and queueing: the error of the no-drop rate and the seconds it took.
Targets: within 3 %, in under 3 minutes each.

With ``--collector BINARY`` or ``--rotel BINARY`` instead: the partial-drop rates that three
searches of that peer find, each of a fresh process, and who was its limit. Target: all within 10 %
of their median, and the peer the limit of all. ``--apart`` gives it the last CPU and the generator
the others: rotel's rates were 29 % apart without it, and 4 % with it.
"""

from __future__ import annotations

import json
import os
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
SEARCHES = 3


def search(*options: str, short: bool = False, cpus: str | None = None) -> dict[str, Any]:
    """The findings of one search, on these CPUs."""
    command = [sys.executable, "-m", "blaster", "capacity", "--quiet", "--json", "-", *options]
    if short:
        command += ["--trial-duration", "1s", "--repeats", "1"]
    if cpus is not None:
        command = ["taskset", "-c", cpus, *command]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@contextmanager
def peer(name: str, binary: str) -> Iterator[Any]:
    """Runs a Collector that throws away what it gets, or rotel."""
    from support import peers

    run = {
        "collector": lambda: peers.collector(Path(binary), memory_limit_mib=200),
        "rotel": lambda: peers.rotel(Path(binary)),
    }
    with run[name]() as target:
        yield target


def repeated(name: str, binary: str, apart: bool, short: bool) -> None:
    """Searches of a real peer, and how far apart their findings are."""
    cpus = sorted(os.sched_getaffinity(0))
    ours = ",".join(map(str, cpus[:-1])) if apart else None
    found = []
    for _ in range(1 if short else SEARCHES):
        with peer(name, binary) as target:
            if apart:
                pin = ["taskset", "-apc", str(cpus[-1]), str(target.pid)]
                subprocess.run(pin, stdout=subprocess.DEVNULL, check=True)
            options = ["--endpoint", target.endpoint, "--watch", str(target.pid)]
            options += ["--batch", "200", "--min-rate", "20k", "--precision", "0.05"]
            options += ["--trial-duration", "1s", "--repeats", "5"]
            found.append(search(*options, short=short, cpus=ours))
        print({key: found[-1][key] for key in ("pdr", "limited_by", "reason")}, file=sys.stderr)
    rates = [one["pdr"] for one in found if one["pdr"]]
    spread = (max(rates) - min(rates)) / statistics.median(rates) if rates else None
    report(
        f"capacity of {name}",
        {"pdr": rates} if rates else {},
        unit="spans per second",
        apart=apart,
        limits=[{key: one[key] for key in ("limited_by", "reason", "duration_s")} for one in found],
        spread=spread,
        targets={
            "repeatable": len(rates) == len(found) and spread is not None and spread <= REPEATABLE,
            "the peer is the limit": all(one["limited_by"] == "target" for one in found),
        },
    )


def main() -> None:
    arguments = parse(
        __doc__,
        ("--collector", {"help": "the Collector's binary"}),
        ("--rotel", {"help": "rotel's binary"}),
        ("--apart", {"action": "store_true", "help": "a CPU for the peer alone"}),
    )
    short = arguments.short
    for name in ("collector", "rotel"):
        if binary := getattr(arguments, name):
            repeated(name, binary, arguments.apart, short)
    if arguments.collector or arguments.rotel:
        return
    seconds: dict[str, list[float]] = {}
    errors: dict[str, float | None] = {}
    for capacity in CAPACITIES[2:3] if short else CAPACITIES:
        for overload in ("queue",) if short else ("refuse", "queue"):
            name = f"{overload}_{capacity}"
            found = search(
                *("--embedded", "--sink-capacity", str(capacity), "--sink-overload", overload),
                short=short,
            )
            errors[name] = None if found["ndr"] is None else found["ndr"] / capacity - 1
            seconds[name] = [found["duration_s"]]
            print(f"{name}: error {errors[name]}, {found['duration_s']:.0f} s", file=sys.stderr)
    report(
        "capacity",
        seconds,
        unit="seconds",
        errors=errors,
        targets={
            name: error is not None and abs(error) <= ERROR and seconds[name][0] < SECONDS
            for name, error in errors.items()
        },
    )


if __name__ == "__main__":
    main()

"""Shared by all benchmarks: the environment, medians, the JSON at the end.

Run a benchmark as ``python bench/bench_NAME.py [--short]``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the tree's blaster, uninstalled

UNSTABLE = 0.15
"""A spread (quartile distance over median) above this is warned about."""


def parse(doc: str | None, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """The command line: --short, and ``more`` as (name, keywords of add_argument)."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="a quick look: fewer, shorter runs")
    for name, keywords in more:
        parser.add_argument(name, **keywords)
    return parser.parse_args()


def environment() -> dict[str, Any]:
    """Where the figures were taken."""
    return {
        "host": platform.node(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_1m": os.getloadavg()[0],
    }


def _cpu_model() -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            lines = [line for line in info if line.startswith("model name")]
    except OSError:
        return None
    return lines[0].partition(":")[2].strip() if lines else None


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all its threads, that ``work`` takes."""
    before = time.process_time()
    work()
    return time.process_time() - before


def interleaved(sides: dict[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Figures of each side, taken in turns so that a drift of the machine meets all sides alike."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, measure in sides.items():
            figures[name].append(measure())
    return figures


def summary(figures: list[float]) -> dict[str, Any]:
    """Median, spread (quartile distance over median) and the raw figures."""
    median = statistics.median(figures)
    quartiles = statistics.quantiles(figures, n=4) if len(figures) > 1 else [median] * 3
    return {
        "median": median,
        "spread": (quartiles[2] - quartiles[0]) / median,
        "raw": figures,
    }


def report(name: str, sides: dict[str, list[float]], **more: Any) -> dict[str, Any]:
    """Prints one JSON object with the environment and returns it; warns when it was unstable."""
    figures = {side: summary(values) for side, values in sides.items()}
    result = {"benchmark": name, "environment": environment(), "figures": figures, **more}
    print(json.dumps(result, indent=2))
    for side, value in figures.items():
        if value["spread"] > UNSTABLE:
            print(f"warning: {side} is unstable: spread {value['spread']:.0%}", file=sys.stderr)
    return result

"""Recovery: how long after a peak latency and the target's CPU are back where they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from blaster.engine.series import Point
from blaster.scenario.scenario import Scenario

STAYS = 3
"""So many points in a row within the band are a recovery."""

FACTOR, CPU_SLACK, LATENCY_SLACK_MS = 1.5, 5.0, 5.0
"""The band reaches to so many times the baseline, or so much above it (points of a percent; idle
processes' clocks tick in hundredths), or to nineteen twentieths of the baseline's own points:
whichever is more."""


class Back(msgspec.Struct):
    """One figure: its median before the peak, the end of its band, and how many seconds after the
    peak it came back to stay (None: not until the end)."""

    baseline: float
    limit: float
    recovered: bool
    seconds: float | None


class Recovery(msgspec.Struct):
    """After the last stage above the first and the last. A figure is None where it was not
    measured. Latency is the p99 of the response times, in milliseconds."""

    peak_end_s: float
    latency_ms: Back | None
    target_cpu_percent: Back | None


def recovery(series: Sequence[Point], scenario: Scenario, warmup_ns: int) -> Recovery | None:
    """None for a scenario without a peak."""
    if not scenario.has_peak:
        return None
    ends = np.cumsum([stage.duration_ns for stage in scenario.stages]) / 1e9
    rates = [(stage.start_rate or 0, stage.end_rate or 0) for stage in scenario.stages]
    rest = max(*rates[0], *rates[-1])
    last_peak = max(i for i in range(1, len(rates) - 1) if max(rates[i]) > rest)
    baseline = (warmup_ns / 1e9, float(ends[0]))
    peak_end = float(ends[last_peak])
    return Recovery(
        peak_end,
        _back(series, baseline, peak_end, lambda p: p.p99_ms, LATENCY_SLACK_MS),
        _back(series, baseline, peak_end, lambda p: p.target_cpu, CPU_SLACK),
    )


def _back(
    series: Sequence[Point],
    baseline: tuple[float, float],
    peak_end: float,
    figure: Callable[[Point], float | None],
    slack: float,
) -> Back | None:
    begun = [0.0, *(point.t for point in series)]
    values = [
        (begin, point.t, value)
        for begin, point in zip(begun, series, strict=False)
        if (value := figure(point)) is not None
    ]
    before = [v for begin, end, v in values if begin >= baseline[0] - 0.1 and end <= baseline[1]]
    after = [(begin, v) for begin, end, v in values if end > peak_end + 0.1]
    if not before or not after:
        return None
    level = float(np.median(before))
    limit = max(level * FACTOR, level + slack, float(np.quantile(before, 0.95)))
    inside = [value <= limit for _, value in after]
    wanted = min(STAYS, len(inside))
    for place, (begin, _) in enumerate(after):
        if place + wanted <= len(inside) and all(inside[place : place + wanted]):
            seconds = round(max(0.0, begin - peak_end), 3)
            return Back(round(level, 3), round(limit, 3), True, seconds)
    return Back(round(level, 3), round(limit, 3), False, None)

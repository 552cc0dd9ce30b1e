"""Whether a run was steady, and whether somebody's memory leaks: judged on the series."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from blaster.engine.series import Point
from blaster.measure.trend import LEAST, Trend, trend_of
from blaster.scenario.scenario import Scenario

TOLERANCE = 0.1
"""A sure trend that moves its figure by less than this share of it over the stage is no matter."""

LEAK_GROWTH = 0.02
LEAK_BYTES = 1 << 20
"""Memory that grows by less than the larger of these over the run is not called a leak."""

LEAST_LEAK_S = 300.0
"""What grows for less than five minutes may be a cache that fills."""


class Steady(msgspec.Struct):
    """Whether the stage looked at was steady, and the trends that say so.

    ``from_s`` to ``to_s``: the longest stage of one rate, less the warm-up. ``steady`` is None
    where it has too few points to tell; then, and for what was not measured, a trend is None.
    Latency is the mean response time in milliseconds; memory the target's, in bytes.
    """

    steady: bool | None
    reason: str
    from_s: float
    to_s: float
    in_flight: Trend | None
    latency_ms: Trend | None
    target_rss_bytes: Trend | None


class Leak(msgspec.Struct):
    """Whether memory grew all along: its trend, and the medians of the first and last third.

    ``leaking``: whether the whole interval of the trend (95 %) is a growth that is a leak; None
    where only a part of it is, or where there are too few points to tell.
    """

    leaking: bool | None
    reason: str
    trend: Trend | None
    first_third_bytes: float | None
    last_third_bytes: float | None


class Leaks(msgspec.Struct):
    """Of the target (None: not watched) and of blaster's own workers."""

    target: Leak | None
    generator: Leak


def steadiness(series: Sequence[Point], scenario: Scenario, warmup_ns: int | None) -> Steady:
    """The verdict on the scenario's longest stage of one rate; ``warmup_ns`` None: sought and not
    found, which denies it."""
    begin, end = _longest(scenario, warmup_ns or 0)
    # The point that begins before the stage does is not the stage's.
    begun = [0.0, *(point.t for point in series)]
    points = [p for p, t in zip(series, begun, strict=False) if t >= begin - 0.05 and p.t <= end]
    looked = {
        "requests in flight": _trend(points, lambda p: p.in_flight),
        "latency": _trend(points, lambda p: p.mean_ms),
        "target memory": _trend(points, lambda p: p.target_rss),
    }
    moved = [f"{name} {_moves(t)}" for name, t in looked.items() if t is not None and _drifts(t)]
    verdict: bool | None
    if begin >= end:
        verdict, reason = None, "no stage has one rate throughout"
    elif warmup_ns is None:
        verdict, reason = False, "no end of the warm-up was found"
    elif moved:
        verdict, reason = False, "; ".join(moved)
    elif not any(looked.values()):
        verdict, reason = None, f"fewer than {LEAST} points to tell by"
    else:
        verdict, reason = True, "no figure drifts"
    return Steady(
        verdict,
        reason,
        round(begin, 3),
        round(end, 3),
        looked["requests in flight"],
        looked["latency"],
        looked["target memory"],
    )


def leaks(series: Sequence[Point], warmup_ns: int, *, watched: bool) -> Leaks:
    """The verdict on the memory of the target and our own, from the warm-up's end on."""
    points = [point for point in series if point.t * 1e9 > warmup_ns]
    target = leak(points, lambda p: p.target_rss) if watched else None
    return Leaks(target, leak(points, lambda p: p.generator_rss or None))


def leak(series: Sequence[Point], rss: Callable[[Point], float | None]) -> Leak:
    """The verdict on the memory that ``rss`` takes from each point."""
    values = [value for value in map(rss, series) if value is not None]
    trend = _trend(series, rss)
    if trend is None or series[-1].t - series[0].t < LEAST_LEAK_S:
        wanted = f"less than {LEAST_LEAK_S / 60:.0f} minutes to tell by"
        return Leak(None, wanted, trend, None, None)
    third = len(values) // 3
    first, last = float(np.median(values[:third])), float(np.median(values[-third:]))
    seconds = series[-1].t - series[0].t
    allowed = max(LEAK_BYTES, LEAK_GROWTH * first)
    leaking: bool | None = None
    if trend.low * seconds > allowed:
        leaking = True
    elif trend.high * seconds <= allowed:
        leaking = False
    reason = (
        f"{trend.slope_per_s * 3600 / 1e6:+.2f} MB/h "
        f"({trend.low * 3600 / 1e6:+.2f} to {trend.high * 3600 / 1e6:+.2f} at 95 %), "
        f"{first / 1e6:.1f} MB in the first third, {last / 1e6:.1f} MB in the last"
    )
    if leaking is None:
        reason += f"; not sure: a growth of {allowed / 1e6:.1f} MB over the run is no leak"
    return Leak(leaking, reason, trend, first, last)


def _longest(scenario: Scenario, warmup_ns: int) -> tuple[float, float]:
    """Begin and end in seconds of the longest stage of one rate, less the warm-up."""
    best, at = (0.0, 0.0), 0
    for stage in scenario.stages:
        begin, at = max(at, warmup_ns), at + stage.duration_ns
        if stage.is_steady and at - begin > (best[1] - best[0]) * 1e9:
            best = (begin / 1e9, at / 1e9)
    # The last point of a stage comes up to an interval late, and is then not the stage's.
    return best[0], best[1] + 0.1


def _trend(points: Sequence[Point], figure: Callable[[Point], float | None]) -> Trend | None:
    known = [(p.t, value) for p in points if (value := figure(p)) is not None]
    t, y = np.array(known, np.float64).reshape(-1, 2).T
    return trend_of(t, y)


def _drifts(trend: Trend) -> bool:
    return trend.is_sure and abs(trend.change) > TOLERANCE * abs(trend.level)


def _moves(trend: Trend) -> str:
    share = f"{trend.change / trend.level:+.0%}" if trend.level else f"{trend.change:+.3g}"
    return f"drifts by {share} over the stage (p {trend.p:.2g})"

"""Comparison of results: the figures that differ, with what confidence, and the regressions.

If both sides have repeats, the difference of their means is judged by Welch's t-test (B. L.
Welch, "The generalization of 'Student's' problem when several different population variances are
involved", Biometrika 34, 1947), which does not assume equal variances; its interval has 95 %
confidence. Without repeats the noise is unknown, and the threshold alone decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from blaster.engine.results import Results
from blaster.verdict.capacity import Capacity
from blaster.verdict.thresholds import value_at

P_VALUE = 0.05
MAX_REGRESSION = 0.1
"""The default share by which a figure may be worse."""

WORSE, BETTER, SAME, UNSURE, SHOWN = "worse", "better", "same", "unsure", ""
"""The judgements. UNSURE: beyond the threshold, but within the variation of the repeats; SHOWN:
the figure is not judged."""

Found = Results | Capacity


@dataclass(frozen=True)
class Figure:
    """A figure to compare. ``sign``: 1 if more is better, -1 if less is, 0 if it is only shown.
    ``slack``: absolute differences up to this are ignored."""

    name: str
    unit: str
    sign: int
    slack: float = 0.0
    of: Callable[[Found], float | None] | None = None

    def value(self, found: Found) -> float | None:
        """The figure of one run; None if it was not measured."""
        return value_at(found, self.name) if self.of is None else self.of(found)


def _lost(found: Found) -> float | None:
    assert isinstance(found, Results)
    spans = found.spans
    return 1 - spans.accepted / spans.scheduled if spans.scheduled else None


RUN_FIGURES = (
    Figure("rate.accepted_spans_per_s", "/s", 1),
    Figure("lost_share", "", -1, of=_lost),
    *(Figure(f"latency_ms.response.{p}", "ms", -1, 0.1) for p in ("p50", "p90", "p99", "p999")),
    Figure("latency_ms.response.max", "ms", 0),
    Figure("violations.detection_rate", "", 1),
    Figure("target.cpu_percent.avg", "%", -1, 1.0),
    Figure("target.rss_bytes.peak", "B", -1),
)

CAPACITY_FIGURES = (
    Figure("ndr", "/s", 1),
    Figure("pdr", "/s", 1),
    Figure("within_thresholds", "/s", 1),
    Figure("overload.share", "", 1),
    Figure("overload.recovery_s", "s", -1, 0.2),
    Figure("generator_spans_per_s", "/s", 0),
)


def figures(found: Found) -> tuple[Figure, ...]:
    """The figures to compare in results of this kind."""
    return RUN_FIGURES if isinstance(found, Results) else CAPACITY_FIGURES


class Difference(msgspec.Struct, frozen=True):
    """One figure on both sides: the means, and the number of runs averaged. ``change``: relative to
    ``before`` (None if that is 0). ``low`` and ``high``: the confidence interval of the difference,
    ``p``: the p-value; None without repeats."""

    figure: str
    unit: str
    before: float | None
    after: float | None
    repeats: tuple[int, int]
    change: float | None
    low: float | None
    high: float | None
    p: float | None
    judgement: str


class Comparison(msgspec.Struct, frozen=True):
    """The differences between two results, or two sets of repeats. ``unlike``: differing settings,
    which may make the figures incomparable."""

    before: str
    after: str
    differences: list[Difference]
    unlike: list[str]

    @property
    def regressed(self) -> bool:
        """Whether any figure is worse."""
        return any(difference.judgement == WORSE for difference in self.differences)


def compare(
    before: tuple[str, Sequence[Found]],
    after: tuple[str, Sequence[Found]],
    limits: Mapping[str, float] | None = None,
    limit: float = MAX_REGRESSION,
) -> Comparison:
    """Compare two sets of results of one kind, each with its name. ``limits``: by figure, instead
    of ``limit``; shares."""
    differences = []
    for figure in figures(before[1][0]):
        values = [
            [value for found in side if (value := figure.value(found)) is not None]
            for side in (before[1], after[1])
        ]
        if values[0] or values[1]:
            most = (limits or {}).get(figure.name, limit)
            differences.append(_difference(figure, values[0], values[1], most))
    return Comparison(before[0], after[0], differences, _unlike(before[1][0], after[1][0]))


def _difference(
    figure: Figure, before: Sequence[float], after: Sequence[float], limit: float
) -> Difference:
    repeats = len(before), len(after)
    old, new = (float(np.mean(side)) if side else None for side in (before, after))
    if old is None or new is None:
        return Difference(
            figure.name, figure.unit, old, new, repeats, None, None, None, None, SHOWN
        )
    change = (new - old) / old if old else None
    low = high = p = None
    if min(repeats) > 1:
        low, high, p = welch(before, after)
    return Difference(
        figure.name,
        figure.unit,
        old,
        new,
        repeats,
        change,
        low,
        high,
        p,
        _judgement(figure, old, new, p, limit),
    )


def _judgement(figure: Figure, old: float, new: float, p: float | None, limit: float) -> str:
    if not figure.sign:
        return SHOWN
    gain = (new - old) * figure.sign
    if abs(gain) <= max(figure.slack, limit * abs(old)):
        return SAME
    if p is not None and p >= P_VALUE:
        return UNSURE
    return BETTER if gain > 0 else WORSE


def welch(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """The interval of ``after`` less ``before`` with 95 % confidence, and the two-sided p-value.

    Degrees of freedom by Welch's and Satterthwaite's equation. At least two values on each side.
    """
    a, b = np.asarray(before, float), np.asarray(after, float)
    difference = float(b.mean() - a.mean())
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    error = math.sqrt(sum(parts))
    if error == 0:
        return difference, difference, 1.0 if difference == 0 else 0.0
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    reach = t_quantile(P_VALUE, freedom) * error
    return difference - reach, difference + reach, t_tails(difference / error, freedom)


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def t_tails(t: float, freedom: float) -> float:
    """The probability that Student's t with ``freedom`` degrees (at least 1) lies beyond ±|t|.

    With t = √ν tan θ the density is proportional to cos^(ν-1) θ, over a finite interval.
    """

    def integral(begin: float, end: float) -> float:
        theta = (end - begin) / 2 * _NODES + (end + begin) / 2
        return float((end - begin) / 2 * np.dot(_WEIGHTS, np.cos(theta) ** (freedom - 1)))

    edge = math.atan(abs(t) / math.sqrt(freedom))
    # With a large ν the density is narrow: twelve of its widths hold all of it.
    end = min(math.pi / 2, max(12 / math.sqrt(freedom), 2 * edge))
    return min(1.0, integral(edge, end) / integral(0.0, end))


def t_quantile(tails: float, freedom: float) -> float:
    """The t beyond which, on both sides, Student's t lies with the probability ``tails``."""
    low, high = 0.0, 1.0
    while t_tails(high, freedom) > tails:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, freedom) > tails else (low, middle)
    return high


def _unlike(before: Found, after: Found) -> list[str]:
    if isinstance(before, Results) and isinstance(after, Results):
        pairs = [
            ("scenario", before.scenario, after.scenario),
            ("CPUs", before.host.cpus, after.host.cpus),
            ("kernel", before.host.kernel, after.host.kernel),
        ]
        pairs += [
            (name.replace("_", " "), getattr(before.configuration, name), value)
            for name, value in msgspec.structs.asdict(after.configuration).items()
            if name != "endpoint"
        ]
    elif isinstance(before, Capacity) and isinstance(after, Capacity):
        pairs = [
            ("spans in a request", before.batch, after.batch),
            ("loss ratio", before.loss_ratio, after.loss_ratio),
        ]
    else:
        pairs = []
    return [f"{name}: {old} before, {new} after" for name, old, new in pairs if old != new]

"""Trends: whether a series rises or falls, how fast, and how sure that is.

The test is Mann's and Kendall's (Mann 1945, "Nonparametric tests against trend"; Kendall 1975,
"Rank correlation methods"), its variance corrected for ties and, since one second's figure
resembles the next one's, for autocorrelation as Hamed and Rao do (1998, "A modified Mann-Kendall
trend test for autocorrelated data"). The slope is the median of the slopes of all pairs, its
interval the one of Sen (1968, "Estimates of the regression coefficient based on Kendall's tau").
Neither minds outliers or supposes a normal distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]

LEAST = 10
"""Fewer points than these say nothing."""

MOST = 400
"""More points than these are averaged first."""

P_VALUE = 0.05
_Z = 1.959964  # the normal distribution's quantile for 95 %, two-sided


@dataclass(frozen=True, slots=True)
class Trend:
    """A slope per second with its interval of 95 % confidence. ``p``: how likely a series without
    a trend is to show one as clear, two-sided; ``change``: slope times the time looked at;
    ``level``: the series' median."""

    slope_per_s: float
    low: float
    high: float
    p: float
    change: float
    level: float

    @property
    def is_sure(self) -> bool:
        """Whether there is a trend at 95 % confidence."""
        return self.p < P_VALUE


def trend_of(t: Float, y: Float) -> Trend | None:
    """The trend of ``y`` at the ascending times ``t``; None for fewer than LEAST points."""
    if len(y) < LEAST:
        return None
    t, y = thinned(t), thinned(y)
    score, variance = mann_kendall(y)
    slopes = pair_slopes(t, y)
    slope = float(np.median(slopes))
    variance *= correction(y - slope * t)
    reach = _Z * math.sqrt(variance)
    # Sen 1968: the interval ends at the slopes of rank (N - C)/2 and (N + C)/2 + 1.
    below = max(0, round((len(slopes) - reach) / 2) - 1)
    above = min(len(slopes) - 1, round((len(slopes) + reach) / 2))
    return Trend(
        slope_per_s=slope,
        low=float(slopes[below]),
        high=float(slopes[above]),
        p=p_value(score, variance),
        change=slope * float(t[-1] - t[0]),
        level=float(np.median(y)),
    )


def thinned(values: Float) -> Float:
    """At most MOST means of as many neighbours each; what is left over at the beginning is lost."""
    size = -(-len(values) // MOST)
    whole = len(values) // size
    means: Float = values[len(values) - whole * size :].reshape(whole, size).mean(axis=1)
    return means


def mann_kendall(y: Float) -> tuple[int, float]:
    """Kendall's score S (pairs that rise less pairs that fall), and its variance without trend."""
    n = len(y)
    rise = np.sign(y[None, :] - y[:, None])
    score = int(np.triu(rise, 1).sum())
    ties = np.unique(y, return_counts=True)[1].astype(float)
    spread = n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())
    return score, spread / 18


def p_value(score: float, variance: float) -> float:
    """Two-sided, by the normal approximation with its correction for continuity."""
    if variance <= 0 or score == 0:
        return 1.0
    z = (abs(score) - 1) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def pair_slopes(t: Float, y: Float) -> Float:
    """The slopes of all pairs of points, ascending."""
    first, second = np.triu_indices(len(y), 1)
    slopes: Float = np.sort((y[second] - y[first]) / (t[second] - t[first]))
    return slopes


def correction(residuals: Float) -> float:
    """By how much autocorrelation widens the variance (Hamed and Rao 1998, equation 6), at least 1.

    Of the ranks' autocorrelations, those count that are significant, up to the first that is not.
    """
    n = len(residuals)
    ranks = np.argsort(np.argsort(residuals, kind="stable")).astype(float)
    ranks -= ranks.mean()
    power = float((ranks**2).sum())
    if power == 0 or np.ptp(residuals) == 0:
        return 1.0
    total = 0.0
    for lag in range(1, n - 2):
        rho = float((ranks[lag:] * ranks[:-lag]).sum()) / power
        if abs(rho) <= _Z / math.sqrt(n):
            break
        total += (n - lag) * (n - lag - 1) * (n - lag - 2) * rho
    return max(1.0, 1 + 2 * total / (n * (n - 1) * (n - 2)))

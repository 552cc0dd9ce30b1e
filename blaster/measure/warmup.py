"""Where a warm-up ends: MSER-5.

White 1997, "An effective truncation heuristic for bias reduction in simulation output" (Simulation
69:323–334), on the means of batches of 5 as in White, Cobb and Spratt 2000, "A comparison of five
steady-state truncation heuristics for simulation": of all truncations take the one that leaves the
mean of the rest the smallest standard error.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BATCH = 5
LEAST_LEFT = 5
"""Batches that every truncation leaves: of fewer a small error is chance."""


def mser(values: npt.NDArray[np.float64]) -> int | None:
    """The truncation d of least Σ(y - mean)² / (n - d)², both over the n - d values after it.

    None where it would leave less than half, as White advises: the series has not settled.
    """
    n = len(values)
    if n < 2 * LEAST_LEFT:
        return None
    left = np.arange(n, 0, -1, dtype=np.float64)
    # Sums over the values from d on; from the overall mean, so that squares do not cancel.
    centred = values - values.mean()
    sums = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum((centred**2)[::-1])[::-1]
    errors = np.maximum(squares - sums**2 / left, 0.0) / left**2
    best = int(np.argmin(errors[: n - LEAST_LEFT + 1]))
    return best if best <= n // 2 else None


def mser5(values: npt.NDArray[np.float64]) -> int | None:
    """How many values, a multiple of 5, :func:`mser` takes off their batches' means."""
    whole = len(values) // BATCH * BATCH
    best = mser(values[:whole].reshape(-1, BATCH).mean(axis=1))
    return None if best is None else best * BATCH

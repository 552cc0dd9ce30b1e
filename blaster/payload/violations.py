"""The violations that are injected, and which trace carries which.

Trace n violates when the share of violations among the first n + 1 traces calls for one more:
floor((n + 1)·rate) > floor(n·rate). The share is so met exactly over any run, evenly mixed, and
known for every trace without counting. The violating traces take the kinds in turn.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from blaster.sink.rules import RULES

SLOW, ERROR, MISSING_AUTH = 1, 2, 3
"""The kinds, as numbers of a template's variants; 0 is a trace that violates nothing. Kind k breaks
the rule RULES[k - 1] and no other."""

MAX_DENOMINATOR = 1_000_000

Kinds = npt.NDArray[np.uint8]


class Quota:
    """Which kind of violation each trace carries, for a rate (the share of traces) of 0 to 1."""

    def __init__(self, rate: Fraction) -> None:
        rate = rate.limit_denominator(MAX_DENOMINATOR)
        share, of = rate.numerator, rate.denominator
        # The pattern repeats when both the share and the turn of the kinds come round.
        index = np.arange(of * len(RULES), dtype=np.int64)
        before = index * share // of
        violates = (index + 1) * share // of > before
        self._pattern = np.where(violates, 1 + before % len(RULES), 0).astype(np.uint8)
        self._tiled = self._pattern
        self._before = np.zeros((len(RULES) + 1, len(index) + 1), np.int64)
        for kind in range(1, len(RULES) + 1):
            np.cumsum(self._pattern == kind, out=self._before[kind, 1:])

    def kinds(self, first: npt.NDArray[np.int64], per_batch: int) -> Kinds:
        """The kinds (uint8) of ``per_batch`` traces from each ``first[i]`` on, batch by batch."""
        period = len(self._pattern)
        if len(self._tiled) < period + per_batch:
            self._tiled = np.resize(self._pattern, period + per_batch)
        windows = np.lib.stride_tricks.sliding_window_view(self._tiled, per_batch)
        return windows[first % period].reshape(-1)

    def count(
        self, first: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """How many of each kind (int64, by the kinds' order) those traces carry in all."""
        period = len(self._pattern)
        upto = self._up_to(first + counts, period) - self._up_to(first, period)
        counted: npt.NDArray[np.int64] = upto[1:].sum(axis=1)
        return counted

    def _up_to(self, n: npt.NDArray[np.int64], period: int) -> npt.NDArray[np.int64]:
        whole, rest = np.divmod(n, period)
        return self._before[:, -1:] * whole + self._before[:, rest]

"""Duration: how long something takes, as a distribution given by its quantiles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["constant", "uniform", "normal", "lognormal", "exponential"]

MAX_NS = 3_600_000_000_000
"""No span takes longer: an hour."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A distribution of nanoseconds; none is below 0 or above MAX_NS.

    ``constant``: ``first``. ``uniform``: from ``first`` to ``second``. ``normal``: mean ``first``,
    standard deviation ``second``. ``lognormal``: median ``first``, the logarithm's standard
    deviation ``second``. ``exponential``: mean ``first``.
    """

    kind: Kind
    first: float
    second: float = 0.0

    def quantiles(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What shares (0 < share < 1) of all are not above."""
        if self.kind == "constant":
            values = np.full(len(shares), self.first)
        elif self.kind == "uniform":
            values = self.first + (self.second - self.first) * shares
        elif self.kind == "exponential":
            values = -self.first * np.log1p(-shares)
        else:
            inverse = NormalDist().inv_cdf
            z = np.array([inverse(share) for share in shares.tolist()])
            if self.kind == "normal":
                values = self.first + self.second * z
            else:
                values = np.exp(math.log(self.first) + self.second * z)
        clipped: npt.NDArray[np.float64] = np.clip(values, 0, MAX_NS)
        return clipped

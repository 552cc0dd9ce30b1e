"""Tail-sampling policies, as their owner states them: "keep errors, keep > 1000 ms, else 10 %".

What a sampler should let through of a run is known trace by trace but for the share, of which
traces are taken at random: their spans' number then has a mean and a variance, and lies within an
interval with 99.9 % confidence (normal approximation, exact where nothing is left to chance).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blaster.units import parse_duration

_Z = 3.2905
"""The standard normal distribution's two-sided 99.9 %."""

_LONGEST = 200
_WANTED = (
    "must be rules separated by commas, of keep errors, keep > TIME and, at the end, else SHARE %: "
    "such as 'keep errors, keep > 1000 ms, else 10 %'"
)


@dataclass(frozen=True, slots=True)
class SamplingPolicy:
    """``errors``: traces with a span in error are kept; ``longer_ns``: so are those that took
    longer (None: none for that); ``share``: of the others, by chance."""

    errors: bool = False
    longer_ns: int | None = None
    share: float = 0.0

    def expected(
        self,
        traces: npt.NDArray[np.int64],
        spans: npt.NDArray[np.int64],
        failed: npt.NDArray[np.bool_],
        took_ns: npt.NDArray[np.int64],
    ) -> tuple[int, int, int]:
        """The least, the expected and the most spans that are kept, of ``traces[i]`` traces that
        each have ``spans[i]`` spans, are in error or not, and took so long."""
        kept = np.zeros(len(traces), np.bool_)
        if self.errors:
            kept |= failed
        if self.longer_ns is not None:
            kept |= took_ns > self.longer_ns
        sure = int((traces * spans)[kept].sum())
        chance = (traces * spans)[~kept].sum() * self.share
        variance = (traces * spans**2)[~kept].sum() * self.share * (1 - self.share)
        margin = _Z * math.sqrt(float(variance))
        total = int((traces * spans).sum())
        least = max(sure, math.floor(sure + chance - margin))
        most = min(total, math.ceil(sure + chance + margin))
        return least, round(sure + chance), most


def parse_policy(text: str) -> SamplingPolicy:
    """The policy that a text states. ValueError says what would be right."""
    if len(text) > _LONGEST:
        raise ValueError(_WANTED)
    errors, longer, share = False, None, 0.0
    rules = [" ".join(rule.lower().split()) for rule in text.split(",")]
    for number, rule in enumerate(rules):
        if rule in ("keep errors", "keep error"):
            errors = True
        elif match := re.fullmatch(r"keep >\s*([0-9.]+ ?(?:ns|us|µs|ms|s|m)?)", rule):
            longer = parse_duration(match[1].replace(" ", ""))
        elif match := re.fullmatch(r"(?:else )?([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%", rule):
            share = float(match[1]) / 100
            if share > 1 or number != len(rules) - 1:
                raise ValueError(_WANTED)
        elif rule in ("else none", "else drop") and number == len(rules) - 1:
            share = 0.0
        else:
            raise ValueError(_WANTED)
    return SamplingPolicy(errors, longer, share)

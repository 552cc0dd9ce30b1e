"""Tail-sampling policies, as their owner states them: "keep errors, keep > 1000 ms, else 10 %".

Which traces a sampler should keep is certain, except for a share of the rest, which it keeps at
random. The number of spans kept then has a mean and a variance, and an interval with 99.9 %
confidence (normal approximation; exact if nothing is left to chance).
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
    """A policy. ``errors``: keep traces with a span in error; ``longer_ns``: keep those that took
    longer (None: no such rule); ``share``: of the others, kept at random."""

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
        """The least, expected and greatest number of spans kept of ``traces[i]`` traces, each of
        ``spans[i]`` spans, in error if ``failed[i]``, and ``took_ns[i]`` long (all of shape n)."""
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
    """Parse a policy. The ValueError says what would be right."""
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

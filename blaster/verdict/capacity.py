"""Goals and findings of a search for a target's ceiling (the search: blaster.verdict.search)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from blaster.engine.results import Spans
from blaster.verdict import usl
from blaster.verdict.limit import GENERATOR, NOBODY
from blaster.verdict.trial import Trial


@dataclass(frozen=True, slots=True)
class Goals:
    """Goals of a search. Rates in spans per second; ``precision``: the relative width of the last
    interval; ``batch``: None: chosen by the rate. ``repeats`` is odd: the majority decides.
    ``lower``: a target that cannot take ``min_rate`` gets less, down to one request a second."""

    min_rate: float = 1000.0
    lower: bool = True
    max_rate: float = 1e9
    loss_ratio: float = 0.001
    precision: float = 0.01
    trial_s: float = 2.0
    repeats: int = 3
    batch: int | None = None
    thresholds: bool = False
    limit_s: float = 150.0


class Ceiling(msgspec.Struct, frozen=True):
    """The generator's own ceiling, measured against the null sink at two batch sizes, in spans per
    second.

    A request costs a + b × spans, which gives the ceiling at any batch size.
    """

    small_batch: int
    small_rate: float
    large_batch: int
    large_rate: float

    def at(self, batch: int) -> float:
        """The ceiling in spans per second with ``batch`` spans in a request."""
        small, large = self.small_batch / self.small_rate, self.large_batch / self.large_rate
        per_span = max((large - small) / (self.large_batch - self.small_batch), 0.0)
        per_request = max(small - per_span * self.small_batch, 0.0)
        return batch / max(per_request + per_span * batch, 1e-12)


class Overload(msgspec.Struct, frozen=True):
    """An overload at twice the ceiling, and the recovery. ``share``: the rate accepted in time over
    the ceiling; well below 1 is a collapse. ``recovery_s``: until latency was back in its band and
    nothing was lost any more; None: not within ``watched_s``. ``spans``: the ledger of both."""

    offered_spans_per_s: float
    accepted_spans_per_s: float
    share: float
    collapsed: bool
    recovery_s: float | None
    watched_s: float
    spans: Spans


class Capacity(msgspec.Struct, kw_only=True):
    """The findings. ``ndr``, ``pdr``: the no-drop and the partial-drop rate, in spans per second;
    None if the generator, not the target, was the limit. ``ndr_at_least``: then, and if the highest
    rate asked for came through, the highest rate without a loss. ``ndr`` is 0 if every rate lost
    spans: ``ndr_below`` is the lowest of them.
    ``within_thresholds``: the highest rate at which nothing was dropped and the user's thresholds
    held; None without thresholds."""

    schema: int = 1
    ndr: float | None = None
    pdr: float | None = None
    ndr_at_least: float | None = None
    ndr_below: float | None = None
    loss_ratio: float = 0.0
    within_thresholds: float | None = None
    limited_by: str = NOBODY
    reason: str = ""
    batch: int = 0
    generator_spans_per_s: float | None = None
    ceiling: Ceiling | None = None
    overload: Overload | None = None
    usl: usl.Usl | None = None
    trials: list[Trial] = []
    duration_s: float = 0.0


def fit_law(trials: Sequence[Trial]) -> usl.Usl | None:
    """Fit the Universal Scalability Law to the loads offered and the rates accepted in time.

    N is the load in units of the lightest trial's: a trial has no fixed concurrency, and a target
    that refuses at once never has many requests in flight, however overloaded it is.
    """
    used = [t for t in trials if t.limited_by != GENERATOR]
    if not used:
        return None
    unit = min(t.load_spans_per_s for t in used)
    loads = [t.load_spans_per_s / unit for t in used]
    return usl.fit(loads, [t.accepted_spans_per_s for t in used])

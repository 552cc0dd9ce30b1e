"""Scenario, Stage, Workload, Criteria: what the user asks for, checked and immutable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

import msgspec
from msgspec.structs import replace

from blaster.units import (
    MAX_RATE,
    format_duration,
    format_rate,
    parse_count,
    parse_duration,
    parse_rate,
    quoted,
)

MAX_STAGES = 1000
MAX_SPANS_PER_TRACE = 10_000
MAX_BATCH = 1_000_000

RAMP_WANTED = "a ramp must go from one whole number to another, not both 0, such as 100..10k"

_STAGE = re.compile(r"\s*(?P<rate>[^@]+?)\s*@\s*(?P<duration>[^@]+?)\s*")


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stretch of ``duration_ns`` with the rate in a line from ``start_rate`` to ``end_rate``.

    Rates in spans per second. Equal: steady; both None: max, as fast as the in-flight cap allows.
    ValueError for what cannot be a stage.
    """

    duration_ns: int
    start_rate: int | None
    end_rate: int | None

    def __post_init__(self) -> None:
        if self.duration_ns <= 0:
            raise ValueError("a stage must last longer than 0")
        if self.start_rate is None or self.end_rate is None:
            if self.start_rate is not self.end_rate:
                raise ValueError("a ramp cannot start or end at max")
            return
        if not (0 <= self.start_rate <= MAX_RATE and 0 <= self.end_rate <= MAX_RATE):
            raise ValueError(f"rates must be from 0 to {format_rate(MAX_RATE)}")
        if self.start_rate == self.end_rate == 0:
            raise ValueError("a stage must have a rate above 0 at its start or its end")

    @property
    def is_max(self) -> bool:
        """Whether the stage is a closed loop, without a target rate."""
        return self.start_rate is None

    def __str__(self) -> str:
        rate = format_rate(self.end_rate)
        if self.start_rate != self.end_rate:
            rate = f"{self.start_rate:,} to {rate}"
        return f"{rate} for {format_duration(self.duration_ns)}"


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the traces are like.

    ``name``: one that comes with blaster, or a TOML file. ``layout``: which requests hold which
    spans: sdk, gateway or scattered; None: by the workload. ``violation_rate``: the share of
    traces with a violation, 0 to 1, exactly as the user wrote it. ``spans_per_trace``: for flat.
    """

    name: str = "flat"
    layout: str | None = None
    violation_rate: Fraction = Fraction(1, 10)
    spans_per_trace: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.violation_rate <= 1:
            raise ValueError("violation_rate must be from 0 to 1")
        if not 1 <= self.spans_per_trace <= MAX_SPANS_PER_TRACE:
            raise ValueError(f"spans_per_trace must be from 1 to {MAX_SPANS_PER_TRACE:,}")


class Criteria(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the run has passed; None or False: not asked.

    ``detection_rate_min``: detected / injected violations must be above it.
    ``target_cpu_percent_max``: the target's average CPU, percent of one core, must be below it.
    ``target_rss_bytes_max``: the target's peak memory must be below it.
    ``no_errors``: no request ended in an error.
    ``none_dropped``: every scheduled span was accepted.
    ``cpu_recovers``: the target's CPU in the last stage is back to that of the first.
    """

    detection_rate_min: float | None = None
    target_cpu_percent_max: float | None = None
    target_rss_bytes_max: int | None = None
    no_errors: bool = False
    none_dropped: bool = False
    cpu_recovers: bool = False


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to offer and when it has passed. ValueError for what cannot be run.

    ``batch``: spans per request; None: the engine chooses. ``seed``: None: drawn for each run.
    """

    name: str
    stages: tuple[Stage, ...]
    description: str = ""
    workload: Workload = Workload()
    criteria: Criteria = Criteria()
    batch: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.stages) <= MAX_STAGES:
            raise ValueError(f"a scenario must have from 1 to {MAX_STAGES:,} stages")
        if len(self.stages) > 1 and any(stage.is_max for stage in self.stages):
            raise ValueError("max must be the only stage: give the others' rates as numbers")
        if self.batch is not None and not 1 <= self.batch <= MAX_BATCH:
            raise ValueError(f"batch must be from 1 to {MAX_BATCH:,} spans per request")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError("seed must be from 0 to 2^63 - 1")
        if self.criteria.cpu_recovers and not _have_peak(self.stages):
            raise ValueError(
                "cpu_recovers needs a stage between the first and the last with a higher rate"
            )

    @property
    def duration_ns(self) -> int:
        """How long all stages last together."""
        return sum(stage.duration_ns for stage in self.stages)

    @property
    def is_max(self) -> bool:
        """Whether the run is a closed loop, without a target rate."""
        return self.stages[0].is_max

    @property
    def peak_rate(self) -> int | None:
        """The highest rate of any moment, in spans per second; None for max."""
        return max(_rates(self.stages), default=None)

    @property
    def low_rate(self) -> int | None:
        """The lowest rate of any moment, 0 where a ramp touches 0; None for max."""
        return min(_rates(self.stages), default=None)

    def with_overrides(
        self,
        *,
        rate: int | msgspec.UnsetType | None = msgspec.UNSET,
        duration_ns: int | None = None,
        violation_rate: Fraction | None = None,
        stages: Sequence[Stage] | None = None,
        workload: str | None = None,
        layout: str | None = None,
        spans_per_trace: int | None = None,
        batch: int | None = None,
        seed: int | None = None,
    ) -> Scenario:
        """The scenario with what is given in place of its own.

        ``stages`` replaces all stages. ``rate`` (None: max) makes one steady stage of them, which
        lasts as long as they did together, or ``duration_ns``. ``duration_ns`` alone stretches a
        single stage; ValueError where there are several, since it does not say which of them to
        stretch; ValueError also for ``stages`` with rate or duration. The budgets of the target's
        CPU and memory were set for the rate and go with it; ``cpu_recovers`` is no longer asked
        where the new stages have no peak to recover from.
        """
        traces, criteria = self.workload, self.criteria
        if stages is not None or rate is not msgspec.UNSET:
            criteria = replace(criteria, target_cpu_percent_max=None, target_rss_bytes_max=None)
        if stages is None:
            stages = self._stages_at(rate, duration_ns)
        elif rate is not msgspec.UNSET or duration_ns is not None:
            raise ValueError("stages already say rate and duration")
        if not _have_peak(stages):
            criteria = replace(criteria, cpu_recovers=False)
        given = {
            "name": workload,
            "layout": layout,
            "violation_rate": violation_rate,
            "spans_per_trace": spans_per_trace,
        }
        traces = replace(traces, **{k: v for k, v in given.items() if v is not None})
        return replace(
            self,
            stages=tuple(stages),
            workload=traces,
            criteria=criteria,
            batch=self.batch if batch is None else batch,
            seed=self.seed if seed is None else seed,
        )

    def _stages_at(
        self, rate: int | msgspec.UnsetType | None, duration_ns: int | None
    ) -> Sequence[Stage]:
        if rate is not msgspec.UNSET:
            whole = self.duration_ns if duration_ns is None else duration_ns
            return [Stage(duration_ns=whole, start_rate=rate, end_rate=rate)]
        if duration_ns is None:
            return self.stages
        if len(self.stages) > 1:
            raise ValueError(
                f"scenario {self.name} has {len(self.stages)} stages: "
                "give a rate too for one steady stage, or give the stages"
            )
        return [replace(self.stages[0], duration_ns=duration_ns)]


def _rates(stages: Sequence[Stage]) -> list[int]:
    """Start and end rate of each stage in turn, in spans per second; empty for max."""
    pairs = ((stage.start_rate, stage.end_rate) for stage in stages)
    return [rate for pair in pairs for rate in pair if rate is not None]


def _have_peak(stages: Sequence[Stage]) -> bool:
    """Whether a stage between the first and the last goes above both."""
    rates = _rates(stages)
    return len(stages) > 2 and max(rates[2:-2]) > max(*rates[:2], *rates[-2:])


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Stages from ``100@60s,10k@30s``; ``100..10k@2m`` is a ramp, ``0..100@10s`` one from 0.

    ValueError names the piece and what would be right.
    """
    if not text.strip():
        raise ValueError("must be stages RATE@TIME or FROM..TO@TIME, such as 100@60s,100..10k@2m")
    pieces = text.split(",")
    if len(pieces) > MAX_STAGES:
        raise ValueError(f"there must be at most {MAX_STAGES:,} stages, not {len(pieces):,}")
    stages = tuple(_parse_stage(piece) for piece in pieces)
    if len(stages) > 1:
        for piece, stage in zip(pieces, stages, strict=True):
            if stage.is_max:
                raise ValueError(f"{quoted(piece.strip())}: max must be the only stage")
    return stages


def _parse_stage(piece: str) -> Stage:
    shown = quoted(piece.strip())
    match = _STAGE.fullmatch(piece)
    if match is None:
        raise ValueError(f"{shown} must be RATE@TIME or FROM..TO@TIME, such as 100..10k@2m")
    try:
        duration_ns = parse_duration(match["duration"])
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None
    start, dots, end = match["rate"].partition("..")
    if not dots:
        try:
            rate = parse_rate(start)
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from None
        return Stage(duration_ns=duration_ns, start_rate=rate, end_rate=rate)
    start_rate, end_rate = parse_count(start), parse_count(end)
    if start_rate is None or end_rate is None or start_rate == end_rate == 0:
        raise ValueError(f"{shown}: {RAMP_WANTED}")
    return Stage(duration_ns=duration_ns, start_rate=start_rate, end_rate=end_rate)

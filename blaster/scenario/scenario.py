"""Scenario, Stage, Workload, Criteria: the user's test, checked and immutable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

import msgspec
from msgspec.structs import replace

from blaster.scenario.threshold import Threshold
from blaster.units import (
    MAX_RATE,
    UNITS,
    format_duration,
    format_load,
    parse_count,
    parse_duration,
    parse_load,
    quoted,
)

MAX_STAGES = 1000
MAX_SPANS_PER_TRACE = 10_000
MAX_BATCH = 1_000_000

ARRIVALS = ("uniform", "poisson")
MAX_BURST = 1_000_000
MIN_PERIOD_NS = 100 * 10**6

RAMP_WANTED = "a ramp must go from one whole number to another, not both 0, such as 100..10k"

_STAGE = re.compile(r"\s*(?P<rate>[^@]+?)\s*@\s*(?P<duration>[^@]+?)\s*")
_SHAPE = re.compile(r"(?P<shape>sine|spike):\s*(?P<rates>.*?)/(?P<time>[0-9][^/]*)", re.DOTALL)


class Stage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A stage of ``duration_ns`` whose rate goes linearly from ``start_rate`` to ``end_rate``.

    Rates are in ``unit`` per second, one of UNITS. Equal rates: steady; both None: max, as fast as
    the in-flight cap allows. With ``period_ns`` the rate is a sine that begins at ``start_rate``
    and reaches ``end_rate`` after half a period. ValueError for an invalid stage.
    """

    duration_ns: int
    start_rate: int | None
    end_rate: int | None
    unit: str = "spans"
    period_ns: int | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}")
        if self.period_ns is not None:
            if self.period_ns < MIN_PERIOD_NS:
                raise ValueError("a sine's period must be at least 100ms")
            if self.start_rate is None:
                raise ValueError("a sine cannot start or end at max")
        if self.duration_ns <= 0:
            raise ValueError("a stage must last longer than 0")
        if self.start_rate is None or self.end_rate is None:
            if self.start_rate is not self.end_rate:
                raise ValueError("a ramp cannot start or end at max")
            return
        most = MAX_RATE * (1000 if self.unit == "bytes" else 1)
        if not (0 <= self.start_rate <= most and 0 <= self.end_rate <= most):
            raise ValueError(f"rates must be from 0 to {format_load(most, self.unit)}")
        if self.start_rate == self.end_rate == 0:
            raise ValueError("a stage must have a rate above 0 at its start or its end")

    @property
    def is_max(self) -> bool:
        """Whether the stage is a closed loop, without a target rate."""
        return self.start_rate is None

    @property
    def is_steady(self) -> bool:
        """Whether the rate is the same throughout; a closed loop counts as steady."""
        return self.start_rate == self.end_rate

    def __str__(self) -> str:
        rate = format_load(self.end_rate, self.unit)
        if self.start_rate != self.end_rate:
            start = f"{self.start_rate:,}"
            if self.unit == "bytes":
                start = format_load(self.start_rate, self.unit)
            rate = f"{start} to {rate}"
        if self.period_ns is not None:
            rate += f" and back every {format_duration(self.period_ns)}"
        return f"{rate} for {format_duration(self.duration_ns)}"


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The traces to send.

    ``name``: a preset, or a TOML file. ``layout``: how spans are spread over requests: sdk, gateway
    or scattered; None: by the workload. ``violation_rate``: the share of traces with a violation,
    0 to 1, exactly as the user wrote it. ``spans_per_trace``: for flat.
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


class WarmUp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time at the beginning that is excluded from the figures.

    ``duration_ns``: fixed. ``auto``: determined in the first stage by MSER-5 instead.
    """

    duration_ns: int = 0
    auto: bool = False

    def __str__(self) -> str:
        return "auto" if self.auto else format_duration(self.duration_ns)


def parse_warmup(text: str) -> WarmUp:
    """Parse a WarmUp: ``auto``, ``0`` (none) or a time. ValueError otherwise."""
    if text.strip() == "auto":
        return WarmUp(auto=True)
    if re.fullmatch(r"\s*0+(s|ms|m)?\s*", text):
        return WarmUp()
    try:
        return WarmUp(duration_ns=parse_duration(text))
    except ValueError:
        raise ValueError("must be auto or a time such as 10s") from None


class Criteria(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The conditions for a pass; None or False: not asked for.

    ``detection_rate_min``: detected / injected violations must be above it.
    ``target_cpu_percent_max``: the target's average CPU, percent of one core, must be below it.
    ``target_rss_bytes_max``: the target's peak memory must be below it.
    ``no_errors``: no request ended in an error.
    ``none_dropped``: every scheduled span was accepted.
    ``cpu_recovers``: after the peak, the target's CPU and the latency come back to what they were.
    ``no_leak``: neither the target's memory nor our own keeps growing.
    """

    detection_rate_min: float | None = None
    target_cpu_percent_max: float | None = None
    target_rss_bytes_max: int | None = None
    no_errors: bool = False
    none_dropped: bool = False
    cpu_recovers: bool = False
    no_leak: bool = False


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The load and the conditions for a pass. ValueError for a scenario that cannot be run.

    ``batch``: spans per request; None: the engine chooses. ``seed``: None: drawn for each run.
    ``arrivals``: one of ARRIVALS; ``burst``: requests sent at once. ``warmup``: excluded from the
    figures. ``thresholds``: conditions that must hold at the end; ``abort_on``: conditions that end
    the run as soon as one holds.
    """

    name: str
    stages: tuple[Stage, ...]
    description: str = ""
    workload: Workload = Workload()
    criteria: Criteria = Criteria()
    batch: int | None = None
    seed: int | None = None
    arrivals: str = "uniform"
    burst: int = 1
    warmup: WarmUp = WarmUp()
    thresholds: tuple[Threshold, ...] = ()
    abort_on: tuple[Threshold, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.stages) <= MAX_STAGES:
            raise ValueError(f"a scenario must have from 1 to {MAX_STAGES:,} stages")
        if len(self.stages) > 1 and any(stage.is_max for stage in self.stages):
            raise ValueError("max must be the only stage: give the others' rates as numbers")
        if self.batch is not None and not 1 <= self.batch <= MAX_BATCH:
            raise ValueError(f"batch must be from 1 to {MAX_BATCH:,} spans per request")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError("seed must be from 0 to 2^63 - 1")
        if self.arrivals not in ARRIVALS:
            raise ValueError(f"arrivals must be {' or '.join(ARRIVALS)}")
        if not 1 <= self.burst <= MAX_BURST:
            raise ValueError(f"burst must be from 1 to {MAX_BURST:,} requests")
        if self.is_max and (self.arrivals != "uniform" or self.burst != 1):
            raise ValueError("max has no schedule: it cannot have poisson arrivals or bursts")
        if self.warmup.duration_ns >= self.duration_ns:
            raise ValueError(
                f"the warm-up of {format_duration(self.warmup.duration_ns)} must be shorter than "
                f"the run of {format_duration(self.duration_ns)}"
            )
        if self.criteria.cpu_recovers and not _have_peak(self.stages):
            raise ValueError(
                "cpu_recovers needs a stage between the first and the last with a higher rate"
            )

    @property
    def duration_ns(self) -> int:
        """The duration of all stages together."""
        return sum(stage.duration_ns for stage in self.stages)

    @property
    def is_max(self) -> bool:
        """Whether the run is a closed loop, without a target rate."""
        return self.stages[0].is_max

    @property
    def peak_rate(self) -> int | None:
        """The highest rate at any time, in the stages' units; None for max."""
        return max(_rates(self.stages), default=None)

    @property
    def low_rate(self) -> int | None:
        """The lowest rate at any time, 0 if a ramp reaches 0; None for max."""
        return min(_rates(self.stages), default=None)

    @property
    def has_peak(self) -> bool:
        """Whether a stage between the first and the last goes above both."""
        return _have_peak(self.stages)

    def with_overrides(
        self,
        *,
        rate: int | msgspec.UnsetType | None = msgspec.UNSET,
        unit: str = "spans",
        duration_ns: int | None = None,
        violation_rate: Fraction | None = None,
        stages: Sequence[Stage] | None = None,
        workload: str | None = None,
        layout: str | None = None,
        spans_per_trace: int | None = None,
        batch: int | None = None,
        seed: int | None = None,
        arrivals: str | None = None,
        burst: int | None = None,
        warmup: WarmUp | None = None,
        thresholds: Sequence[Threshold] = (),
        abort_on: Sequence[Threshold] = (),
    ) -> Scenario:
        """Return the scenario with the arguments in place of its own values.

        ``thresholds`` and ``abort_on`` are added to the scenario's own. ``stages`` replaces all
        stages. ``rate`` in ``unit`` (None: max) makes one steady stage of them, as long as they
        were together, or ``duration_ns``. ``duration_ns`` alone changes a single stage. ValueError
        if there are several, which leaves open the one to change, and for ``stages`` with rate or
        duration. The limits of the target's CPU and memory belong to the rate and are dropped with
        it; so is ``cpu_recovers`` if the new stages have no peak.
        """
        traces, criteria = self.workload, self.criteria
        if stages is not None or rate is not msgspec.UNSET:
            criteria = replace(criteria, target_cpu_percent_max=None, target_rss_bytes_max=None)
        if stages is None:
            stages = self._stages_at(rate, unit, duration_ns)
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
            arrivals=self.arrivals if arrivals is None else arrivals,
            burst=self.burst if burst is None else burst,
            warmup=self.warmup if warmup is None else warmup,
            thresholds=(*self.thresholds, *thresholds),
            abort_on=(*self.abort_on, *abort_on),
        )

    def _stages_at(
        self, rate: int | msgspec.UnsetType | None, unit: str, duration_ns: int | None
    ) -> Sequence[Stage]:
        if rate is not msgspec.UNSET:
            whole = self.duration_ns if duration_ns is None else duration_ns
            return [Stage(duration_ns=whole, start_rate=rate, end_rate=rate, unit=unit)]
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


def spike(low: Stage, high_rate: int, width_ns: int) -> tuple[Stage, Stage, Stage]:
    """Split the steady stage ``low``: a steady peak of ``width_ns`` in its middle."""
    if width_ns >= low.duration_ns - 1:
        raise ValueError("a spike must be shorter than its stage")
    before = (low.duration_ns - width_ns) // 2
    after = low.duration_ns - width_ns - before
    return (
        replace(low, duration_ns=before),
        replace(low, duration_ns=width_ns, start_rate=high_rate, end_rate=high_rate),
        replace(low, duration_ns=after),
    )


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Parse stages: ``100@60s,10k@30s``; ``100..10k@2m`` is a ramp, ``0..100@10s`` one from 0.

    ``sine:100..1k/30s@5m`` swings from 100 to 1,000 and back every 30 s, for 5 minutes;
    ``spike:100..10k/30s@5m`` is 100 with 30 s of 10,000 in the middle: three stages. Rates as for
    :func:`blaster.units.parse_load`. ValueError names the piece and what would be right.
    """
    if not text.strip():
        raise ValueError("must be stages RATE@TIME or FROM..TO@TIME, such as 100@60s,100..10k@2m")
    pieces = text.split(",")
    if len(pieces) > MAX_STAGES:
        raise ValueError(f"there must be at most {MAX_STAGES:,} stages, not {len(pieces):,}")
    stages = [(piece, stage) for piece in pieces for stage in _parse_piece(piece)]
    if len(stages) > 1:
        for piece, stage in stages:
            if stage.is_max:
                raise ValueError(f"{quoted(piece.strip())}: max must be the only stage")
    return tuple(stage for _, stage in stages)


def _parse_piece(piece: str) -> tuple[Stage, ...]:
    shown = quoted(piece.strip())
    match = _STAGE.fullmatch(piece)
    if match is None:
        raise ValueError(f"{shown} must be RATE@TIME or FROM..TO@TIME, such as 100..10k@2m")
    shape = _SHAPE.fullmatch(match["rate"])
    if shape is None and match["rate"].startswith(("sine:", "spike:")):
        raise ValueError(
            f"{shown} must be sine:FROM..TO/PERIOD@TIME or spike:FROM..TO/WIDTH@TIME, "
            "such as sine:100..1k/30s@5m"
        )
    try:
        duration_ns = parse_duration(match["duration"])
        time_ns = parse_duration(shape["time"]) if shape else 0
        start, end, unit = _parse_rates(shape["rates"] if shape else match["rate"])
        if shape is None:
            return (Stage(duration_ns=duration_ns, start_rate=start, end_rate=end, unit=unit),)
        if start is None or end is None or start == end:
            raise ValueError(RAMP_WANTED)
        low = Stage(duration_ns=duration_ns, start_rate=start, end_rate=start, unit=unit)
        if shape["shape"] == "spike":
            return spike(low, end, time_ns)
        return (replace(low, end_rate=end, period_ns=time_ns),)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None


def _parse_rates(text: str) -> tuple[int | None, int | None, str]:
    """Start, end and unit of ``RATE`` or ``FROM..TO``; FROM needs no unit of its own."""
    start, dots, end = text.partition("..")
    if not dots:
        rate, unit = parse_load(start)
        return rate, rate, unit
    if not end.strip().endswith("/s"):
        rates = parse_count(start), parse_count(end)
        unit = "spans"
    else:
        last, unit = parse_load(end)
        rates = _parse_start(start, unit), last
    if None in rates or rates == (0, 0):
        raise ValueError(RAMP_WANTED)
    return *rates, unit


def _parse_start(text: str, unit: str) -> int | None:
    """The start of a ramp whose end is in ``unit``."""
    if (count := parse_count(text)) is not None and (unit != "bytes" or count == 0):
        return count
    if not text.strip().endswith("/s"):
        text += "/s"
    rate, its_unit = parse_load(text)
    return rate if its_unit == unit else None

"""A run as backends see it, and their findings: the parts of results.json that they fill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from blaster.backends.waiting import Wait
from blaster.payload.span import Span


class FunnelStage(msgspec.Struct):
    """How much of the load one stage of the pipeline has seen. ``spans`` counts ``unit`` (spans,
    traces or violations). ``expected``: by what the stage before passed on; ``lost``: how much of
    that is missing. None: not known."""

    stage: str
    spans: int | None
    lost: int | None = None
    reason: str = ""
    unit: str = "spans"
    expected: int | None = None


class ReadBack(msgspec.Struct):
    """Traces fetched by ID and compared with those sent, span by span."""

    traces: int
    found: int
    complete: int
    spans: int
    spans_found: int
    differences: list[str]


class Verification(msgspec.Struct):
    """One backend's findings. ``problems`` fail the run. ``counters``: the growth of its own
    counters. ``time_to_visible_s``: from the last span's acceptance until the count stood still."""

    backend: str
    url: str
    dialect: str | None = None
    rules: list[str] = msgspec.field(default_factory=list)
    time_to_visible_s: float | None = None
    read_back: ReadBack | None = None
    counters: dict[str, float] = msgspec.field(default_factory=dict)
    problems: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    def summary_lines(self) -> list[str]:
        """Lines to show beside the figures."""
        parts = []
        if self.dialect is not None:
            parts.append(f"{len(self.rules)} rules, the load test's in the {self.dialect} dialect")
        if self.time_to_visible_s is not None:
            parts.append(f"all that it shows was visible after {self.time_to_visible_s:g} s")
        lines = [f"{self.backend} {self.url}: {'; '.join(parts)}"] if parts else []
        return lines + [f"{self.backend}: {note}" for note in self.notes]


@dataclass(frozen=True, slots=True)
class SentTrace:
    """A trace that was sent and accepted: its ID, and its spans by ID.

    ``whole``: these are all of its spans. Else it was sent in parts, of which these were accepted.
    """

    trace_id: bytes
    spans: dict[bytes, Span]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Sent:
    """The spans of a run, for backends to look up. Times in seconds since 1970.

    ``violating``: by rule, the IDs of the traces with a span that breaks it (None: too many to
    name), and ``violations`` their number. ``services``: the names of all services. ``kept``: of
    ``accepted``, the spans that a tail sampler should keep: least, expected, most; None without a
    sampler.
    """

    accepted: int
    unknown: int
    started_s: float
    ended_s: float
    violations: dict[str, int]
    violating: dict[str, set[bytes]] | None
    services: tuple[str, ...]
    sample: list[SentTrace]
    kept: tuple[int, int, int] | None = None


@dataclass(slots=True)
class Flow:
    """The spans' way through the pipeline: how many the next stage should see, from ``low`` to
    ``high``.

    The two differ if requests went unanswered or a sampler decides.
    """

    low: int
    high: int
    stages: list[FunnelStage] = field(default_factory=list)
    forwarded: bool = True  # False: a collector exported nothing at all

    def stage(self, name: str, count: int | None, reason: str = "") -> FunnelStage:
        """Add a stage that counts spans and should see all that the one before passed on."""
        lost = None if count is None else max(0, self.low - count)
        stage = FunnelStage(name, count, lost, reason if lost else "", "spans", self.low)
        self.stages.append(stage)
        return stage

    def passes(self, count: int) -> None:
        """Expect ``count`` spans at the next stage."""
        self.low = self.high = count


class Backend(Protocol):
    """An adapter to a real system, by what that reports of itself."""

    verification: Verification

    def prepare(self, wait: Wait) -> None:
        """Prepare, before the run, to judge it afterwards. Failures become problems; nothing is
        raised."""

    def verify(self, sent: Sent, flow: Flow, wait: Wait) -> None:
        """Query the system after the run, wait for late spans, and add its stages to the flow."""

    def close(self) -> None:
        """Undo ``prepare``. Always called; never raises."""

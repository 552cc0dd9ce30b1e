"""What the backends are told of a run, and what they say: the parts of results.json they fill."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from blaster.backends.waiting import Wait
from blaster.payload.span import Span


class FunnelStage(msgspec.Struct):
    """How much of what was sent a stage of the way has seen. ``spans`` counts ``unit`` (spans,
    traces or violations). ``expected``: what the stage before leads to expect; ``lost``: how much
    of that is missing. None where nobody says."""

    stage: str
    spans: int | None
    lost: int | None = None
    reason: str = ""
    unit: str = "spans"
    expected: int | None = None


class ReadBack(msgspec.Struct):
    """Traces that were fetched by their IDs and compared with what was sent, span by span."""

    traces: int
    found: int
    complete: int
    spans: int
    spans_found: int
    differences: list[str]


class Verification(msgspec.Struct):
    """What one backend said. ``problems`` fail the run. ``counters``: how much its own counters
    grew. ``time_to_visible_s``: from the last span's acceptance until the count stood still."""

    backend: str
    url: str
    dialect: str | None = None
    rules: list[str] = msgspec.field(default_factory=list)
    time_to_visible_s: float | None = None
    read_back: ReadBack | None = None
    counters: dict[str, float] = msgspec.field(default_factory=dict)
    problems: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    def said(self) -> list[str]:
        """What there is to say beside the figures, a line each."""
        parts = []
        if self.dialect is not None:
            parts.append(f"{len(self.rules)} rules, the load test's in the {self.dialect} dialect")
        if self.time_to_visible_s is not None:
            parts.append(f"all that it shows was visible after {self.time_to_visible_s:g} s")
        told = [f"{self.backend} {self.url}: {'; '.join(parts)}"] if parts else []
        return told + [f"{self.backend}: {note}" for note in self.notes]


@dataclass(frozen=True, slots=True)
class SentTrace:
    """A trace that was sent and accepted: its ID, and its spans by their IDs.

    ``whole``: it may hold no others. Else it was sent in parts, and only these were accepted.
    """

    trace_id: bytes
    spans: dict[bytes, Span]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Sent:
    """What a run sent. Times in seconds since 1970.

    ``violating``: by rule, the IDs of the traces with a span that breaks it (None: too many to
    name), and ``violations`` how many they are. ``services``: the names of all services.
    ``kept``: of ``accepted``, how many spans a tail sampler should let through: least, expected,
    most; None where there is none.
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
    """How far the spans have come: what the next stage should see, and how sure that is.

    ``low`` and ``high`` differ where requests went unanswered or a sampler decides.
    """

    low: int
    high: int
    stages: list[FunnelStage] = field(default_factory=list)
    forwarded: bool = True  # False: a collector exported nothing at all

    def stage(self, name: str, count: int | None, reason: str = "") -> FunnelStage:
        """Adds a stage that counts spans and is to see what the one before let through."""
        lost = None if count is None else max(0, self.low - count)
        stage = FunnelStage(name, count, lost, reason if lost else "", "spans", self.low)
        self.stages.append(stage)
        return stage

    def passes(self, count: int) -> None:
        """What comes after is to see so many."""
        self.low = self.high = count


class Backend(Protocol):
    """An adapter to what a real system says of itself."""

    verification: Verification

    def prepare(self, wait: Wait) -> None:
        """Before the run: what is needed to judge it afterwards. What goes wrong is noted as a
        problem, not raised."""

    def verify(self, sent: Sent, flow: Flow, wait: Wait) -> None:
        """After the run: asks, waits for what comes late, and adds its stages to the flow."""

    def close(self) -> None:
        """Undoes what ``prepare`` did. Always called; never raises."""

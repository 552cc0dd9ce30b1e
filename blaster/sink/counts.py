"""What the sink counted, as its API says it and as the runner reads it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from blaster.otlp.rules import RULES

if TYPE_CHECKING:
    from blaster._native import ScanCounts


@dataclass(frozen=True, slots=True)
class SinkCounts:
    """One consistent snapshot.

    ``requests``, ``bytes`` and ``spans`` are of the well-formed requests; ``malformed`` counts the
    others. ``duplicates``: spans whose (trace ID, span ID) came before, of the one in ``sampling``
    that is checked (1: all). ``invalid``: spans with a missing, zero or mis-sized ID.
    """

    requests: int
    malformed: int
    bytes: int
    spans: int
    duplicates: int
    invalid: int
    sampling: int
    violations_by_rule: dict[str, int]

    @classmethod
    def from_scan(cls, scan: ScanCounts) -> SinkCounts:
        """Names the violations of what a ``Scanner`` counted."""
        return cls(
            requests=scan["requests"],
            malformed=scan["malformed"],
            bytes=scan["bytes"],
            spans=scan["spans"],
            duplicates=scan["duplicates"],
            invalid=scan["invalid"],
            sampling=scan["sampling"],
            violations_by_rule=dict(zip(RULES, scan["violations"], strict=True)),
        )

    def __add__(self, other: SinkCounts) -> SinkCounts:
        """The counts of two that scanned each its own part: an ID that came to both is not found
        to be a duplicate."""
        return SinkCounts(
            requests=self.requests + other.requests,
            malformed=self.malformed + other.malformed,
            bytes=self.bytes + other.bytes,
            spans=self.spans + other.spans,
            duplicates=self.duplicates + other.duplicates,
            invalid=self.invalid + other.invalid,
            sampling=max(self.sampling, other.sampling),
            violations_by_rule={
                rule: count + other.violations_by_rule[rule]
                for rule, count in self.violations_by_rule.items()
            },
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON; ``SinkCounts(**d)`` is the way back."""
        return asdict(self)

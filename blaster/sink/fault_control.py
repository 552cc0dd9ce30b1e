"""FaultControl: the faults of all receivers, set and asked for together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from blaster.errors import UsageError
from blaster.sink.fault import Fault
from blaster.sink.fault_grammar import check_supported, parse_all


class Faulty(Protocol):
    """A receiver with faults."""

    def set_faults(self, faults: Sequence[Fault], seed: int) -> None:
        """Replace the faults; their time begins with the next request."""

    def fault_hits(self) -> Sequence[int]:
        """Return how often each fault was met."""


class FaultControl:
    """Sets the faults of all receivers and counts how often each was met. Any thread may use it.

    ``names``: the kinds of the receivers: a fault that none of them supports is refused.
    """

    def __init__(self, receivers: Sequence[Faulty], names: Sequence[str]) -> None:
        self._receivers, self._names = receivers, names
        self._set: tuple[tuple[Fault, ...], int] = ((), 0)

    def set(self, texts: Sequence[str], seed: int) -> None:
        """Replace all faults. Raises UsageError for an invalid fault or seed."""
        self.put(parse_all(texts), seed)

    def put(self, faults: tuple[Fault, ...], seed: int) -> None:
        """Replace all faults. Raises UsageError for one that no receiver supports, or the seed."""
        check_supported(faults, self._names)
        if not 0 <= seed < 1 << 63:
            raise UsageError(f"--fault-seed {seed}: must be from 0 to 2^63 - 1")
        self._set = faults, seed
        for receiver in self._receivers:
            receiver.set_faults(faults, seed)

    def status(self) -> dict[str, Any]:
        """Return the faults and how many requests or connections met each, for JSON."""
        faults, seed = self._set
        met = [sum(hits) for hits in zip(*(r.fault_hits() for r in self._receivers), strict=False)]
        return {
            "seed": seed,
            "faults": [
                {"fault": fault.text, "met": hits} for fault, hits in zip(faults, met, strict=False)
            ],
        }

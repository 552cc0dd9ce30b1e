"""The spans that break a rule, as native/scan.c keeps them until they are taken."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

KEPT = np.dtype(
    [
        ("trace_id", "V16"),
        ("span_id", "V8"),
        ("start", np.uint64),
        ("end", np.uint64),
        ("rules", np.uint64),
    ]
)
"""``struct scan_violation``: IDs, times (ns since 1970), and a bit for each of RULES it breaks."""

Kept = npt.NDArray[np.void]


class Keeper(Protocol):
    """A receiver or a scanner that can say which spans broke a rule, not only how many."""

    def watch(self, rules: int) -> None:
        """From now on keeps the spans that break one of these rules (bit r: RULES[r]); 0: none."""

    def take(self) -> tuple[bytes, int]:
        """Takes what was kept since, at most 65,536 records, and how many so far found no room."""


def take_all(keeper: Keeper) -> tuple[Kept, int]:
    """All that was kept (dtype KEPT), and how many so far found no room."""
    taken, missed = keeper.take()
    return np.frombuffer(taken, KEPT), missed

"""Waiting for counts that lag: until they stand still or a limit is reached; no fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""Pauses between queries grow from the first to the longest: quick answers are seen quickly, and
slow systems are not queried often."""

QUIET_S = 5.0
"""How long a count has to stand still to be final, or a third of the limit if that is less."""

_NAP_S = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """A count, and how many seconds after the last span was accepted it was first reached."""

    count: int
    after_s: float


@dataclass(slots=True)
class Wait:
    """How to wait. ``limit_s``: the longest wait for one count; ``stopped`` ends all waiting.
    ``accepted_at``: when the last span was accepted, by time.monotonic()."""

    limit_s: float
    stopped: Callable[[], bool]
    accepted_at: float = 0.0

    def until(self, ask: Callable[[], int], wanted: int) -> Seen:
        """Call ``ask`` until the count is ``wanted`` or more, or has changed and then stood still,
        or the limit is reached. An exception from ``ask`` leads to another call, and is raised once
        the limit is reached."""
        begun = time.monotonic()
        end = begun + self.limit_s
        quiet = min(QUIET_S, self.limit_s / 3)
        pause = FIRST_PAUSE_S
        first: int | None = None
        seen: Seen | None = None
        moved = begun
        while True:
            now = time.monotonic()
            try:
                count = ask()
            except Exception:
                if now >= end or self.stopped():
                    raise
            else:
                first = count if first is None else first
                if seen is None or count != seen.count:
                    seen, moved = Seen(count, max(0.0, now - self.accepted_at)), now
                still = count != first and now - moved >= quiet
                if count >= wanted or still or now >= end or self.stopped():
                    return seen
            self.sleep(min(pause, max(end - time.monotonic(), 0.01)))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def sleep(self, seconds: float) -> None:
        """Sleep for ``seconds``, or until ``stopped``."""
        end = time.monotonic() + seconds
        while not self.stopped() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _NAP_S))

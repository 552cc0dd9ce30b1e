"""Waiting for what comes late: until it stands still, or the time is up; never one fixed sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
"""Pauses grow from the one to the other: what comes at once is seen at once, and what takes long is
not asked for more often than it bears."""

QUIET_S = 5.0
"""How long a count has to stand still to be believed, or a third of the limit if that is less."""

_NAP_S = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """What a count came to, and how many seconds after the last span was accepted it first did."""

    count: int
    after_s: float


@dataclass(slots=True)
class Wait:
    """``limit_s``: how long one count may be waited for; ``stopped`` cuts all waiting short.
    ``accepted_at``: of time.monotonic(), when the last span was accepted."""

    limit_s: float
    stopped: Callable[[], bool]
    accepted_at: float = 0.0

    def until(self, ask: Callable[[], int], wanted: int) -> Seen:
        """Asks until the count is ``wanted`` or more, or has moved and then stood still, or the
        limit is reached. What ``ask`` raises is passed on once the limit is reached; before, it is
        asked again."""
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
        """Sleeps, unless it is cut short."""
        end = time.monotonic() + seconds
        while not self.stopped() and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _NAP_S))

"""DueSpans: the spans that were due, counted on from one moment of a run to the next."""

from __future__ import annotations

from collections.abc import Sequence

from blaster.engine.plan import Shard


class DueSpans:
    """The spans of the requests of some shards that are due, as the workers count them: by whole
    requests. Each request is counted once, however long the run is."""

    def __init__(self) -> None:
        self._requests: dict[int, int] = {}
        self._spans = 0

    def until(self, shards: Sequence[Shard], elapsed_ns: int) -> int:
        """Return the spans due by ``elapsed_ns``, or by an earlier call if that was later.

        ``shards`` are the same each time, but for holds put into their plan meanwhile, which leave
        the requests before them as they were.
        """
        for number, shard in enumerate(shards):
            before = self._requests.get(number, 0)
            due = shard.due(elapsed_ns)
            if due > before:
                self._spans += shard.spans_between(before, due)
                self._requests[number] = due
        return self._spans

"""SIGINT and SIGTERM: before a run they end blaster, during it they stop it, and after it they wait
until the results are written."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from blaster.errors import BlasterError


class Interrupted(BlasterError):
    """Stopped by a signal before the first span was offered."""

    exit_status = 130


class StopSignals:
    """A context manager around all of a run; ``on_stop`` is what a signal calls once it is set."""

    on_stop: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.on_stop is None:
            raise Interrupted("interrupted before the first span was offered")
        self.on_stop()

"""SIGINT, SIGTERM and SIGHUP: before a run they end blaster, during it they stop it, and after it
they wait until the results are written."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from blaster.errors import BlasterError


class Interrupted(BlasterError):
    """Stopped by a signal before there was anything to stop."""

    exit_status = 130


class StopSignals:
    """A context manager around all of a run. A signal calls ``on_stop``; while that is None, it
    raises Interrupted, once."""

    def __init__(self, *, hold: bool = False) -> None:
        """``hold``: the first signal waits for :meth:`release`, so that what is being made ready
        can be told of. A second one does not."""
        self.on_stop: Callable[[], None] | None = self._hold if hold else None
        self._held = False

    def release(self) -> None:
        """Holds signals no longer; raises Interrupted where one came."""
        self.on_stop = None
        if self._held:
            self._interrupt()

    def __enter__(self) -> Self:
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) != signal.SIG_IGN or number != signal.SIGHUP  # nohup's
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
            self._interrupt()
        else:
            self.on_stop()

    def _hold(self) -> None:
        self._held, self.on_stop = True, None

    def _interrupt(self) -> None:
        self.on_stop = lambda: None  # a further signal would disturb what is being closed
        raise Interrupted("interrupted")

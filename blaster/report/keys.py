"""Keys: single key presses on the terminal, without waiting."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import Any


class Keys:
    """Key presses on standard input, if that is a terminal and the run is in its foreground.
    :meth:`open` changes the terminal's mode, :meth:`close` restores it."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._handle = -1

    def open(self) -> bool:
        """Read keys unbuffered, without echo; ^C stays a signal. False if there is no terminal."""
        try:
            handle = sys.stdin.fileno()
            if not os.isatty(handle) or os.tcgetpgrp(handle) != os.getpgrp():
                return False
            self._before = termios.tcgetattr(handle)
            tty.setcbreak(handle, termios.TCSANOW)
        except (OSError, ValueError, AttributeError, termios.error):
            self._before = None
            return False
        self._handle = handle
        return True

    def pressed(self) -> str:
        """The keys pressed since the last call; empty if none."""
        if self._before is None:
            return ""
        try:
            if not select.select([self._handle], [], [], 0)[0]:
                return ""
            data = os.read(self._handle, 64)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self._before = None
        return data.decode(errors="ignore")

    def close(self) -> None:
        """Restore the terminal's mode."""
        if self._before is not None:
            before, self._before = self._before, None
            termios.tcsetattr(self._handle, termios.TCSANOW, before)

"""Keys pressed on the terminal, one by one, without waiting for them."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import Any


class Keys:
    """The keys of standard input, if that is a terminal of ours to read: a run in the background of
    its shell must not touch it. Opened by :meth:`open`, put back by :meth:`close`."""

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._handle = -1

    def open(self) -> bool:
        """Lets keys come one by one and unseen; ^C stays a signal. False where there are none."""
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
        """What was pressed since it was asked last; empty for nothing."""
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
        """Puts the terminal back as it was."""
        if self._before is not None:
            before, self._before = self._before, None
            termios.tcsetattr(self._handle, termios.TCSANOW, before)

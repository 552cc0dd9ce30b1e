"""Standard streams that never end a run: what cannot be shown is not shown."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO


class _Stream(io.FileIO):
    """A standard stream that drops what it cannot write, from the first failure on."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as error:
                self.failure = error
        return memoryview(data).nbytes


def forgive() -> None:
    """Replace standard output and standard error by streams that no full device, closed pipe or
    missing character can break. A closed standard stream becomes the null device first, so that no
    file takes its number."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout, sys.stderr = _forgiving(1, sys.stdout), _forgiving(2, sys.stderr)


def _forgiving(fd: int, before: TextIO | None) -> TextIO:
    raw = _Stream(fd, "w", closefd=False)
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=fd == 2 or raw.isatty(),
    )


def write_output(text: str) -> None:
    """Write ``text`` to standard output, whole. Raises OSError where that fails, but not where the
    reader of a pipe had enough."""
    sys.stdout.write(text)
    sys.stdout.flush()
    failure = getattr(getattr(sys.stdout.buffer, "raw", None), "failure", None)
    if failure is not None and not isinstance(failure, BrokenPipeError):
        raise failure

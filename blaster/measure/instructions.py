"""Counts the instructions that this process executes, where the machine lets it.

Uses the processor's counter through perf_event_open(2); virtual machines and containers often
have none, and then the count is None.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import struct
import sys
from types import TracebackType
from typing import Self

_SYSCALL = {"x86_64": 298, "aarch64": 241}
_HARDWARE, _INSTRUCTIONS = 0, 1
_ATTR_BYTES = 64  # PERF_ATTR_SIZE_VER0
# Bits of struct perf_event_attr's flags: disabled, inherit (threads to come), without the kernel.
_FLAGS = 1 << 0 | 1 << 1 | 1 << 5
_ENABLE, _DISABLE = 0x2400, 0x2401


class InstructionCounter:
    """A context manager; ``count`` afterwards: user-mode instructions of this thread and of those
    it started inside, or None."""

    count: int | None = None

    def __enter__(self) -> Self:
        self._fd = _open()
        if self._fd >= 0:
            fcntl.ioctl(self._fd, _ENABLE, 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd < 0:
            return
        fcntl.ioctl(self._fd, _DISABLE, 0)
        (count,) = struct.unpack("=Q", os.read(self._fd, 8))
        os.close(self._fd)
        self.count = count or None


def _open() -> int:
    number = _SYSCALL.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return -1
    head = struct.pack("=IIQQQQQ", _HARDWARE, _ATTR_BYTES, _INSTRUCTIONS, 0, 0, 0, _FLAGS)
    attr = ctypes.create_string_buffer(head, _ATTR_BYTES)
    this_process, any_cpu, no_group = 0, -1, -1
    return int(ctypes.CDLL(None).syscall(number, attr, this_process, any_cpu, no_group, 0))

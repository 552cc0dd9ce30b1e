"""Hides what is secret in the command line that ps and /proc/PID/cmdline show."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

SECRET_OPTIONS = ("--header",)

_ARG_START, _ARG_END = 48, 49
"""The fields of /proc/PID/stat (proc(5))."""


def hide_secrets() -> None:
    """Overwrites the values of headers in this process's own arguments, as others see them.

    On Linux only. What a shell or another program shows of the command line is out of reach, and
    so are the first moments of the process: a variable keeps a secret better.
    """
    try:
        stat = Path("/proc/self/stat").read_bytes()
        fields = stat[stat.rindex(b")") + 2 :].split()
        start, end = int(fields[_ARG_START - 3]), int(fields[_ARG_END - 3])
    except (OSError, ValueError, IndexError):
        return
    if sys.platform != "linux" or not 0 < start < end:
        return
    for offset, length in secrets(ctypes.string_at(start, end - start)):
        ctypes.memset(start + offset, ord("*"), length)


def secrets(arguments: bytes) -> list[tuple[int, int]]:
    """Where in ``arguments``, each ended by a zero byte, the values of headers lie, and how long
    they are. What is no NAME=VALUE is hidden whole."""
    found = []
    offset, expected = 0, False
    for argument in arguments.split(b"\0"):
        option, equals, _ = argument.partition(b"=")
        begin = None
        if expected:
            begin = 0
        elif equals and option.decode(errors="replace") in SECRET_OPTIONS:
            begin = len(option) + 1
        expected = not expected and argument.decode(errors="replace") in SECRET_OPTIONS
        if begin is not None:
            text = argument[begin:]
            if b"=" in text:
                begin += text.index(b"=") + 1
            if len(argument) > begin:
                found.append((offset + begin, len(argument) - begin))
        offset += len(argument) + 1
    return found

"""Hides the secrets in this process's arguments and environment from ps and /proc."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SECRET_OPTIONS = ("--header", "--verify-header")
SECRET_VARIABLES = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")

_ARGUMENTS, _ENVIRONMENT = (48, 49), (50, 51)
"""The fields of /proc/PID/stat with the bounds of each area (proc(5))."""

_USER = re.compile(rb"://([^/?#@]*)@")
"""The user and the password in a URL."""

Places = list[tuple[int, int]]
"""Offsets and lengths."""


def hide_secrets() -> None:
    """Overwrite the values of headers, and users in URLs, in what others see of this process.

    On Linux only. What a shell or another program shows of the command line is out of reach, and
    so are the first moments of the process: a variable keeps a secret better. Processes forked
    after this hide them too; those that are started with this environment still get the values.
    """
    if sys.platform != "linux":
        return
    _overwrite(_ARGUMENTS, secret_arguments)
    kept = {name: os.environ[name] for name in SECRET_VARIABLES if name in os.environ}
    _overwrite(_ENVIRONMENT, secret_variables)
    os.environ.update(kept)  # in memory that nobody is shown


def _overwrite(bounds: tuple[int, int], find: Callable[[bytes], Places]) -> None:
    try:
        stat = Path("/proc/self/stat").read_bytes()
        fields = stat[stat.rindex(b")") + 2 :].split()
        start, end = (int(fields[number - 3]) for number in bounds)
    except (OSError, ValueError, IndexError):
        return
    if not 0 < start < end:
        return
    for offset, length in find(ctypes.string_at(start, end - start)):
        ctypes.memset(start + offset, ord("*"), length)


def secret_arguments(area: bytes) -> Places:
    """Where in ``area``, whose arguments each end with a zero byte, secrets lie: the values of
    headers, all of one that is no NAME=VALUE, and what precedes the host in a URL."""
    found, expected = [], False
    for offset, argument in _strings(area):
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
        else:
            found += [(offset + m.start(1), len(m[1])) for m in _USER.finditer(argument)]
    return found


def secret_variables(area: bytes) -> Places:
    """Where in ``area``, whose variables each end with a zero byte, the values of headers lie."""
    found = []
    for offset, variable in _strings(area):
        name, _, value = variable.partition(b"=")
        if value and name.decode(errors="replace") in SECRET_VARIABLES:
            found.append((offset + len(name) + 1, len(value)))
    return found


def _strings(area: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    for text in area.split(b"\0"):
        yield offset, text
        offset += len(text) + 1

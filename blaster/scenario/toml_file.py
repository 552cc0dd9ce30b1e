"""TOML files that users write: read within bounds, key by key, with every mistake named.

An error is a UsageError in one line: the file, the key, its value and what would be right.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn, TypeVar

from blaster.errors import UsageError
from blaster.units import in_line, parse_count, quoted

MAX_FILE_BYTES = 1 << 20

_T = TypeVar("_T")


def document(text: str, file: str) -> Table:
    """Parse TOML; ``file`` names it in errors. UsageError if it is not TOML."""
    shown = in_line(file)
    try:
        # Floats stay text, so that a share is kept exactly as it was written.
        values = tomllib.loads(text, parse_float=Float)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        found = re.match(r"line (\d+)", place)
        line = found[1] if found else text.rstrip().count("\n") + 1  # "end of document"
        raise UsageError(f"{shown}:{line}: not TOML: {in_line(message or place)}") from None
    except (ValueError, RecursionError):
        # tomllib lets int's own limit on digits and Python's on nesting through.
        raise UsageError(f"{shown}: not TOML: a number too long or tables too deep") from None
    return Table(shown, "", values)


class Float(str):
    """A TOML float as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Table:
    """A TOML table whose keys are taken one by one; keys left at the end are refused as unknown."""

    def __init__(self, file: str, path: str, values: dict[str, Any]) -> None:
        self.file = file
        self.path = path
        self.values = values
        self.known: list[str] = []

    def refuse(self, key: str, wanted: str) -> NoReturn:
        value = self.values[key]
        shown = str(value).lower() if isinstance(value, bool) else quoted(value)
        raise UsageError(f"{self.file}: {self.path}{key} = {shown}: {wanted}")

    def number(self, key: str, parse: Callable[[str], _T], default: _T) -> _T:
        """The value of ``key``, a number or text, by ``parse`` (ValueError: what is right)."""
        self.known.append(key)
        if key not in self.values:
            return default
        value = self.values[key]
        # An array or a table cannot be what is right, and neither can a boolean.
        written = str(value) if isinstance(value, (str, int)) and value is not True else ""
        try:
            return parse("" if value is False else written)
        except ValueError as error:
            self.refuse(key, str(error))

    def text(self, key: str, default: str) -> str:
        self.known.append(key)
        value = self.values.get(key, default)
        if type(value) is not str or not value.isprintable():
            self.refuse(key, "must be text in one line")
        return value

    def choice(self, key: str, known: Sequence[str], default: str | None) -> str | None:
        """The value of ``key``, one of the words in ``known``."""
        self.known.append(key)
        value = self.values.get(key, default)
        if value is not default and value not in known:
            close = nearest(value, known) if isinstance(value, str) else ""
            self.refuse(key, f"must be {', '.join(known)}{close}")
        return value

    def flag(self, key: str) -> bool:
        self.known.append(key)
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.refuse(key, "must be true or false")
        return value

    def table(self, key: str) -> Table:
        self.known.append(key)
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.refuse(key, f"must be a table: [{key}]")
        return Table(self.file, f"{self.path}{key}.", value)

    def end(self) -> None:
        """Refuse the first key that was not taken."""
        for key in self.values:
            if key not in self.known:
                raise UsageError(
                    f"{self.file}: {self.path}{in_line(key)}: unknown key; "
                    f"known: {', '.join(self.known)}{nearest(key, self.known)}"
                )


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from ``least`` to ``most``; it raises ValueError."""

    def parse_whole(text: str) -> int:
        number = parse_count(text, least, most)
        if number is None:
            raise ValueError(f"must be a whole number from {least} to {most:,}")
        return number

    return parse_whole


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading. UsageError in one line if it cannot be read."""
    shown = in_line(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # open would wait for ever on a pipe
            raise UsageError(f"{shown}: not a file")
        with open(path, "rb") as file:
            yield file
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise UsageError(f"{shown}: cannot be read: {reason}") from None


def read(path: str) -> str:
    """Return the text of a file. UsageError if it cannot be read, is too large or not UTF-8."""
    shown = in_line(path)
    with opened(path) as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{shown}: must be at most 1 MiB")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown}:{line}: not TOML: not UTF-8 text") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion to end an error message with: the known word most similar to ``word``."""
    close = difflib.get_close_matches(word[:60], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""

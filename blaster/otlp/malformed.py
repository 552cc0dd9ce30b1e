"""Malformed: the fault of a message or document, and its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

_T = TypeVar("_T")
_R = TypeVar("_R")


class Malformed(ValueError):
    """A message or document that can't be read: ``message`` in one line, ``path`` the place.

    ``path`` is a JSON path such as ``.spans[3].spanId``, or empty.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.message, self.path = message, path

    def within(self, step: str) -> Malformed:
        """Return the same fault seen from one level further out: ``step`` is ``.spans[3]``."""
        return Malformed(self.message, step + self.path)

    def __str__(self) -> str:
        return f"${self.path}: {self.message}" if self.path else self.message


def each(items: Iterable[_T] | None, name: str, convert: Callable[[_T], _R]) -> Iterator[_R]:
    """Iterate over ``convert`` of each item; a fault in it names the place ``.name[index]``."""
    for index, item in enumerate(items or ()):
        try:
            yield convert(item)
        except Malformed as error:
            raise error.within(f".{name}[{index}]") from None


def decoded(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    """Return the JSON value in ``data``. Raises Malformed: not JSON, not of the decoder's type, or
    nested too deep."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise explained(error) from None
    except msgspec.DecodeError as error:
        raise Malformed(f"not JSON: {_reason(str(error))}") from None
    except UnicodeDecodeError:
        raise Malformed("not JSON: not UTF-8 text") from None
    except RecursionError:
        raise Malformed("nested too deep") from None
    except ValueError:  # Python's own limit on the digits of an integer
        raise Malformed("not JSON: a number too long") from None


def explained(error: msgspec.ValidationError) -> Malformed:
    """Return what msgspec says of a wrong type, in our words."""
    message, _, path = str(error).partition(" - at `$")
    wanted = message.replace(" | null", "").replace("`", "").replace("Expected", "must be")
    return Malformed(wanted.replace(", got", ", not"), path.rstrip("`"))


def _reason(text: str) -> str:
    return text.removeprefix("JSON is malformed: ").replace("Input data was truncated", "cut short")

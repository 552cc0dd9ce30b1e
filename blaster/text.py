"""Text from outside, made safe to show.

Messages of peers and proxies, names in captured traces, alerts and result files may hold control
characters, which terminals obey and XML forbids. Everything that is shown or written goes through
:func:`clean` or :func:`cleaned`.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

_SPACES = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]")
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: ISO 6429 control functions
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # Unicode's bidirectional controls (UAX #9)
    "\ud800-\udfff\ufffe\uffff]"  # what UTF-8 or XML 1.0 (section 2.2) cannot hold
)

_T = TypeVar("_T")


def clean(text: str) -> str:
    """Return ``text`` as one line: line breaks and tabs become spaces, other control characters
    U+FFFD."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub("\ufffd", _SPACES.sub(" ", text))


def cleaned(value: _T) -> _T:
    """Return a copy of ``value`` (of what JSON can hold, or a msgspec Struct) with all text clean,
    keys included."""
    if isinstance(value, msgspec.Struct):
        return msgspec.convert(_cleaned(msgspec.to_builtins(value)), type(value))
    result: _T = _cleaned(value)
    return result


def _cleaned(node: Any) -> Any:
    if isinstance(node, str):
        return clean(node)
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    if isinstance(node, dict):
        return {_cleaned(key): _cleaned(item) for key, item in node.items()}
    return node

"""Thresholds: conditions on the results, such as ``latency_ms.response.p99 < 500``.

A threshold is a path into results.json, one of < <= > >= == !=, and a number; several may be joined
by ``and``. Numbers may have a unit where the path says which: ``500ms`` and ``2s`` for what is in
``_ms``, ``500MB`` for bytes, ``90%`` for shares and percents; ``10k`` and ``1.5M`` anywhere;
``true`` and ``false`` for flags. ``stages.0.latency_ms.response.p99`` is a figure of the first
stage. No other expressions are evaluated.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

import msgspec

from blaster.units import parse_bytes, parse_count, parse_duration, quoted

WANTED = "must be PATH < NUMBER, such as latency_ms.response.p99 < 500 (or <= > >= == !=)"

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_THRESHOLD = re.compile(
    r"\s*(?P<path>[A-Za-z_][\w-]*(?:\.[\w-]+)*)\s*(?P<sign>[<>]=?|[=!]=)\s*(?P<number>[^\s<>=!]+)\s*"
)
_PLAIN = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")


class Threshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One condition. ``text``: as it was written; ``number``: in the unit of the results."""

    text: str
    path: str
    sign: str
    number: float

    def holds(self, value: float) -> bool:
        """Whether the value at ``path`` meets the condition."""
        return _COMPARISONS[self.sign](value, self.number)


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """Parse ``A < 1`` or ``A < 1 and B > 2``. The ValueError says what would be right."""
    if len(text) > 1000:
        raise ValueError("must be at most 1,000 characters long")
    return tuple(_parse(part) for part in re.split(r"\band\b", text))


def _parse(text: str) -> Threshold:
    match = _THRESHOLD.fullmatch(text)
    if match is None:
        raise ValueError(f"{quoted(text.strip())}: {WANTED}")
    number = _number(match["number"], match["path"])
    if number is None:
        raise ValueError(f"{quoted(text.strip())}: {quoted(match['number'])} is not a number here")
    return Threshold(
        text=" ".join(match.group("path", "sign", "number")),
        path=match["path"],
        sign=match["sign"],
        number=number,
    )


def _number(text: str, path: str) -> float | None:
    """The number in the unit of ``path``; None if it is not a number."""
    if text in ("true", "false"):
        return float(text == "true")
    number, percent = (text[:-1], True) if text.endswith("%") else (text, False)
    if _PLAIN.fullmatch(number):
        return float(number) / (100 if percent and "percent" not in path else 1)
    return _with_unit(text, path)


def _with_unit(text: str, path: str) -> float | None:
    count = parse_count(text, most=10**18)
    if count is not None:
        return count
    try:
        if "_ms" in path:
            return parse_duration(text) / 1e6
        if re.search(r"_s(\.|$)", path):
            return parse_duration(text) / 1e9
        if "bytes" in path or "rss" in path:
            return parse_bytes(text)
    except ValueError:
        pass
    return None

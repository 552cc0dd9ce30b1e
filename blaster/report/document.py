"""Results and findings read back from their files, which anybody may have written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from blaster.engine.results import Results
from blaster.errors import UsageError
from blaster.units import format_bytes, quoted
from blaster.verdict.capacity import Capacity

MAX_BYTES = 256 << 20
"""Far more than any run writes."""

# Terminals obey control characters: those of a file are shown instead.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Document:
    """One file: what was read, and the JSON that it was, with keys that this version does not know.

    Without control characters in any text, and so safe to print."""

    path: str
    found: Results | Capacity
    raw: dict[str, Any]

    @property
    def kind(self) -> str:
        """run or capacity."""
        return "run" if isinstance(self.found, Results) else "capacity"


def read(path: str) -> Document:
    """Reads what ``blaster run --json`` or ``blaster capacity --json`` wrote. Raises UsageError."""
    try:
        size = Path(path).stat().st_size
        if size > MAX_BYTES:
            raise UsageError(
                f"{quoted(path)}: {format_bytes(size)} are more than results take "
                f"(at most {format_bytes(MAX_BYTES)})"
            )
        raw = _cleaned(msgspec.json.decode(Path(path).read_bytes()))
    except OSError as error:
        raise UsageError(f"{quoted(path)}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"{quoted(path)}: is not JSON: {error}") from None
    return of(raw, path)


def of(raw: Any, path: str) -> Document:
    """The document that this JSON is. Raises UsageError, naming what is missing or wrong."""
    if not isinstance(raw, dict) or raw.get("schema") != 1:
        raise UsageError(
            f"{quoted(path)}: must be what blaster run --json or blaster capacity --json wrote, "
            'with "schema": 1'
        )
    kind: type[Results | Capacity] = Capacity if "trials" in raw else Results
    try:
        return Document(path, msgspec.convert(raw, kind), raw)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{quoted(path)}: not results as this version of blaster writes them: {error}"
        ) from None


def _cleaned(node: Any) -> Any:
    if isinstance(node, str):
        return _CONTROL.sub("\ufffd", node)
    if isinstance(node, list):
        return [_cleaned(item) for item in node]
    if isinstance(node, dict):
        return {_cleaned(key): _cleaned(value) for key, value in node.items()}
    return node

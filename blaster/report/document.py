"""Results and findings, read from untrusted files."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from blaster.engine.results import Results
from blaster.errors import UsageError
from blaster.text import cleaned
from blaster.units import format_bytes, quoted
from blaster.verdict.capacity import Capacity

MAX_BYTES = 256 << 20
"""The largest file that is read; results are far smaller."""


@dataclass(frozen=True, slots=True)
class Document:
    """One file: the results, and the JSON that they were read from, which may have unknown keys.

    All text is clean of control characters, and so safe to print."""

    path: str
    found: Results | Capacity
    raw: dict[str, Any]

    @property
    def kind(self) -> str:
        """run or capacity."""
        return "run" if isinstance(self.found, Results) else "capacity"


def read(path: str) -> Document:
    """Read a file of ``blaster run --json`` or ``blaster capacity --json``. Raises UsageError."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{quoted(path)}: must be a file, not a device or a pipe")
        if status.st_size > MAX_BYTES:
            raise UsageError(
                f"{quoted(path)}: {format_bytes(status.st_size)} is too large for results "
                f"(at most {format_bytes(MAX_BYTES)})"
            )
        raw = cleaned(msgspec.json.decode(Path(path).read_bytes()))
    except OSError as error:
        raise UsageError(f"{quoted(path)}: cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"{quoted(path)}: is not JSON: {error}") from None
    document = of(raw, path)
    if isinstance(document.found, Results) and document.found.verdict is None:
        raise UsageError(f"{quoted(path)}: these results have no verdict")
    return document


def of(raw: Any, path: str) -> Document:
    """Convert JSON to a document. The UsageError names what is missing or wrong."""
    if not isinstance(raw, dict) or raw.get("schema") != 1:
        raise UsageError(
            f"{quoted(path)}: must be what blaster run --json or blaster capacity --json wrote, "
            'with "schema": 1'
        )
    kind: type[Results | Capacity] = Capacity if "trials" in raw else Results
    try:
        found = msgspec.convert(raw, kind)
        if isinstance(found, Results):
            _check(found)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{quoted(path)}: not results as this version of blaster writes them: {error}"
        ) from None
    return Document(path, found, raw)


def _check(results: Results) -> None:
    """Raise ValidationError for what the types allow and no run writes."""
    detected = results.violations.detected_by_rule
    if detected is not None and (missing := results.violations.by_rule.keys() - detected.keys()):
        raise msgspec.ValidationError(
            f"`$.violations.detected_by_rule` lacks {quoted(min(missing))}"
        )

"""The series of a run, or the trials of a search, as CSV (RFC 4180)."""

from __future__ import annotations

import csv
import io
from typing import Any

import msgspec

from blaster.engine.results import Results
from blaster.engine.series import Point
from blaster.verdict.capacity import Capacity
from blaster.verdict.trial import Trial


def to_csv(found: Results | Capacity) -> str:
    """A header with the names of results.json, and a row for each point or trial. Figures that were
    not measured are empty."""
    if isinstance(found, Results):
        names, rows = _names(Point), [msgspec.to_builtins(point) for point in found.series]
    else:
        names, rows = _names(Trial), [msgspec.to_builtins(trial) for trial in found.trials]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in names])
    return out.getvalue()


def _names(kind: type) -> list[str]:
    return [field.name for field in msgspec.inspect.type_info(kind).fields]  # type: ignore[attr-defined]


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    # Keeps spreadsheets from reading text as a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value

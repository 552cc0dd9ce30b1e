"""The output of ``blaster templates inspect``: tables, or JSON."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blaster.payload.capture.capture import MAX_DISTINCT, Capture, Key, Pattern, Values
from blaster.text import clean, cleaned
from blaster.units import format_bytes

MAX_ROWS = 20
"""The most rows of each table."""


def to_json(capture: Capture) -> str:
    """The capture as indented JSON. Sizes are in bytes of protobuf, for one trace."""
    document = {
        "file": capture.path,
        "format": capture.format,
        "records": capture.records,
        "traces": capture.traces,
        "spans": capture.spans,
        "templates": len(capture.shapes),
        "shapes": [_shape(pattern) for pattern in capture.patterns],
        "notes": capture.notes,
    }
    return msgspec.json.format(msgspec.json.encode(cleaned(document)), indent=2).decode() + "\n"


def _shape(pattern: Pattern) -> dict[str, Any]:
    return {
        "root": pattern.root,
        "traces": pattern.traces,
        "spans": pattern.spans,
        "depth": pattern.depth,
        "services": pattern.services,
        "events": pattern.events,
        "links": pattern.links,
        "slots": pattern.slots,
        "bytes": {
            "min": pattern.least_bytes,
            "avg": round(pattern.bytes / pattern.traces),
            "max": pattern.most_bytes,
        },
        "duration_ms": round(pattern.duration_ns / pattern.traces / 1e6, 3),
        "varying": [
            {"service": service, "span": span or None, "attribute": attribute, "distinct": count}
            for (service, span, attribute), count in map(_counted, pattern.varying())
        ],
    }


def _counted(item: tuple[Key, Values]) -> tuple[Key, int]:
    return item[0], min(len(item[1].distinct), MAX_DISTINCT)


def show(capture: Capture, console: Console) -> None:
    """Print the shapes, the most frequent first, and the attributes that vary in each."""
    console.print(
        f"{_cell(capture.path)}: {capture.format}, {capture.traces:,} traces, "
        f"{capture.spans:,} spans; sent as {len(capture.shapes):,} templates",
        highlight=False,
    )
    names = "", "traces", "spans", "depth", "services", "events", "links", "slots"
    table = Table(*names, "bytes", "ms", "root", title="Shapes", **_STYLE)
    for column in table.columns[:10]:
        column.justify = "right"
    for number, pattern in enumerate(capture.patterns[:MAX_ROWS], 1):
        table.add_row(
            str(number),
            *(f"{count:,}" for count in _counts(pattern)),
            format_bytes(pattern.bytes / pattern.traces),
            f"{pattern.duration_ns / pattern.traces / 1e6:,.1f}",
            _cell(pattern.root),
        )
    console.print(table)
    _more(len(capture.patterns), console)
    table = Table("", "service", "span", "attribute", "values", title="Varying", **_STYLE)
    table.columns[4].justify = "right"
    rows = [
        (number, *_counted(item))
        for number, pattern in enumerate(capture.patterns[:MAX_ROWS], 1)
        for item in pattern.varying()
    ]
    for number, (service, span, attribute), count in rows[:MAX_ROWS]:
        values = f"{count:,}" + ("+" if count == MAX_DISTINCT else "")
        table.add_row(str(number), *map(_cell, (service, span or "resource", attribute)), values)
    if rows:
        console.print(table)
        _more(len(rows), console)
    else:
        console.print("No attribute varies among the traces of a shape.")
    for note in capture.notes:
        console.print(f"note: {_cell(note)}", highlight=False)


_STYLE: dict[str, Any] = {
    "title_justify": "left",
    "box": None,
    "pad_edge": False,
    "padding": (0, 2, 0, 0),
    "header_style": "bold",
}


def _cell(text: str) -> str:
    return escape(clean(text))


def _counts(pattern: Pattern) -> tuple[int, ...]:
    services = len(pattern.services)
    return (
        *(pattern.traces, pattern.spans, pattern.depth, services),
        *(pattern.events, pattern.links, pattern.slots),
    )


def _more(count: int, console: Console) -> None:
    if count > MAX_ROWS:
        console.print(f"… and {count - MAX_ROWS:,} more; --json has all")

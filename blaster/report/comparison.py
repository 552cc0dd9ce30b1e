"""Comparisons on the console, in Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blaster.report.markdown import table as markdown_table
from blaster.report.rows import NONE
from blaster.units import format_bytes
from blaster.verdict.comparison import BETTER, SAME, UNSURE, WORSE, Comparison, Difference

HEAD = ("Figure", "Before", "After", "Change", "± 95 %", "")
_WORDS = {WORSE: "REGRESSION", BETTER: "better", SAME: "same", UNSURE: "unsure"}
_STYLES = {WORSE: "red", BETTER: "green", UNSURE: "yellow"}


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row for each figure, with the columns of HEAD."""
    return [
        (
            d.figure,
            _value(d.before, d.unit),
            _value(d.after, d.unit),
            _change(d),
            _interval(d),
            _WORDS.get(d.judgement, ""),
        )
        for d in comparison.differences
    ]


def show(comparison: Comparison, console: Console) -> None:
    """Print the table, the settings that differ, and the conclusion."""
    table = Table(title=escape(_title(comparison)), title_justify="left", box=None, pad_edge=False)
    for number, name in enumerate(HEAD):
        table.add_column(name, justify="right" if 1 <= number <= 4 else "left", no_wrap=True)
    for difference, row in zip(comparison.differences, rows(comparison), strict=True):
        style = _STYLES.get(difference.judgement)
        *cells, word = map(escape, row)
        table.add_row(*cells, f"[{style}]{word}[/]" if style else word)
    console.print(table)
    for note in comparison.unlike:
        console.print(f"not alike: {note}", markup=False, highlight=False)
    console.print(conclusion(comparison), markup=False, highlight=False)


def conclusion(comparison: Comparison) -> str:
    """The judgement in one line."""
    worse = [d.figure for d in comparison.differences if d.judgement == WORSE]
    return f"REGRESSED: {', '.join(worse)}" if worse else "no regression"


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """A heading and a table for each."""
    lines = []
    for comparison in comparisons:
        lines += [f"# {_title(comparison)}", "", *markdown_table(HEAD, rows(comparison)), ""]
        lines += [f"- not alike: {note}" for note in comparison.unlike]
        lines += ["", f"**{conclusion(comparison)}**", ""]
    return "\n".join(lines)


def to_json(comparisons: Sequence[Comparison]) -> str:
    """All of them as indented JSON."""
    document = {
        "schema": 1,
        "regressed": any(comparison.regressed for comparison in comparisons),
        "comparisons": comparisons,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _title(comparison: Comparison) -> str:
    counts = [d.repeats for d in comparison.differences]
    before, after = (max((pair[side] for pair in counts), default=0) for side in (0, 1))
    repeats = f" ({before} and {after} runs)" if max(before, after) > 1 else ""
    return f"{comparison.after} against {comparison.before}{repeats}"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return NONE
    if unit == "B":
        return format_bytes(value)
    if not unit:
        return f"{value:.4%}" if 0 < abs(value) < 0.01 else f"{value:.2%}"
    number = f"{value:,.{1 if abs(value) >= 100 else 3}f}"
    return number if unit == "/s" else f"{number} {unit}"


def _change(difference: Difference) -> str:
    return NONE if difference.change is None else f"{difference.change:+.1%}"


def _interval(difference: Difference) -> str:
    low, high, before = difference.low, difference.high, difference.before
    if low is None or high is None or not before:
        return NONE
    return f"{(high - low) / 2 / abs(before):.1%}"

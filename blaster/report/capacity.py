"""The findings of ``blaster capacity`` on the terminal: trials, a table and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blaster.verdict.capacity import Capacity
from blaster.verdict.limit import NOBODY
from blaster.verdict.trial import Trial
from blaster.verdict.usl import Usl

WIDTH, HEIGHT = 64, 14
ACCEPTED, OFFERED = "●", "·"


def trial_line(trial: Trial) -> str:
    """A trial as one line."""
    loss = f"{trial.loss_ratio:8.3%} lost" if trial.loss_ratio else "nothing lost "
    p99 = "–" if trial.p99_ms is None else f"{trial.p99_ms:,.1f} ms"
    broken = f", broken: {', '.join(trial.broken)}" if trial.broken else ""
    who = f"  {trial.limited_by}: {trial.reason}" if trial.loss_ratio else ""
    load = f"{trial.phase:<10} {_number(trial.load_spans_per_s):>12} spans/s"
    return f"{load}  {loss}  p99 {p99}{broken}{who}"


def summary(found: Capacity, console: Console) -> None:
    """Print the table of findings and the plot."""
    table = Table(title="Capacity", title_justify="left", show_header=False, box=None)
    for name, value in rows(found):
        table.add_row(name, escape(value))
    console.print(table)
    console.print(plot(found.trials), markup=False, highlight=False)


def rows(found: Capacity) -> list[tuple[str, str]]:
    """The findings, as names and values."""
    result = [
        ("No-drop rate", no_drop_rate(found)),
        (f"Partial-drop rate ({found.loss_ratio:.2%})", _partial_drop_rate(found)),
    ]
    if found.within_thresholds is not None:
        result.append(("Within the thresholds", _rate(found.within_thresholds)))
    result.append(("Limited by", f"{found.limited_by}: {found.reason}"))
    result.append(("Generator's own ceiling", _rate(found.generator_spans_per_s)))
    result.append(("Spans in a request", f"{found.batch:,}"))
    over = found.overload
    if over is not None:
        word = "COLLAPSED" if over.collapsed else "held"
        back = (
            f"not within {over.watched_s:g} s"
            if over.recovery_s is None
            else f"after {over.recovery_s:.1f} s"
        )
        result += [
            (
                "At twice the ceiling",
                f"{word}: {over.accepted_spans_per_s:,.0f} spans/s, {over.share:.0%} of it",
            ),
            ("Recovered", back),
        ]
    if found.usl is not None:
        result += law(found.usl)
    result.append(("Trials", f"{len(found.trials)} in {found.duration_s:.0f} s"))
    return result


def no_drop_rate(found: Capacity) -> str:
    """The no-drop rate, or the bound that is known of it."""
    if found.ndr_at_least:
        return f"at least {_rate(found.ndr_at_least)}"
    if not found.ndr and found.ndr_below is not None:
        return f"below {_rate(found.ndr_below)}"
    return _rate(found.ndr)


def _partial_drop_rate(found: Capacity) -> str:
    reached_most = found.limited_by == NOBODY and found.pdr
    return f"at least {_rate(found.pdr)}" if reached_most else _rate(found.pdr)


def law(usl: Usl) -> list[tuple[str, str]]:
    """The Universal Scalability Law's parameters with their standard errors. A parameter that does
    not differ from 0 by two of them is left out, and all are if one is negative: then the law does
    not hold."""
    pairs = (usl.contention, usl.contention_error), (usl.coherency, usl.coherency_error)
    if any(value < -2 * error for value, error in pairs):
        return []
    result = []
    if usl.contention > 2 * usl.contention_error:
        text = f"{usl.contention:.4g} ± {usl.contention_error:.2g}"
        result.append(("Contention σ", text))
    if usl.coherency > 2 * usl.coherency_error:
        result.append(("Coherency κ", f"{usl.coherency:.3g} ± {usl.coherency_error:.2g}"))
    if result:
        result.append(("Law's fit", f"R² {usl.r_squared:.3f} over {usl.points} trials"))
    return result


def plot(trials: Sequence[Trial]) -> str:
    """A plot of accepted rate (y) over offered load (x), both logarithmic; dots: all accepted."""
    points = [
        (log10(t.load_spans_per_s), log10(max(t.accepted_spans_per_s, 1.0)))
        for t in trials
        if t.load_spans_per_s > 0
    ]
    if not points:
        return ""
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    across, up = max(right - left, 0.1), max(high - low, 0.1)
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for column in range(WIDTH):
        x = left + across * column / (WIDTH - 1)
        row = round((x - low) / up * (HEIGHT - 1))
        if 0 <= row < HEIGHT:
            grid[row][column] = OFFERED
    for x, y in points:
        column = round((x - left) / across * (WIDTH - 1))
        grid[round((y - low) / up * (HEIGHT - 1))][column] = ACCEPTED
    lines = [f"accepted, spans/s ({ACCEPTED} a trial, {OFFERED} all that was offered)"]
    for row in reversed(range(HEIGHT)):
        label = {0: 10**low, HEIGHT - 1: 10**high}.get(row)
        lines.append(f"{'' if label is None else f'{label:,.0f}':>12} ┤{''.join(grid[row])}")
    lines.append(" " * 13 + "└" + "─" * WIDTH)
    ends = f"{10**left:,.0f}", f"{10**right:,.0f} offered"
    lines.append(" " * 14 + ends[0] + " " * max(1, WIDTH - len(ends[0]) - len(ends[1])) + ends[1])
    return "\n".join(line.rstrip() for line in lines)


def _rate(rate: float | None) -> str:
    return "unknown" if rate is None else f"{_number(rate)} spans/s"


def _number(rate: float) -> str:
    """Whole but for slow targets, whose trials are less than one apart."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.3g}"

"""The console: progress during a run, and the summary after it."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blaster.engine.control import Progress as RunProgress
from blaster.engine.plan import Plan
from blaster.engine.results import Configuration, Results
from blaster.listener import Listener
from blaster.report import rows
from blaster.report.live import LiveView
from blaster.units import format_bytes, format_count

_COLOURS = {True: "green", False: "red", None: "yellow"}


def summary(results: Results, console: Console) -> None:
    """Print the figures, the violations and the verdict."""
    assert results.verdict is not None
    for title, body in (
        ("Configuration", rows.configuration(results)),
        ("Results", rows.outcome(results)),
    ):
        table = _table(title)
        for name, value in body:
            table.add_row(escape(name), escape(value))
        console.print(table)
    if len(results.stages) > 1:
        table = _table("Stages (sent, accepted, rate, p50, p99, max)")
        for row in rows.stages(results):
            table.add_row(*map(escape, row))
        console.print(table)
    if results.hosts is not None:
        table = _table("Hosts (sent, accepted, rate, p50, p99, late p99, clock, limited by)")
        for row in rows.hosts(results):
            table.add_row(*map(escape, row))
        console.print(table)
    table = _table("Violations (injected, detected)")
    for rule, injected, detected in rows.violations(results):
        table.add_row(escape(rule), injected, detected)
    console.print(table)
    _backends(results, console)
    table = _table("Verdict")
    for check in results.verdict.checks:
        table.add_row(
            escape(check.name),
            f"[{_COLOURS[check.passed]}]{rows.mark(check)}[/]",
            escape(f"{check.actual} (expected {check.expected})"),
        )
    console.print(table)
    verdict = results.verdict
    word, _, cut_short = rows.word(results).partition(" ")
    colour = "green" if verdict.passed else "red"
    word = f"[{colour}]{word.upper()}[/]" + (f" [yellow]{cut_short}[/]" if cut_short else "")
    console.print(f"{word}  limited by: {escape(f'{verdict.limited_by} ({verdict.reason})')}")
    for status, message in results.messages.items():
        console.print(f"  first {status}: {message}", markup=False)
    for note in results.notes:
        console.print(f"  {note}", markup=False, highlight=False)


def _backends(results: Results, console: Console) -> None:
    """Print the findings of other systems, if any were asked for."""
    for title, body in (
        ("Funnel", rows.funnel(results)),
        ("Observed (before → after)", rows.observed(results)),
    ):
        table = _table(title)
        for row in body:
            table.add_row(*map(escape, row))
        if body:
            console.print(table)


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        show_header=False,
        box=None,
        pad_edge=False,
        padding=(0, 2),
    )


class ProgressDisplay(Listener):
    """The progress of a run on standard error: a live view on terminals, plain lines elsewhere.
    A context manager."""

    def __init__(self, quiet: bool, *, keys: bool) -> None:
        """``keys``: whether keys control the run."""
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._lost = 0
        self._shown_s = 0.0
        self._view: LiveView | None = None
        if not quiet and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._view = LiveView(self._console, keys=keys)

    @property
    def control(self) -> LiveView | None:
        """The control of the run by keys; None without a terminal."""
        return self._view

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._view is not None:
            self._view.close()

    def begin(self, plan: Plan, configuration: Configuration) -> None:
        """Show the load that will be sent."""
        if self._quiet:
            return
        if self._view is not None:
            self._view.begin(plan, f"{configuration.endpoint} ({configuration.transport})")
            return
        mix = plan.mix
        print(
            f"{plan.scenario.workload.name}, layout {mix.layout}: "
            f"{mix.bytes_per_span:,.0f} bytes a span, {mix.spans_per_trace:,.4g} spans a "
            f"trace, {plan.per_request:,} traces a request",
            file=sys.stderr,
            flush=True,
        )

    def update(self, progress: RunProgress) -> None:
        """Show one interval, and the workers that were lost in it."""
        if self._quiet:
            return
        if self._view is not None:
            self._view.update(progress)
            return
        for lost in progress.run.lost_workers[self._lost :]:
            self._console.print(f"{lost}; the run goes on without it", highlight=False)
        self._lost = len(progress.run.lost_workers)
        if progress.point.t == self._shown_s:  # what came after the load's end
            return
        self._shown_s = progress.point.t
        print(f"{progress.point.t:8.1f} s  {_line(progress)}", file=sys.stderr, flush=True)


def _line(progress: RunProgress) -> str:
    point, series = progress.point, progress.run.series.items
    begun = series[-2].t if len(series) > 1 else 0.0
    rate = point.accepted / max(point.t - begun, 1e-3)
    accepted = sum(p.accepted for p in series)
    errors = sum(p.failed for p in series)
    parts = [
        f"{rate:,.0f} spans/s",
        f"{format_count(accepted)} accepted",
        f"{errors:,} errors",
        "p99 –" if point.p99_ms is None else f"p99 {point.p99_ms:,.1f} ms",
    ]
    if point.target_cpu is not None and point.target_rss is not None:
        parts.append(f"target {point.target_cpu:.0f} % {format_bytes(point.target_rss)}")
    return "  ".join(parts)

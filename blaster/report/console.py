"""The summary on the console, and the progress while a run goes on."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from blaster.engine.plan import Plan
from blaster.engine.results import Results
from blaster.engine.runner import Progress as RunProgress
from blaster.report import rows
from blaster.units import format_bytes, format_count

_COLOURS = {True: "green", False: "red", None: "yellow"}


def summary(results: Results, console: Console) -> None:
    """Prints the figures, the violations and the verdict."""
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
            table.add_row(*row)
        console.print(table)
    table = _table("Violations (injected, detected)")
    for rule, injected, detected in rows.violations(results):
        table.add_row(escape(rule), injected, detected)
    console.print(table)
    if results.funnel:
        table = _table("Funnel")
        for row in rows.funnel(results):
            table.add_row(*row)
        console.print(table)
    table = _table("Verdict")
    for check in results.verdict.checks:
        table.add_row(
            escape(check.name),
            f"[{_COLOURS[check.passed]}]{rows.mark(check)}[/]",
            escape(f"{check.actual} (expected {check.expected})"),
        )
    console.print(table)
    verdict = results.verdict
    word = "[green]PASSED[/]" if verdict.passed else "[red]FAILED[/]"
    console.print(f"{word}  limited by: {escape(f'{verdict.limited_by} ({verdict.reason})')}")
    for status, message in results.messages.items():
        console.print(f"  first {status}: {message}", markup=False)
    for note in results.notes:
        console.print(f"  {note}", markup=False, highlight=False)


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        show_header=False,
        box=None,
        pad_edge=False,
        padding=(0, 2),
    )


class ProgressDisplay:
    """Shows how a run goes, on standard error: a line that renews itself on a terminal, plain
    lines elsewhere. A context manager; pass :meth:`update` to the runner."""

    def __init__(self, quiet: bool) -> None:
        self._console = Console(stderr=True)
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._lost = 0
        if not quiet and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=12),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
                # Drawn when there is news: a thread of its own would be forked with nothing in it.
                auto_refresh=False,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, plan: Plan) -> None:
        """Says what will be sent."""
        if not self._quiet:
            mix = plan.mix
            print(
                f"{plan.scenario.workload.name}, layout {mix.layout}: "
                f"{mix.bytes_per_span:,.0f} bytes a span, {mix.spans_per_trace:,.4g} spans a "
                f"trace, {plan.per_request:,} traces a request",
                file=sys.stderr,
                flush=True,
            )

    def update(self, progress: RunProgress) -> None:
        """Shows one interval, and the workers that were lost in it."""
        if self._quiet:
            return
        for lost in progress.run.lost_workers[self._lost :]:
            self._console.print(f"{lost}; the run goes on without it", highlight=False)
        self._lost = len(progress.run.lost_workers)
        if self._bar is None:
            line = _line(progress)
            print(f"{progress.point.t:8.1f} s  {line}", file=sys.stderr, flush=True)
            return
        if not self._bar.live.is_started:
            self._task = self._bar.add_task("", total=progress.duration_ns / 1e9)
            self._bar.start()
        self._bar.update(
            self._task, completed=progress.point.t, description=_line(progress), refresh=True
        )


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

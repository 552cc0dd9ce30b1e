"""The live view: one screen that shows a run in progress, redrawn each second.

Lines are cut to the terminal's width; if there are too many for its height, the least important are
left out, so that nothing wraps or scrolls. The run's own loop draws it: a thread would be forked
with the workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from blaster.engine.control import HOLD, STOP, Progress
from blaster.engine.plan import Plan
from blaster.engine.run import Run
from blaster.engine.series import Point
from blaster.engine.slab import Slab
from blaster.pacing.hold import OPEN_NS
from blaster.report.keys import Keys
from blaster.transport.base import Status
from blaster.units import format_bytes

BLOCKS, PLAIN_BLOCKS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
LABEL, VALUE = 16, 13
"""The columns of a line's name, and of its current and highest value; then comes the sparkline."""

NOTICE_S = 8.0


@dataclass(frozen=True)
class _Line:
    """A figure over time. ``key``: an attribute of Point, in spans if it is shown as a rate.
    ``rank``: figures of higher rank are left out first."""

    name: str
    key: str
    show: Callable[[float], str]
    style: str
    rank: int = 0


class LiveView:
    """A run on a terminal's alternate screen; ``poll`` and ``answer`` make it the run's control."""

    def __init__(self, console: Console, *, keys: bool) -> None:
        """``keys``: whether keys control the run."""
        self._console = console
        self._blocks = PLAIN_BLOCKS if console.options.ascii_only else BLOCKS
        self._live = Live(
            console=console,
            screen=True,
            auto_refresh=False,
            transient=True,
            # The workers are forked while it is shown, and inherit both streams.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._keys = Keys()
        self._wants_keys, self._has_keys = keys, False
        self._plan: Plan | None = None
        self._progress: Progress | None = None
        self._notice, self._noticed = "", 0.0
        self._size = console.size
        self._title = ""
        self._peaks: dict[str, float] = {}  # of the whole run, by the keys of FIGURES

    def begin(self, plan: Plan, endpoint: str) -> None:
        """Switch to the alternate screen."""
        self._plan = plan
        self._title = f"blaster {plan.scenario.name} → {endpoint}"
        self._has_keys = self._wants_keys and self._keys.open()
        self._live.start()
        self._draw()

    def close(self) -> None:
        """Restore the terminal."""
        self._keys.close()
        self._live.stop()

    def update(self, progress: Progress) -> None:
        """Show an interval."""
        self._progress = progress
        for line in FIGURES:
            value = _values(line, progress.run.series.items[-2:])[-1]
            if value is not None:
                self._peaks[line.key] = max(value, self._peaks.get(line.key, value))
        self._draw()

    def poll(self, run: Run) -> str | None:
        """Return the command of the keys pressed; redraw if the terminal's size has changed."""
        pressed = self._keys.pressed()
        if self._console.size != self._size:
            self._draw()
        if "q" in pressed or "Q" in pressed:
            return STOP
        return HOLD if (pressed.count("h") + pressed.count("H")) % 2 else None

    def answer(self, text: str) -> None:
        """Show the effect of a key for a while."""
        self._notice, self._noticed = text, time.monotonic()
        self._draw()

    def _draw(self) -> None:
        self._size = self._console.size
        # Without the last column: some terminals wrap there at once, and would scroll.
        width, height = max(self._size.width - 1, 20), max(self._size.height, 4)
        lines = self.lines(width, height)
        self._live.update(Text("\n", no_wrap=True, overflow="crop").join(lines), refresh=True)

    def lines(self, width: int, height: int) -> list[Text]:
        """The screen: at most ``height`` lines of at most ``width`` cells."""
        assert self._plan is not None
        head = [_both(Text(self._title, "bold"), Text(self._clock()), width)]
        progress = self._progress
        if progress is None:
            return [*head, Text("connecting")]
        head.append(self._stage(progress.run, width))
        head.append(Text(f"{'now':>{LABEL + VALUE}}{'highest':>{VALUE}}", "dim"))
        watched = "target_cpu" in self._peaks
        figures = [f for f in FIGURES if watched or not f.key.startswith("target_")]
        foot = self._foot(progress.run, width)
        room = height - len(head) - len(foot) - 2
        while len(figures) > max(room, 1):
            figures.remove(max(figures, key=lambda line: line.rank))
        tall = max(1, min(3, room // max(len(figures), 1)))
        columns = max(width - LABEL - 2 * VALUE - 2, 1)
        points = progress.run.series.items[-columns - 1 :]
        body = [row for line in figures for row in self._figure(line, points, columns, tall)]
        gap = [Text("")] if room >= len(figures) + 1 else []
        lines = [*head, *gap, *body, *gap, *foot]
        if len(lines) > height:
            lines = [*lines[: height - 1], lines[-1]]
        return [_cut(line, width) for line in lines]

    def _clock(self) -> str:
        if self._progress is None:
            return ""
        run, t = self._progress.run, self._progress.point.t
        held = run.ledger.holds()
        if held and held[-1].duration_ns == OPEN_NS:
            return f"{_time(t)}, held"
        return f"{_time(t)} of {_time(self._progress.duration_ns / 1e9)}"

    def _stage(self, run: Run, width: int) -> Text:
        assert self._progress is not None
        t, begin = round(self._progress.point.t * 1e9), 0
        stages = run.plan.scenario.stages
        for number, stage in enumerate(stages, 1):
            end = begin + stage.duration_ns
            if t < end or number == len(stages):
                break
            begin = end
        # The stage as it was asked for; holds have lengthened that of the run's plan.
        assert self._plan is not None
        asked = self._plan.scenario.stages[number - 1]
        name = f"stage {number} of {len(stages)}: {asked}"
        holds = run.ledger.holds()
        if holds and holds[-1].duration_ns == OPEN_NS:
            return _both(Text(name), Text(f"HELD at {holds[-1].rate:,} spans/s", "yellow"), width)
        share = min(1.0, (t - begin) / max(end - begin, 1))
        bar = max(0, min(20, width - cell_len(name) - 14))
        full, empty = ("#", ".") if self._blocks == PLAIN_BLOCKS else ("█", "░")
        left = f" {_time(max(end - t, 0) / 1e9)} left"
        return _both(
            Text(name),
            Text(full * round(share * bar) + empty * (bar - round(share * bar)) + left),
            width,
        )

    def _figure(self, line: _Line, points: Sequence[Point], columns: int, tall: int) -> list[Text]:
        values = _values(line, points)[-columns:]
        now = values[-1] if values else None
        shown = "–" if now is None else line.show(now)
        if self._blocks == PLAIN_BLOCKS and now is None:
            shown = "-"
        most = self._peaks.get(line.key, 0.0)
        peak = line.show(most) if line.key in self._peaks else ""
        rows = self._spark(values, most, tall)
        first = Text.assemble(
            set_cell_size(line.name, LABEL),
            (f"{shown:>{VALUE}}", "bold"),
            (f"{peak:>{VALUE}}  ", "dim"),
            (rows[0], line.style),
        )
        rest = [Text.assemble(" " * (LABEL + 2 * VALUE + 2), (row, line.style)) for row in rows[1:]]
        return [first, *rest]

    def _spark(self, values: Sequence[float | None], most: float, tall: int) -> list[str]:
        steps = len(self._blocks) - 1
        scale = steps * tall / most if most > 0 else 0.0
        known = np.array([value or 0.0 for value in values])
        scaled = np.clip(np.rint(known * scale), 1, steps * tall)
        heights = np.where(known > 0, scaled, 0).astype(np.int64).tolist()
        rows = []
        for row in reversed(range(tall)):
            # The character for each height in this row: a column is one look-up.
            of = [
                self._blocks[min(steps, max(0, h - steps * row))] for h in range(steps * tall + 1)
            ]
            rows.append("".join([of[height] for height in heights]))
        return rows

    def _foot(self, run: Run, width: int) -> list[Text]:
        accepted = run.ledger.total(Slab.accepted)
        failed = run.ledger.lost_spans()
        lines = [
            Text.assemble(
                set_cell_size("Spans", LABEL),
                f"{accepted:,} accepted, ",
                (f"{failed:,} failed", "red" if failed else ""),
            ),
            Text.assemble(set_cell_size("Errors", LABEL), *_errors(run)),
        ]
        lines += [
            Text(f"{lost}; the run goes on without it", "red") for lost in run.lost_workers[-2:]
        ]
        if self._notice and time.monotonic() < self._noticed + NOTICE_S:
            lines.append(Text(self._notice, "yellow"))
        keys = "q stop   h hold the rate, or release it" if self._has_keys else "^C stop"
        return [*lines, Text(keys, "dim")]


def _errors(run: Run) -> Iterable[tuple[str, str] | str]:
    counts = run.ledger.statuses()
    found = [(int(n), Status(status).name) for status, n in enumerate(counts) if n and status]
    if not found:
        return ["none"]
    counts_text = ", ".join(f"{n:,} × {name}" for n, name in sorted(found, reverse=True))
    return [(counts_text, "red")]


def _values(line: _Line, points: Sequence[Point]) -> list[float | None]:
    """The figure at each point; rates leave out the first point, unless it is the run's first."""
    found: list[float | None] = [getattr(point, line.key) for point in points]
    if line.key not in RATES:
        return found
    begun = [0.0, *(point.t for point in points)]
    return [
        (value or 0) / max(point.t - begin, 1e-3)
        for value, point, begin in zip(found, points, begun, strict=False)
    ]


def _both(left: Text, right: Text, width: int) -> Text:
    """A line with text at its left and right end; the left one is cut to fit."""
    room = max(0, width - right.cell_len - 1)
    left.truncate(room, overflow="ellipsis", pad=True)
    return Text.assemble(left, " ", right)


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="crop")
    line.no_wrap = True
    return line


def _time(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes:02}:{second:02}"


def _rate(value: float) -> str:
    return f"{value:,.0f}/s"


def _ms(value: float) -> str:
    return f"{value:,.2f} ms"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{value:,.1f} %"


RATES = ("scheduled", "accepted", "failed")
FIGURES = (
    _Line("Offered", "scheduled", _rate, "blue", 1),
    _Line("Accepted", "accepted", _rate, "green"),
    _Line("Failed", "failed", _rate, "red", 2),
    _Line("Latency p50", "p50_ms", _ms, "cyan", 3),
    _Line("Latency p90", "p90_ms", _ms, "cyan", 9),
    _Line("Latency p99", "p99_ms", _ms, "cyan"),
    _Line("Latency p99.9", "p999_ms", _ms, "cyan", 8),
    _Line("In flight", "in_flight", _count, "magenta", 4),
    _Line("Backlog, spans", "backlog", _count, "magenta", 10),
    _Line("Target CPU", "target_cpu", _percent, "yellow", 5),
    _Line("Target memory", "target_rss", format_bytes, "yellow", 6),
    _Line("Generator CPU", "generator_cpu", _percent, "white", 7),
    _Line("Gen. memory", "generator_rss", format_bytes, "white", 11),
)

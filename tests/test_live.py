"""The live view under a pseudo-terminal, its keys, and the schedule with holds in it."""

import re
import sys
import time
from pathlib import Path

import numpy as np
import pexpect
import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import cli

from blaster.engine.plan import Plan
from blaster.pacing.hold import Hold, held
from blaster.pacing.pacer import Pacer, Ramp, Sine, Stages, Steady
from blaster.scenario.scenario import Scenario, parse_stages

MS = 1_000_000


class Terminal:
    """``blaster`` in a pseudo-terminal, whose screen pyte keeps as a real one would show it."""

    def __init__(self, *arguments: str, rows: int, columns: int, **more: str) -> None:
        environment = cli.environment(**{"TERM": "xterm-256color", **more})
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.process = pexpect.spawn(
            sys.executable,
            ["-m", "blaster", *arguments],
            env=environment,
            dimensions=(rows, columns),
            timeout=30,
        )

    def watch(self, wanted: str = "", limit_s: float = 30.0) -> str:
        """Follows the output until ``wanted`` is on the screen, or to the end for nothing."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            if not self.read():
                assert not wanted, self.text()
                break
            if wanted and wanted in self.text():
                break
        else:
            pytest.fail(f"{wanted!r} is not on the screen:\n{self.text()}")
        return self.text()

    def read(self) -> bool:
        """Takes what has been put out, if anything has before long; False at the end."""
        try:
            data = self.process.read_nonblocking(1 << 16, 0.1)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        self.raw += data
        self._stream.feed(data)
        return True

    def text(self) -> str:
        return "\n".join(self.screen.display)

    def resize(self, rows: int, columns: int) -> None:
        self.screen.resize(rows, columns)
        self.screen.erase_in_display(2)
        self.process.setwinsize(rows, columns)

    def status(self) -> int:
        self.watch()
        self.process.close()
        return int(self.process.exitstatus or 0)


def whole(terminal: Terminal) -> None:
    """The view is all there, or will be: what was drawn for the size before may still come first.
    Its first line is at the top, its last one below, nothing is wrapped."""
    until = time.monotonic() + 10
    while not is_whole(lines := [line.rstrip() for line in terminal.screen.display]):
        assert time.monotonic() < until and terminal.read(), lines


def is_whole(lines: list[str]) -> bool:
    last = max((number for number, line in enumerate(lines) if line), default=0)
    return (
        lines[0].startswith("blaster normal → http")
        and lines[last].startswith("q stop")
        and sum(line.startswith("Accepted") for line in lines) == 1
        and sum("stage 1 of" in line for line in lines) == 1
    )


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (50, 200)])
def test_the_view_fits_and_follows_the_terminal(rows: int, columns: int) -> None:
    """At either size every line is whole; resized while it runs it is drawn anew; afterwards the
    terminal is as it was and the summary stands on it."""
    terminal = Terminal(
        *("run", "--embedded", "--rate", "500", "--duration", "20s", "--seed", "7"),
        rows=rows,
        columns=columns,
    )
    text = terminal.watch("Spans           ")
    whole(terminal)
    for name in ("Offered", "Latency p50", "Latency p99", "In flight", "Target CPU", "Gen"):
        assert name in text
    terminal.resize(16, 60)
    terminal.watch("q stop")
    whole(terminal)
    terminal.resize(rows, columns)
    terminal.watch("Target memory")
    whole(terminal)
    terminal.process.send("q")
    assert terminal.status() == 130
    assert "limited by" in terminal.text() and "(interrupted after" in terminal.text()
    assert b"\x1b[?1049h" in terminal.raw and b"\x1b[?1049l" in terminal.raw
    assert terminal.raw.rfind(b"\x1b[?25h") > terminal.raw.rfind(b"\x1b[?25l")


def test_a_held_rate_is_accounted_for_exactly(tmp_path: Path) -> None:
    """A ramp is held and released: what was put in is scheduled, sent and received to the span."""
    out = tmp_path / "r.json"
    terminal = Terminal(
        *("run", "--embedded", "--stages", "100..1000@4s,200@1s", "--workers", "2", "--seed", "7"),
        *("--json", str(out)),
        rows=24,
        columns=80,
    )
    terminal.watch("Spans           ")
    terminal.process.send("h")
    terminal.watch("HELD at")
    time.sleep(1.0)
    terminal.process.send("h")
    terminal.watch("released")
    assert terminal.status() == 0, terminal.text()
    read = cli.results(out)
    (hold,) = read["holds"]
    assert hold["duration_s"] > 1 and 100 <= hold["spans_per_s"] < 1000
    put_in = -(-hold["spans_per_s"] * round(hold["duration_s"] * 1e9) // 10**9)
    assert read["spans"]["scheduled"] == 2400 + put_in
    assert read["sink"]["spans"] == read["spans"]["accepted"] == read["spans"]["sent"]
    first, second = (stage["spans"] for stage in read["stages"])
    # A request belongs to the stage in which its first span is due: to within one request.
    assert abs(second["scheduled"] - 200) <= read["configuration"]["spans_per_request"]
    assert first["scheduled"] + second["scheduled"] == 2400 + put_in
    assert read["stages"][1]["start_s"] == pytest.approx(4 + hold["duration_s"])


def test_no_colour_no_terminal() -> None:
    """NO_COLOR leaves no colour on a terminal; in a pipe, or on a dumb one, there are plain lines;
    without keys nothing waits for any."""
    terminal = Terminal(
        *("run", "--embedded", "--duration", "2s", "--seed", "7"),
        rows=24,
        columns=80,
        NO_COLOR="1",
    )
    assert terminal.status() == 0
    assert not re.search(rb"\x1b\[(\d+;)*(3[0-8]|9[0-7])[;m]", terminal.raw)
    dumb = Terminal(*("run", "--embedded", "--duration", "2s"), rows=24, columns=80, TERM="dumb")
    assert dumb.status() == 0 and b"\x1b" not in dumb.raw
    piped = cli.blaster("run", "--embedded", "--duration", "2s")
    assert piped.returncode == 0 and "\x1b" not in piped.stdout + piped.stderr
    assert piped.stderr.count(" spans/s ") >= 2


def test_a_terminal_without_unicode() -> None:
    """Where the encoding has no blocks, sparklines are drawn with ASCII."""
    terminal = Terminal(
        *("run", "--embedded", "--duration", "3s"),
        rows=24,
        columns=80,
        PYTHONIOENCODING="ascii:replace",
    )
    text = terminal.watch("Spans           ")
    assert "@" in text and "?" not in text.replace("? http", ""), text
    assert terminal.status() == 0


PACERS = st.one_of(
    st.builds(Steady, st.integers(1, 5000), st.integers(100, 3000).map(lambda ms: ms * MS)),
    st.builds(
        Ramp,
        st.integers(1, 3000),
        st.integers(1, 3000),
        st.integers(100, 3000).map(lambda ms: ms * MS),
    ),
    st.builds(
        Sine,
        st.integers(1, 1000),
        st.integers(1, 3000),
        st.just(700 * MS),
        st.integers(700, 2000).map(lambda ms: ms * MS),
    ),
)


@given(st.lists(PACERS, min_size=1, max_size=3), st.data())
def test_holds_put_spans_in_and_change_nothing_before(
    parts: list[Pacer], data: st.DataObject
) -> None:
    """A schedule with holds: times ascend and are the inverse of due, what was due before a hold
    stays as it was, what comes after is later by it, and open or released makes no difference to
    what is due until then."""
    inner = Stages(parts)
    begin = data.draw(st.integers(0, inner.duration_ns - 1))
    length = data.draw(st.integers(0, 2000 * MS))
    rate = data.draw(st.integers(1, 4000))
    released, still_open = (
        held(inner, [Hold(begin, rate, length)]),
        held(inner, [Hold(begin, rate)]),
    )
    put_in = -(-rate * length // 10**9)
    assert released.total == inner.total + put_in
    assert released.duration_ns == inner.duration_ns + length
    n = np.arange(released.total)
    times = released.times(n)
    assert (np.diff(times) >= 0).all()
    before = inner.due(begin - 1)
    assert (times[:before] == inner.times(n[:before])).all()
    after = before + put_in
    assert (times[after:] == inner.times(n[before : inner.total]) + length).all()
    until = begin + length - 1
    assert (times[times <= until] == still_open.times(n[times <= until])).all()
    for at in data.draw(st.lists(st.integers(-1, released.duration_ns + 5), max_size=8)):
        assert released.due(at) == int((times <= at).sum())
        if at <= until:
            assert still_open.due(at) == released.due(at)


def test_a_second_hold_begins_within_the_first_ones_time() -> None:
    """Holds follow one another, each from the run's own time on; the plan's stages grow by them."""
    plan = Plan.of(Scenario(name="x", stages=parse_stages("100@2s,300@1s")), seed=1, workers=2)
    longer = plan.held([Hold(10**9, 100, 3 * 10**9), Hold(4_500_000_000, 100, 10**9)])
    assert longer.pacer is not None and longer.pacer.total == 500 + 400
    assert [stage.duration_ns for stage in longer.scenario.stages] == [6 * 10**9, 10**9]
    assert longer.segments.starts.tolist() == [0, 6 * 10**9]
    assert sum(longer.shard(w).spans_of(longer.shard(w).requests or 0) for w in range(2)) == 900
    assert [plan.rate_at(t) for t in (0, 2 * 10**9 - 1, 2 * 10**9, 9 * 10**9)] == [
        100,
        100,
        300,
        300,
    ]


def test_a_ramp_that_was_held_goes_on_where_it_was() -> None:
    """The rate after a hold is that of the schedule's own time, which stood still meanwhile."""
    plan = Plan.of(Scenario(name="x", stages=parse_stages("100..1100@10s")), seed=1, workers=1)
    longer = plan.held([Hold(5 * 10**9, 600, 10**10)])
    moments = (0, 4 * 10**9, 6 * 10**9, 14 * 10**9, 17 * 10**9, 20 * 10**9)
    assert [longer.rate_at(t) for t in moments] == [100, 500, 600, 600, 800, 1100]


@pytest.mark.parametrize(
    ("stages", "more", "why"),
    [
        ("100@9s", {"arrivals": "poisson"}, "evenly spaced"),
        ("100@9s", {"burst": 3}, "evenly spaced"),
    ],
)
def test_what_cannot_be_held_is_said(stages: str, more: dict[str, object], why: str) -> None:
    """Schedules whose past would change by a hold refuse it."""
    scenario = Scenario(name="x", stages=parse_stages(stages), **more)  # type: ignore[arg-type]
    assert why in (Plan.of(scenario, seed=1, workers=1).cannot_hold() or "")

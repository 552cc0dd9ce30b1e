"""Faults on the target's side: what may be asked for, who is never touched, and what is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import cli

from blaster import chaos
from blaster.chaos import Chaos, ChaosMark, Event
from blaster.errors import UsageError
from blaster.measure.sampler import parse_watch

S = 10**9

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_what_is_written_is_what_is_meant() -> None:
    assert chaos.parse("60s kill; 30s pause 5s :4317;40s pause;1m30s continue collector") == (
        Event("30s pause 5s :4317", 30 * S, "pause", 5 * S, ":4317"),
        Event("40s pause", 40 * S, "pause"),
        Event("60s kill", 60 * S, "kill"),
        Event("1m30s continue collector", 90 * S, "continue", None, "collector"),
    )


BAD = [
    (["--chaos", "1s pause"], "--chaos '1s pause': stops processes: only with --allow-chaos"),
    (["--allow-chaos"], "--allow-chaos: there is no --chaos"),
    (["--chaos", ";", "--allow-chaos"], "must say when and what"),
    (["--chaos", "1s explode", "--allow-chaos"], "'1s explode': TIME and pause, continue"),
    (["--chaos", "soon kill", "--allow-chaos"], "'soon kill': soon: must be a time"),
    (["--chaos", "1s kill it now", "--allow-chaos"], "too many words"),
    (["--chaos", "5s kill", "--allow-chaos"], "the run ends at 2s"),
    (
        ["--chaos", "1s kill nginx", "--allow-chaos"],
        "'nginx' is not watched; --watch names nothing",
    ),
]


@pytest.mark.parametrize(("options", "said"), BAD, ids=[said for _, said in BAD])
def test_what_cannot_be_done_is_said_in_one_line(options: list[str], said: str) -> None:
    """As the command line says it, without one for each."""
    given = dict(zip(options[::2], options[1::2], strict=False))
    with pytest.raises(UsageError) as refused:
        chaos.check(given.get("--chaos"), "--allow-chaos" in options, 2 * S, [], True)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_the_command_line_refuses_before_anything_is_sent() -> None:
    options = ["--chaos", "1s kill", "--allow-chaos", "--watch", "1"]
    done = cli.blaster("run", "--rate", "10", "--duration", "2s", "--embedded", *options)
    assert done.returncode == 2
    assert done.stderr == (
        "blaster: --chaos '1s kill': pid 1 is the system's first process, which is never touched\n"
    )


def test_a_target_must_be_watched() -> None:
    with pytest.raises(UsageError, match="--watch must name the process"):
        chaos.check("1s kill", True, 10 * S, [], False)
    with pytest.raises(UsageError, match="say which of a, b"):
        chaos.check("1s kill", True, 10 * S, ["a", "b"], False)
    assert chaos.check("1s kill b", True, 10 * S, ["a", "b"], False)


def touching(pid: int, sink_pid: int | None = None) -> Chaos:
    text = str(pid)
    return Chaos([Event("0s kill", 0, "kill", None, text)], {text: parse_watch(text)}, sink_pid)


def test_who_is_never_touched() -> None:
    """Not pid 1, not this process, not its parents, not its children."""
    with pytest.raises(UsageError, match="blaster itself"):
        touching(os.getpid())
    for parent in psutil.Process().parents():
        with pytest.raises(UsageError, match="never touched"):
            touching(parent.pid)
    with subprocess.Popen(SLEEPER) as child:
        try:
            with pytest.raises(UsageError, match="workers, which are never touched"):
                touching(child.pid)
            touching(child.pid, sink_pid=child.pid)  # the one child that may be
        finally:
            child.kill()


def becomes(process: psutil.Process, stopped: bool) -> bool:
    """Return whether the process comes to be stopped, or not stopped: signals take their time."""
    until = time.monotonic() + 30
    while (process.status() == psutil.STATUS_STOPPED) != stopped:
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def test_what_was_paused_goes_on_at_the_end_and_the_marks_say_what_was() -> None:
    """A pause has its length, its recovery and its spans; one without an end is ended."""
    with subprocess.Popen(SLEEPER) as child:
        process = psutil.Process(child.pid)
        try:
            events = [
                Event("1s pause 2s", 1 * S, "pause", 2 * S),
                Event("8s pause", 8 * S, "pause"),
            ]
            accepted = lost = 0
            with Chaos(events, {}, child.pid) as disorder:
                for tick in range(200):
                    t = tick * S // 20
                    paused = S < t <= 3 * S or t > 8 * S
                    accepted += 0 if paused else 10
                    lost += 3 if paused else 0
                    disorder.tick(t, accepted, lost)
                    assert becomes(process, S <= t < 3 * S or t >= 8 * S), t
            assert becomes(process, False)
            who = f"{process.name()} ({child.pid})"
            first = lost - 3 * 39
            assert disorder.marks(lost + 7) == [
                ChaosMark(1.0, "pause", who, 2.0, 0.0, first),
                ChaosMark(8.0, "pause", who, None, None, lost + 7 - first),
            ]
        finally:
            child.kill()


def test_the_embedded_sink_paused_and_killed(tmp_path: Path) -> None:
    """The results mark each fault; the equations hold with a target that is gone."""
    path = tmp_path / "results.json"
    done = cli.blaster(
        *("run", "--rate", "500", "--duration", "4s", "--embedded", "--timeout", "1s"),
        *("--chaos", "1s pause 500ms; 3s kill", "--allow-chaos", "--json", str(path)),
    )
    assert done.returncode == 1, done.stderr
    read = cli.results(path)
    pause, kill = read["faults"]
    assert pause["action"] == "pause" and pause["duration_s"] >= 0.5
    assert pause["t"] >= 1 and pause["recovery_s"] is not None
    assert kill["action"] == "kill" and kill["recovery_s"] is None
    spans = read["spans"]
    lost = spans["rejected"] + spans["failed"] + spans["unknown"]
    assert kill["spans_lost"] > 0 and pause["spans_lost"] + kill["spans_lost"] == lost
    assert read["sink"] is None
    assert sum(note.startswith("chaos at ") for note in read["notes"]) == 2


def test_a_watched_process_is_terminated_at_its_time(tmp_path: Path) -> None:
    """Another process than the target, named by its pid, which is ours to end."""
    path = tmp_path / "results.json"
    with subprocess.Popen(SLEEPER) as child:
        done = cli.blaster(
            *("run", "--rate", "500", "--duration", "2s", "--embedded", "--json", str(path)),
            *("--watch", str(child.pid), "--chaos", "500ms terminate", "--allow-chaos"),
        )
        assert child.wait(5) == -15, done.stderr
    (mark,) = cli.results(path)["faults"]
    assert mark["action"] == "terminate" and str(child.pid) in mark["what"]
    assert mark["spans_lost"] == 0

"""Runs drawn at random: what is sent and how, the sink's faults, and signals at random moments.

``draw`` makes a run of a seed, ``perform`` runs it and returns its problems: each equation, file or
exit status that does not hold. The same seed is always the same command; the moments at which its
signals arrive depend on the machine, too.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import shlex
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from blaster.transport.choice import wire_is_built
from support import cli

LONGEST_S = 90.0
"""A run that takes longer hangs."""

PARENT, WORKER, SINK = "parent", "worker", "sink"

FAULTS = {
    "wire": (
        *("delay=5ms..80ms@30%", "delay=exp:10ms", "status=UNAVAILABLE@20%"),
        *("status=RESOURCE_EXHAUSTED,retry=100ms@20%", "status=INVALID_ARGUMENT@5%"),
        *("status=INTERNAL@3%", "partial=30%@20%", "freeze=300ms,at=200ms", "rst@5%"),
        *("rst=REFUSED_STREAM@10%", "goaway@3%", "reset@3%", "refuse,from=300ms,for=200ms"),
        *("half-close@3%", "garbage@3%", "frames@3%", "oversize=1MiB@3%", "content-type@5%"),
        *("slow-read=200ms@3%", "http=503@5%", "status=UNAVAILABLE,from=200ms,for=300ms"),
    ),
    "grpc": (
        *("delay=5ms..80ms@30%", "delay=exp:10ms", "status=UNAVAILABLE@20%"),
        *("status=RESOURCE_EXHAUSTED,retry=100ms@20%", "status=INVALID_ARGUMENT@5%"),
        *("partial=30%@20%", "freeze=300ms,at=200ms", "rst@5%", "rst=REFUSED_STREAM@10%"),
        *("goaway@3%", "reset@3%", "half-close@3%", "garbage@3%", "content-type@5%"),
        *("http=503@5%", "oversize=1MiB@3%"),
    ),
    "http": (
        *("delay=5ms..80ms@30%", "delay=exp:10ms", "http=503@20%"),
        *("http=429,retry-after=1s@10%", "http=400@5%", "http=500@3%", "partial=30%@20%"),
        *("freeze=300ms,at=200ms", "reset@5%", "refuse,from=300ms,for=200ms", "half-close@3%"),
        *("garbage@3%", "oversize=1MiB@3%", "content-type@5%", "slow-read=200ms@3%"),
    ),
}
"""Faults of the sink that each transport meets."""


@dataclass(frozen=True)
class Act:
    """A signal to one of the run's processes; SIGSTOP is followed by SIGCONT after ``pause_s``.

    ``sending``: its moment is so many seconds after the first line of progress, which comes as the
    load begins; otherwise after the start of the process.
    """

    whom: str
    signal: signal.Signals
    after_s: float
    sending: bool
    pause_s: float | None = None

    def __str__(self) -> str:
        since = "the load begins" if self.sending else "the start"
        pause = "" if self.pause_s is None else f", SIGCONT {self.pause_s} s later"
        return f"{self.signal.name} to the {self.whom} {self.after_s} s after {since}{pause}"


@dataclass(frozen=True)
class RandomRun:
    """A run of ``blaster``, without its outputs, and the signals to its processes."""

    seed: int
    arguments: tuple[str, ...]
    outputs: tuple[str, ...]
    acts: tuple[Act, ...]

    def __str__(self) -> str:
        outputs = [f"--{name} r.{name}" for name in self.outputs]
        command = " ".join(["blaster", shlex.join(self.arguments), *outputs])
        return "; ".join([f"seed {self.seed}: {command}", *map(str, self.acts)])

    @property
    def transport(self) -> str:
        return self.arguments[self.arguments.index("--transport") + 1]

    def signals(self, whom: str) -> set[signal.Signals]:
        return {act.signal for act in self.acts if act.whom == whom}


@dataclass(frozen=True)
class Performed:
    """A run's end: its problems, its exit status, and its results where there are any."""

    run: RandomRun
    status: int
    problems: list[str]
    read: dict[str, Any] | None


def draw(seed: int) -> RandomRun:
    """Return the run of this seed."""
    dice = random.Random(seed)
    transport = dice.choice([*(["wire"] * 3 if wire_is_built() else []), "grpc", "http", "http"])
    if dice.random() < 0.05:
        transport = "null"
    json_encoded = transport == "http" and dice.random() < 0.4
    fastest = {"wire": 20_000, "grpc": 5_000, "http": 5_000, "null": 20_000}[transport]
    options = ["run", "--transport", transport, "--seed", str(seed)]
    if transport != "null":
        options += ["--embedded"]
    if json_encoded:
        options += ["--encoding", "json"]
        fastest = 1_000
    options += _load(dice, fastest)
    options += _shape(dice)
    if transport != "null":
        options += _delivery(dice, transport)
    outputs = ["json", *(n for n in ("markdown", "csv", "junit", "html") if dice.random() < 0.4)]
    acts = _acts(dice, embedded=transport != "null")
    return RandomRun(seed, tuple(options), tuple(outputs), acts)


def _load(dice: random.Random, fastest: int) -> list[str]:
    def rate() -> int:
        return round(10 ** dice.uniform(1.5, len(str(fastest)) - 1)) + dice.randrange(fastest // 4)

    def milliseconds(total: int = 1200) -> str:
        return f"{dice.randint(50, total)}ms"

    kind = dice.random()
    if kind < 0.12:
        options = ["--rate", "max", "--duration", milliseconds(600)]
    elif kind < 0.5:
        options = ["--rate", str(rate()), "--duration", milliseconds()]
    else:
        stages = []
        for _ in range(dice.randint(1, 3)):
            low, high, ms = rate(), rate(), dice.randint(50, 500)
            length = f"{ms}ms"
            stages.append(
                dice.choice(
                    [
                        f"{low}@{length}",
                        f"{low}..{high}@{length}",
                        f"sine:{min(low, high)}..{max(low, high)}/200ms@{length}",
                        f"spike:{min(low, high)}..{max(low, high)}/{ms // 3}ms@{length}",
                    ]
                )
            )
        options = ["--stages", ",".join(stages)]
    if kind >= 0.12 and dice.random() < 0.2:
        options += ["--arrivals", "poisson"]
    if kind >= 0.12 and dice.random() < 0.15:
        options += ["--burst", str(dice.randint(2, 9))]
    if dice.random() < 0.1:
        options += ["--warmup", dice.choice(["20ms", "auto"])]
    if dice.random() < 0.05:
        options += ["--abort-on", f"spans.sent > {dice.randint(1, 500)}"]
    return options


def _shape(dice: random.Random) -> list[str]:
    options = []
    if dice.random() < 0.4:
        options += ["--workload", dice.choice(["web-shop", "deep", "wide", "llm-agent"])]
        if dice.random() < 0.5:
            options += ["--layout", dice.choice(["sdk", "gateway", "scattered"])]
    elif dice.random() < 0.5:
        options += ["--spans-per-trace", str(dice.randint(2, 9))]
    if dice.random() < 0.6:
        options += ["--batch", str(dice.choice([10, 33, 100, 500, 1000]))]
    if dice.random() < 0.5:
        options += ["--violation-rate", dice.choice(["0", "0.03", "0.5", "1"])]
    workers = dice.choice([0, 0, 1, 2, 2, 3])
    if workers:
        options += ["--workers", str(workers)]
        if dice.random() < 0.4:
            options += ["--connections", str(workers * dice.randint(1, 3))]
        if dice.random() < 0.3:
            options += ["--in-flight", str(workers * dice.randint(3, 8))]
    return options


def _delivery(dice: random.Random, transport: str) -> list[str]:
    options = []
    if dice.random() < 0.4:
        names = ["gzip"] if transport == "grpc" else ["gzip", "zstd"]
        options += ["--compression", dice.choice(names)]
    options += ["--timeout", dice.choice(["300ms", "1s", "2s"])]
    if dice.random() < 0.6:
        options += ["--retry", dice.choice(["off", "spec", "ignore-throttle"])]
    for _ in range(dice.choice([0, 0, 0, 1, 1, 2])):
        options += ["--fault", dice.choice(FAULTS[transport])]
    if dice.random() < 0.05:
        options += ["--chaos", "200ms pause 200ms", "--allow-chaos"]
    return options


def _acts(dice: random.Random, *, embedded: bool) -> tuple[Act, ...]:
    kinds = [
        *[(PARENT, signal.SIGINT), (PARENT, signal.SIGTERM)] * 2,
        (WORKER, signal.SIGSTOP),
        *([(SINK, signal.SIGSTOP)] * embedded),
    ]
    acts = []
    for _ in range(dice.choice([0, 0, 0, 1, 1, 2])):
        whom, number = dice.choice(kinds)
        sending = dice.random() < 0.7
        after_s = round(dice.uniform(0, 1.0 if sending else 3.0), 3)
        pause_s = round(dice.uniform(0.05, 0.6), 3) if number == signal.SIGSTOP else None
        acts.append(Act(whom, number, after_s, sending, pause_s))
    return tuple(acts)


# ---- performing ----


def perform(run: RandomRun) -> Performed:
    """Run it, with its signals, and check its end."""
    with tempfile.TemporaryDirectory(prefix="random-run-") as name:
        folder = Path(name)
        files = {output: folder / f"r.{output}" for output in run.outputs}
        outputs = [word for output, file in files.items() for word in (f"--{output}", str(file))]
        command = cli.launch(*run.arguments, *outputs)
        try:
            with contextlib.suppress(psutil.NoSuchProcess):
                _act(command, run.acts)
            ended = command.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            return Performed(run, 0, [f"hangs: not over after {LONGEST_S} s"], None)
        problems, read = _checked(run, files, ended.returncode, ended.stdout, ended.stderr)
        return Performed(run, ended.returncode, problems, read)


def _act(command: cli.Launched, acts: Sequence[Act]) -> None:
    """Send the signals at their moments, as long as there is somebody to get them."""
    process = psutil.Process(command.pid)
    began = time.monotonic()
    loaded: float | None = None
    due = list(acts)
    resumed: list[tuple[float, int]] = []
    while (due or resumed) and command.is_running():
        now = time.monotonic()
        if loaded is None and "bytes a span" in command.errors():
            loaded = now
        for act in list(due):
            since = loaded if act.sending else began
            if since is None or now < since + act.after_s:
                continue
            due.remove(act)
            if (pid := _whom(process, act.whom)) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, act.signal)
                if act.pause_s is not None:
                    resumed.append((now + act.pause_s, pid))
        for at, pid in list(resumed):
            if now >= at:
                resumed.remove((at, pid))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        time.sleep(0.005)


def _whom(parent: psutil.Process, whom: str) -> int | None:
    """Return the process ID of the parent, its first worker or its sink; None: not there."""
    if whom == PARENT:
        return int(parent.pid)
    for child in parent.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            words = " ".join(child.cmdline())
            if "resource_tracker" not in words and ("blaster.sink" in words) == (whom == SINK):
                return int(child.pid)
    return None


# ---- checks ----


def _checked(
    run: RandomRun, files: dict[str, Path], status: int, out: str, errors: str
) -> tuple[list[str], dict[str, Any] | None]:
    problems: list[str] = []
    if "Traceback" in out + errors:
        problems.append(f"a traceback: {(out + errors)[-1500:]}")
    if status not in (0, 1, 3, 130):
        problems.append(f"exit status {status}: {errors[-500:]}")
    if status == 3:
        if not run.signals(SINK) and not any(a.startswith("refuse") for a in run.arguments):
            problems.append(f"exit status 3, though its sink was there: {errors[-500:]}")
        return problems, None
    if not files["json"].exists():
        return [*problems, f"no results, exit status {status}: {errors[-500:]}"], None
    try:
        read: dict[str, Any] = json.loads(files["json"].read_text())
    except ValueError as error:
        return [*problems, f"results are no JSON: {error}"], None
    for check in CHECKS:
        try:
            check(run, read, status, files)
        except (AssertionError, KeyError, TypeError, ValueError, ET.ParseError, OSError) as error:
            problems.append(f"{check.__name__}: {type(error).__name__}: {error}")
    return problems, read


Check = Callable[[RandomRun, dict[str, Any], int, dict[str, Path]], None]
CHECKS: list[Check] = []


def _check(function: Check) -> Check:
    CHECKS.append(function)
    return function


@_check
def balanced(run: RandomRun, read: dict[str, Any], status: int, files: dict[str, Path]) -> None:
    """Both equations of the ledger, and the bounds on what the sink saw."""
    cli.balance(read)
    cli.add_up(read)
    requests = read["requests"]
    assert requests["ok"] == requests["by_status"].get("OK", 0), requests
    assert requests["possible_duplicates"] <= requests["retried_spans"], requests


@_check
def stages_add_up(
    run: RandomRun, read: dict[str, Any], status: int, files: dict[str, Path]
) -> None:
    """Each count of the stages adds up to that of the run."""
    for name, total in read["spans"].items():
        counts = [stage["spans"][name] for stage in read["stages"]]
        assert sum(counts) == total, (name, counts, total)


@_check
def verdict_is_the_exit_status(
    run: RandomRun, read: dict[str, Any], status: int, files: dict[str, Path]
) -> None:
    """130 is an interrupted run, 0 one that passed and lost nothing."""
    assert read["interrupted"] == (status == 130), (read["interrupted"], status)
    if status != 130:
        assert read["verdict"]["passed"] == (status == 0), (read["verdict"], status)
    if status == 0:
        spans = read["spans"]
        assert spans["accepted"] == spans["sent"], spans
    if not run.signals(PARENT):
        assert status != 130, "interrupted by nobody"
    assert not read["partial"]


@_check
def quiet_runs_lose_nothing(
    run: RandomRun, read: dict[str, Any], status: int, files: dict[str, Path]
) -> None:
    """Without signals or faults every request is answered OK or, on a busy machine, too late."""
    if run.acts or {"--fault", "--chaos"} & set(run.arguments):
        return
    late = {"OK", "NO_ANSWER_TIMEOUT", "DEADLINE_EXCEEDED", "CONNECT_FAILED", "NOT_WRITTEN"}
    assert set(read["requests"]["by_status"]) <= late, read["requests"]
    assert read["spans"]["rejected"] == 0


@_check
def files_parse(run: RandomRun, read: dict[str, Any], status: int, files: dict[str, Path]) -> None:
    """Every output was written and says the same as the results."""
    if "csv" in files:
        rows = list(csv.DictReader(files["csv"].read_text().splitlines()))
        assert len(rows) == len(read["series"])
        for row, point in zip(rows, read["series"], strict=True):
            assert int(row["accepted"]) == point["accepted"]
    if "junit" in files:
        root = ET.parse(files["junit"]).getroot()
        failed = [c["name"] for c in read["verdict"]["checks"] if c["passed"] is False]
        cases = {
            case.get("name") for case in root.iter("testcase") if case.find("failure") is not None
        }
        assert cases >= set(failed) and int(root.get("failures", "-1")) == len(cases), cases
    if "markdown" in files:
        text = files["markdown"].read_text()
        assert f"{read['spans']['accepted']:,}" in text
        assert all(c.isprintable() or c == "\n" for c in text)
    if "html" in files:
        text = files["html"].read_text()
        assert text.lstrip().lower().startswith("<!doctype html") and "</html>" in text

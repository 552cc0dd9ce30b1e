"""What surrounds blaster - the working directory, its streams, full disks - never spoils a run."""

from __future__ import annotations

import copy
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import cli

from blaster import interpreter
from blaster.cluster import agent

ROOT = Path(__file__).resolve().parent.parent


def entry() -> list[str]:
    """``blaster`` as the installed script starts it: the working directory is not on its path."""
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = 'blaster'; "
    return [sys.executable, "-P", "-c", program + "from blaster.__main__ import main; main()"]


def ran(*arguments: str, folder: Path, **streams: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*entry(), *arguments],
        cwd=folder,
        env={k: v for k, v in cli.environment().items() if k != "PYTHONPATH"},
        text=True,
        check=False,
        timeout=120,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--embedded", "--duration", "1s", "--quiet"),
        ("profile", "--seconds", "0.3", "--batch", "50"),
    ],
    ids=lambda words: words[0],
)
def test_nothing_is_imported_from_the_working_directory(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Modules of the user's, called as those of the standard library or as blaster itself, run in
    none of the interpreters that are started."""
    trap = "import os\nopen(os.path.join(os.path.dirname(__file__), 'sprung'), 'w').close()\n"
    for name in ("json.py", "random.py", "selectors.py", "numpy.py", "blaster/__init__.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(trap)
    done = ran(*arguments, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    subprocess.run(agent.ENGINE, cwd=tmp_path, input=b"", capture_output=True, check=False)
    assert not list(tmp_path.rglob("sprung"))


def test_another_interpreter_runs_this_blaster(tmp_path: Path) -> None:
    """The module is of the package that started it, and sees its arguments."""
    command = interpreter.command("blaster", "--version")
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("blaster ")


RUN = ("run", "--transport", "null", "--rate", "1k", "--duration", "1s", "--json", "r.json")


def closed_pipe() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


STREAMS: dict[str, dict[str, Any]] = {
    "stdout closed": {"stdout": None, "preexec_fn": lambda: os.close(1)},
    "stderr closed": {"stderr": None, "preexec_fn": lambda: os.close(2)},
    "all closed": {"stdout": None, "stderr": None, "preexec_fn": lambda: os.closerange(0, 3)},
    "stdout full": {"stdout": os.open("/dev/full", os.O_WRONLY)},
    "stderr full": {"stderr": os.open("/dev/full", os.O_WRONLY)},
    "stdout to a reader that left": {"stdout": closed_pipe()},
    "stderr to a reader that left": {"stderr": closed_pipe()},
    "ascii": {"encoding": "ascii"},
    "latin-1": {"encoding": "latin-1"},
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("name", STREAMS)
def test_what_cannot_be_shown_is_not_shown(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on, passes, and its results are whole, wherever its words go."""
    streams = dict(STREAMS[name])
    if encoding := streams.pop("encoding", None):
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
    done = ran(*RUN, folder=tmp_path, **streams)
    assert done.returncode == 0, done
    assert "Traceback" not in f"{done.stdout}{done.stderr}"
    assert "Exception" not in f"{done.stdout}{done.stderr}"
    assert cli.results(tmp_path / "r.json")["spans"]["accepted"] == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("full", ["-", "/dev/full"])
def test_one_output_that_fails_keeps_none_from_being_written(tmp_path: Path, full: str) -> None:
    """It is an error, named in one line, and the text is kept elsewhere; the others are there."""
    with open("/dev/full", "w") as device:
        done = ran(
            *(*RUN[:-1], full, "--markdown", "r.md", "--hdr", "r.hgrm", "--quiet"),
            folder=tmp_path,
            stdout=device,
        )
    assert done.returncode == 1, done
    named = "standard output" if full == "-" else full
    line = f"blaster: {named} cannot be written (No space left on device): the results are in "
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1
    kept = Path(done.stderr.removeprefix(line).strip())
    assert cli.results(kept)["spans"]["accepted"] == 1000
    kept.unlink()
    assert "# Load test" in (tmp_path / "r.md").read_text() and (tmp_path / "r.hgrm").read_text()
    assert Path("/dev/full").is_char_device()


def test_a_recording_that_was_cut_short_by_the_disk_is_no_pass(tmp_path: Path) -> None:
    """A file as large as it may be ends the recording, and fails the run."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = ran(*RUN, "--record", "out.pb", folder=tmp_path, preexec_fn=small_files)
    assert done.returncode == 1, done.stderr
    checks = {c["name"]: c for c in cli.results(tmp_path / "r.json")["verdict"]["checks"]}
    assert checks["recording"]["passed"] is False
    assert "File too large" in checks["recording"]["actual"]


ODD_HOSTS = ("foo..localhost", "a" * 64 + ".localhost")


@pytest.mark.parametrize("host", ODD_HOSTS)
@pytest.mark.parametrize(
    "option",
    [
        *("--endpoint=http://{}:1", "--otlp-metrics=http://{}:1", "--scrape=http://{}:1/m"),
        *("--verify=tempo=http://{}:1", "--alerts=http://{}:1"),
    ],
)
def test_a_host_that_cannot_be_one_is_wrong_usage(option: str, host: str) -> None:
    """An empty label, or one of 64 letters, is no name: one line, exit status 2."""
    done = cli.blaster("run", "--duration", "1s", option.format(host))
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"blaster: {option.partition('=')[0]} ")


@pytest.mark.parametrize(
    "option",
    [
        *("--otlp-metrics=http://me:{}@h:1", "--scrape=http://me:{}@h:1/m"),
        *("--alerts=http://{}@h:1", "--verify=tempo=http://me:{}@h:1"),
        "--verify=nobody=http://me:{}@h:1",
    ],
)
def test_nobody_reads_the_user_of_a_url(option: str) -> None:
    """A URL with a user is refused, and the message does not repeat who it is."""
    done = cli.blaster("run", "--duration", "1s", option.format("s3cret"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "s3cret" not in done.stderr and "…@h:1" in done.stderr


def test_ctrl_c_ends_profile_in_one_line(tmp_path: Path) -> None:
    """Whatever was started for a rung ends without a word."""
    process = subprocess.Popen(
        [*entry(), "profile", "--seconds", "30"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            children = psutil.Process(process.pid).children()
            if any("blaster.profile.rung" in child.cmdline() for child in children):
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (130, "", "blaster: interrupted\n")


def no_verdict(results: dict[str, Any]) -> None:
    results["verdict"] = None


def no_rule(results: dict[str, Any]) -> None:
    results["violations"]["detected_by_rule"] = {"a": 1}


def no_spans(results: dict[str, Any]) -> None:
    del results["spans"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("results")
    out = str(folder / "r.json")
    assert cli.blaster(*RUN[:-1], out, "--quiet").returncode == 0
    return cli.results(folder / "r.json")


@pytest.mark.parametrize(
    "spoil",
    [no_verdict, no_rule, no_spans],
    ids=["no-verdict", "no-rule", "no-spans"],
)
def test_results_that_lack_something(
    tmp_path: Path,
    results: dict[str, Any],
    spoil: Callable[[dict[str, Any]], None],
) -> None:
    """They are refused in one line."""
    spoiled = copy.deepcopy(results)
    spoil(spoiled)
    file = tmp_path / "r.json"
    file.write_text(json.dumps(spoiled))
    outputs = [f"--{name}={tmp_path / name}" for name in ("markdown", "html", "junit", "csv")]
    done = cli.blaster("report", str(file), *outputs)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_what_is_no_file_is_no_results(tmp_path: Path) -> None:
    """A pipe is not waited for, nor is a device read to its end, which may never come."""
    os.mkfifo(tmp_path / "pipe.json")
    for path in (str(tmp_path / "pipe.json"), "/dev/zero"):
        done = cli.blaster("report", path, timeout_s=20)
        assert done.returncode == 2 and "must be a file" in done.stderr

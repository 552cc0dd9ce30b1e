"""What surrounds blaster - the working directory, its streams, full disks - never spoils a run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

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

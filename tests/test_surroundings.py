"""What surrounds blaster - the working directory, its streams, full disks - never spoils a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
        ("profile", "--seconds", "0.1", "--batch", "50"),
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

"""The fenced blocks of README and guide, and how those that can be run are run.

A fence's info string says what a block is:

    sh, console               commands, run by a test; of a console, its output is compared, too
    sh no-run REASON          commands that are only parsed, and why they are not run
    sh collector              run against a real Collector with the configuration of the same page
    toml scenario, workload   files for blaster, loaded by a test
    yaml, yaml collector      parsed; the latter by a real Collector
    text                      neither code nor output
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import cli

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
GUIDE = ROOT / "blaster" / "guide"
PAGES = (README, *sorted(GUIDE.glob("*.md")))

LIMIT_S = 120


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the number of its first line, its info string, its text."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        """The first word of the info string."""
        return self.info.partition(" ")[0]

    @property
    def rest(self) -> str:
        """What follows it."""
        return self.info.partition(" ")[2]

    @property
    def is_run(self) -> bool:
        return self.info in ("sh", "console")

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    found = []
    lines = iter(enumerate(page.read_text().splitlines(), 1))
    for number, line in lines:
        if not line.startswith("```"):
            continue
        text = []
        for _, inner in lines:
            if inner == "```":
                break
            text.append(inner)
        else:
            raise ValueError(f"{page.name}:{number}: a fence without an end")
        found.append(Block(page, number, line[3:], "\n".join(text)))
    return found


ALL = tuple(block for page in PAGES for block in blocks(page))
INSTALL, TEST = [block for block in blocks(README) if block.info == "sh"][:2]
"""README's first two commands, which `.ci/run` runs."""


def commands(block: Block) -> Iterator[str]:
    """The commands of a block of sh or of a console, each in one line."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language == "sh":
            yield line
        elif line.startswith("$ "):
            yield line[2:]


def invocations(block: Block) -> Iterator[list[str]]:
    """The arguments of each call of blaster in a block, whatever stands around it."""
    for command in commands(block):
        words = shlex.shlex(command, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        words.commenters = "#"
        call: list[str] | None = None
        for word in (*words, ";"):
            if word.strip("();<>|&") == "":
                if call is not None:
                    yield call
                call = None
            elif call is not None:
                call.append(word)
            elif word in ("blaster", ".venv/bin/blaster"):
                call = []


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script in a folder, as a user's shell would; standard error is part of the output."""
    tools = folder / ".bin"
    tools.mkdir(exist_ok=True)
    command = tools / "blaster"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m blaster "$@"\n')
    command.chmod(0o755)
    environ = cli.environment(
        PATH=f"{tools}:{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),
        XDG_DATA_HOME=str(folder / ".data"),
    )
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def sessions(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console, each with the lines of output shown below it."""
    command, shown = "", []
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:], []
        else:
            shown.append(line)
    yield command, shown


def missing(shown: list[str], printed: list[str]) -> str | None:
    """The first line shown that was not printed where it should be; None where all were.

    Numbers and runs of blanks may differ. A line of … stands for any lines, and … at a line's end
    for its rest; otherwise lines follow each other.
    """
    place, anywhere = 0, False
    for line in shown:
        if line.strip() == "…":
            anywhere = True
            continue
        pattern = _pattern(line)
        candidates = range(place, len(printed) if anywhere else min(place + 1, len(printed)))
        found = next((n for n in candidates if pattern.fullmatch(printed[n].strip())), None)
        if found is None:
            return line
        place, anywhere = found + 1, False
    return None


def _pattern(line: str) -> re.Pattern[str]:
    parts = re.split(r"(\d[\d,.]*|\s+|…$)", line.strip())
    known = {True: r"\d[\d,.]*", False: r"\s+"}
    return re.compile(
        "".join(
            re.escape(part) if not number % 2 else ".*" if part == "…" else known[part[0].isdigit()]
            for number, part in enumerate(parts)
        )
    )

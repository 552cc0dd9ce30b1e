"""Runs the command line as a user does: in a process of its own.

What runs to its end is forked from a process that has imported blaster already: a second of CPU
less for each of the hundreds of times.
"""

import functools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema

from blaster.report.json_schema import schema

COMMAND = [sys.executable, "-m", "blaster"]

VARIABLES = ("SPANS_PER_SECOND", "DURATION_SECONDS", "VIOLATION_RATE")
PREFIX = "OTEL_EXPORTER_OTLP_"

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["blaster.capacity", "blaster.cli", "blaster.report.outputs"])


def environment(**more: str) -> dict[str, str]:
    """The environment without the variables that would change a run, and with ``more``."""
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES and not k.startswith(PREFIX)}
    return {**kept, "COLUMNS": "200", **more}


class Launched:
    """A command that has been started; its output goes to files, so that it never blocks."""

    def __init__(self, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
        self._arguments = arguments
        self._out, self._errors = tempfile.NamedTemporaryFile(), tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed by wait
        self._process = _FORKED.Process(
            target=_command,
            args=(arguments, environ, os.getcwd(), self._out.name, self._errors.name),
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def is_running(self) -> bool:
        return self._process.exitcode is None

    def errors(self) -> str:
        """Return all that it has written to standard error so far."""
        return Path(self._errors.name).read_text(errors="replace")

    def wait(self, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Return its exit status and output; after ``timeout_s`` it is killed: TimeoutExpired."""
        command = [*COMMAND, *self._arguments]
        self._process.join(timeout_s)
        with self._out, self._errors:
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()
                raise subprocess.TimeoutExpired(command, timeout_s)
            said = [file.read().decode() for file in (self._out, self._errors)]
        return subprocess.CompletedProcess(command, self._process.exitcode, *said)


def launch(*arguments: str, **more: str) -> Launched:
    """Start ``blaster`` and leave it running; ``more`` are environment variables."""
    return Launched(arguments, environment(**more))


def blaster(
    *arguments: str, timeout_s: float = 60, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run ``blaster`` to its end; ``more`` are environment variables."""
    return launch(*arguments, **more).wait(timeout_s)


def _command(arguments: tuple[str, ...], environ: dict[str, str], folder: str, *files: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["blaster", *arguments]
    from blaster.__main__ import main

    main()


def start(*arguments: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Starts ``blaster`` and leaves it running. ``before``: what starts it in its place."""
    return subprocess.Popen(
        [*before, *COMMAND, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(path: Path) -> dict[str, Any]:
    """results.json, as the schema has it, with the equations that hold whatever broke."""
    read: dict[str, Any] = json.loads(path.read_text())
    validate(read, "Results")
    balance(read)
    add_up(read)
    return read


def validate(read: dict[str, Any], kind: str) -> None:
    """``read`` is a ``kind`` of the schema's definitions, without a key that is not in it."""
    _validator(kind).validate(read)


@functools.cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    document = schema()
    for definition in document["$defs"].values():
        definition["additionalProperties"] = False
    del document["anyOf"]
    return jsonschema.Draft202012Validator({**document, "$ref": f"#/$defs/{kind}"})


def balance(read: dict[str, Any]) -> None:
    """Both equations of the ledger, and the bounds on what the sink saw."""
    spans = read["spans"]
    assert all(count >= 0 for count in spans.values()), spans
    assert spans["scheduled"] == spans["sent"] + spans["not_offered"], spans
    answered = spans["accepted"] + spans["rejected"] + spans["failed"] + spans["unknown"]
    assert spans["sent"] == answered, spans
    assert sum(read["requests"]["by_status"].values()) == read["requests"]["sent"]
    assert sum(read["violations"]["by_rule"].values()) == read["violations"]["injected"]
    if read["sink"] is not None:
        twice = read["requests"]["possible_duplicates"]
        most = spans["accepted"] + spans["unknown"] + twice
        assert spans["accepted"] <= read["sink"]["spans"] <= most
        assert read["sink"]["duplicates"] <= twice and read["sink"]["invalid"] == 0


def add_up(read: dict[str, Any]) -> None:
    """The series of a run that is over adds up to the totals, count by count."""
    spans, series = read["spans"], read["series"]
    if read["partial"] or not series:
        assert read["partial"] or spans["scheduled"] == 0
        return
    lost = spans["rejected"] + spans["failed"] + spans["unknown"]
    totals = {"scheduled": spans["scheduled"], "accepted": spans["accepted"], "failed": lost}
    for name, total in totals.items():
        counts = [point[name] for point in series]
        assert sum(counts) == total and min(counts) >= 0, (name, total, counts)

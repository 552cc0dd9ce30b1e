"""Runs the command line as a user does: in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "blaster"]

VARIABLES = ("SPANS_PER_SECOND", "DURATION_SECONDS", "VIOLATION_RATE")
PREFIX = "OTEL_EXPORTER_OTLP_"


def environment(**more: str) -> dict[str, str]:
    """The environment without the variables that would change a run, and with ``more``."""
    kept = {k: v for k, v in os.environ.items() if k not in VARIABLES and not k.startswith(PREFIX)}
    return {**kept, "COLUMNS": "200", **more}


def blaster(
    *arguments: str, timeout_s: float = 60, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``blaster`` to its end; ``more`` are environment variables."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    """Starts ``blaster`` and leaves it running."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(path: Path) -> dict[str, Any]:
    """results.json, with the equations that hold whatever broke."""
    read: dict[str, Any] = json.loads(path.read_text())
    balance(read)
    return read


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

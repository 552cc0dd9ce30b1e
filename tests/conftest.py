"""Fixtures and settings that all tests share."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

IN_CI = os.environ.get("CI") == "true"

# The same examples in every run of CI, so that a failure there is one of the commit; new ones at
# every desk. No deadline in either: the machines are shared.
hypothesis.settings.register_profile(
    "ci", max_examples=100, derandomize=True, deadline=None, print_blob=True
)
hypothesis.settings.register_profile("dev", max_examples=30, deadline=None)
hypothesis.settings.load_profile("ci" if IN_CI else "dev")


def _cannot(reason: str) -> NoReturn:
    # A peer that is not to be had skips its tests, except in CI: there it would go unnoticed.
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def collector_binary() -> Path:
    """The OpenTelemetry Collector, built where it is not yet; for `peers.collector`."""
    if shutil.which("go") is None:
        _cannot("the OpenTelemetry Collector is built with Go, and there is no `go` on the PATH")
    build = Path(__file__).parent / "collector" / "build"
    built = subprocess.run([build], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        pytest.fail(f"{build} ended with {built.returncode}")
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def rotel_binary() -> Path:
    """The program within the rotel package; for `peers.rotel`."""
    spec = importlib.util.find_spec("rotel")
    if spec is None or spec.origin is None:
        _cannot("rotel is not installed: it has wheels for Linux only")
    binary = Path(spec.origin).with_name("rotel-agent")
    # It needs the libpython of this Python, which Debian has in python3-dev.
    tried = subprocess.run([binary, "version"], capture_output=True, text=True, check=False)
    if tried.returncode:
        _cannot(f"rotel does not run here: {tried.stderr.strip()}")
    return binary

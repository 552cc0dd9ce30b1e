"""Fixtures and settings that all tests share."""

import os
import shutil
import subprocess
from pathlib import Path

import hypothesis
import pytest

IN_CI = os.environ.get("CI") == "true"

# The same examples in every run of CI, so that a failure there is one of the commit; new ones at
# every desk. No deadline in either: the machines are shared.
hypothesis.settings.register_profile(
    "ci", max_examples=300, derandomize=True, deadline=None, print_blob=True
)
hypothesis.settings.register_profile("dev", max_examples=30, deadline=None)
hypothesis.settings.load_profile("ci" if IN_CI else "dev")


@pytest.fixture(scope="session")
def collector_binary() -> Path:
    """The OpenTelemetry Collector, built where it is not yet; for `peers.collector`."""
    if shutil.which("go") is None:
        reason = "the OpenTelemetry Collector is built with Go, and there is no `go` on the PATH"
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    build = Path(__file__).parent / "collector" / "build"
    built = subprocess.run([build], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        pytest.fail(f"{build} ended with {built.returncode}")
    return Path(built.stdout.strip())

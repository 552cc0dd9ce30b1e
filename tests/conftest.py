"""Fixtures and settings that all tests share.

pytest-xdist runs the tests in several processes with `--dist=worksteal`: each begins with a run of
neighbouring tests, so that a module's fixtures are made in one or two processes only, and who has
none left takes from whoever has most. Its groups would say more, but xdist 3.8 marks them in
`Item._nodeid`, which pytest 9.2 reads no longer: `--dist=loadgroup` groups nothing there.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

import hypothesis
import pytest

if TYPE_CHECKING:
    from support.certificates import Authority, Pair

IN_CI = os.environ.get("CI") == "true"

# The same examples in every run of CI, so that a failure there is one of the commit; new ones at
# every desk. No deadline in either: the machines are shared. The sanitizers, under which each
# example takes some five times as long, see the first of those.
hypothesis.settings.register_profile(
    "ci", max_examples=100, derandomize=True, deadline=None, print_blob=True
)
hypothesis.settings.register_profile(
    "sanitized", max_examples=20, derandomize=True, deadline=None, print_blob=True
)
hypothesis.settings.register_profile("dev", max_examples=30, deadline=None)
hypothesis.settings.load_profile("ci" if IN_CI else "dev")


class Turns:
    """Tests run side by side, save those marked `quiet`, which measure: no other runs meanwhile.

    Readers and a writer on one lock. Whoever waits for it holds the door, so that a stream of
    readers does not keep the writer out; between two quiet tests it is not given away.
    """

    def __init__(self, shared: Path) -> None:
        self._shared = shared
        self._turn: IO[str] | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Around a test with all its fixtures."""
        if self._turn is None:
            self._turn = open(self._shared / "turn.lock", "w")  # noqa: SIM115 - closed below
            with open(self._shared / "door.lock", "w") as door:
                fcntl.flock(door, fcntl.LOCK_EX)
                fcntl.flock(self._turn, fcntl.LOCK_EX if is_quiet(item) else fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            if nextitem is None or not (is_quiet(item) and is_quiet(nextitem)):
                self._turn.close()
                self._turn = None


def is_quiet(item: pytest.Item) -> bool:
    return item.get_closest_marker("quiet") is not None


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each process has a folder of its own below that of the whole run.
        config.pluginmanager.register(Turns(Path(config.option.basetemp).parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The quiet tests come first: all are then in the first process's share."""
    items.sort(key=lambda item: not is_quiet(item))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that signs the tests' certificates."""
    from support.certificates import Authority

    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def server(authority: Authority) -> Pair:
    """A certificate for 127.0.0.1."""
    return authority.issue("server")


def cannot(reason: str) -> NoReturn:
    # A peer that is not to be had skips its tests, except in CI: there it would go unnoticed.
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def collector_binary() -> Path:
    """The OpenTelemetry Collector, built where it is not yet; for `peers.collector`."""
    return _built("the OpenTelemetry Collector", "collector")


@pytest.fixture(scope="session")
def jaeger_binary() -> Path:
    """Jaeger, built where it is not yet; for `peers.jaeger`."""
    return _built("Jaeger", "jaeger")


def _built(what: str, folder: str) -> Path:
    if shutil.which("go") is None:
        cannot(f"{what} is built with Go, and there is no `go` on the PATH")
    build = Path(__file__).parent / folder / "build"
    built = subprocess.run([build], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        pytest.fail(f"{build} ended with {built.returncode}")
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def chromium_binaries() -> tuple[str, str]:
    """Chromium and its driver; for `browser.opened`."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if found[0] is None or found[1] is None:
        cannot("Debian's packages chromium and chromium-driver are not installed")
    return found[0], found[1]


@pytest.fixture(scope="session")
def nginx_binary() -> Path:
    """nginx; for `peers.nginx`."""
    return _packaged("nginx")


@pytest.fixture(scope="session")
def haproxy_binary() -> Path:
    """haproxy; for `peers.haproxy`."""
    return _packaged("haproxy")


def _packaged(name: str) -> Path:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        cannot(f"Debian's package {name} is not installed")
    return Path(found)


@pytest.fixture(scope="session")
def rotel_binary() -> Path:
    """The program within the rotel package; for `peers.rotel`."""
    spec = importlib.util.find_spec("rotel")
    if spec is None or spec.origin is None:
        cannot("rotel is not installed: it has wheels for Linux only")
    binary = Path(spec.origin).with_name("rotel-agent")
    # It needs the libpython of this Python, which Debian has in python3-dev.
    tried = subprocess.run([binary, "version"], capture_output=True, text=True, check=False)
    if tried.returncode:
        cannot(f"rotel does not run here: {tried.stderr.strip()}")
    return binary

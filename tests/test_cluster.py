"""Runs on several hosts: Dask workers with addresses of their own, and what happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import cannot
from support.cli import COMMAND, balance, blaster, environment, results, start
from support.hosts import DaskCluster, Network, Program, on_loopback, why_no_namespaces

from blaster import __version__
from blaster.cluster.joined import joined
from blaster.engine.outcome_log import OutcomeLog
from blaster.engine.signals import StopSignals
from blaster.job.options import RunOptions
from blaster.job.resolution import resolve
from blaster.run import run
from blaster.sink.process import EmbeddedSink
from blaster.trials import OutcomeListener

SECRET = "s3cret-" + "7f3a"


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    """Two hosts on the loopback."""
    with on_loopback(tmp_path_factory.mktemp("dask"), 2) as cluster:
        yield cluster


class Site:
    """Hosts in namespaces, a scheduler and the parent in another, the sink in one more."""

    def __init__(self, stack: ExitStack, folder: Path, hosts: int) -> None:
        self.folder = folder
        self.network = Network(stack, hosts + 2)
        home, self.sink, *self.hosts = self.network.addresses
        self._home = self.network.prefix(home)
        self.home = home
        addresses = [home, *self.hosts]
        self.cluster = DaskCluster(folder, {a: self.network.prefix(a) for a in addresses})
        stack.callback(self.cluster.end)
        command = ["sink", "--host", self.sink, "--grpc-port", "4317", "--api-port", "4319"]
        program = Program(
            [*self.network.prefix(self.sink), *COMMAND, *command], folder / "sink.log"
        )
        stack.callback(program.end)
        self._wait_for_sink()

    def counts(self) -> dict[str, Any]:
        """The sink's counts so far."""
        fetch = (
            "import sys, urllib.request as r;"
            "print(r.urlopen(sys.argv[1], timeout=5).read().decode())"
        )
        url = f"http://{self.sink}:4319/v1/counts"
        said = subprocess.run(
            [*self._home, COMMAND[0], "-c", fetch, url], capture_output=True, text=True, check=True
        )
        counts: dict[str, Any] = json.loads(said.stdout)
        return counts

    def _wait_for_sink(self) -> None:
        for _ in range(200):
            try:
                self.counts()
                return
            except subprocess.CalledProcessError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "sink.log").read_text())

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Starts ``blaster run`` where the scheduler is; its results go to ``self.json``."""
        self.json = self.folder / f"results-{time.monotonic_ns()}.json"
        where = ["--cluster", self.cluster.url, "--endpoint", f"http://{self.sink}:4317"]
        return subprocess.Popen(
            [*self._home, *COMMAND, "run", *where, "--json", str(self.json), *options],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str) -> tuple[int, dict[str, Any], str]:
        """Runs it to its end: exit status, results, standard error."""
        process = self.start(*options)
        _, said = process.communicate(timeout=90)
        assert self.json.exists(), said
        return process.returncode, results(self.json), said


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Five hosts in namespaces."""
    why = why_no_namespaces()
    if why is not None:
        cannot(why)
    with ExitStack() as stack:
        yield Site(stack, tmp_path_factory.mktemp("site"), 5)


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    """Reads standard error up to a line with ``text``."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was not said: {said}")


def test_four_hosts_equal_one(site: Site) -> None:
    """Four hosts with a quarter of the rate each send what one sends, to the span: counts,
    violations by rule and IDs, which the sink sees twice each when both have the same seed."""
    options = ("--rate", "3200", "--duration", "2s", "--batch", "20", "--seed", "11")
    status, one, said = site.run(*options, "--hosts", "1")
    assert status == 0, said
    first = site.counts()
    assert first["spans"] == one["spans"]["accepted"] == 6400 and first["duplicates"] == 0
    status, four, said = site.run(*options, "--hosts", "4")
    assert status == 0, said
    second = site.counts()
    assert four["spans"] == one["spans"]
    assert four["requests"] == one["requests"]
    assert four["bytes"] == one["bytes"]
    assert four["violations"] == one["violations"]
    assert four["rate"]["target_spans_per_s"] == one["rate"]["target_spans_per_s"] == 3200
    assert second["spans"] == 2 * first["spans"] and second["invalid"] == 0
    assert second["duplicates"] == first["spans"], "the same IDs, each of them twice"
    assert [host["address"] for host in four["hosts"]] == site.hosts[:4]
    assert [host["spans"]["accepted"] for host in four["hosts"]] == [1600] * 4
    assert sum(point["accepted"] for point in four["series"]) == 6400
    for host in four["hosts"]:
        balance({**four, **host, "sink": None})
        assert host["clock"]["uncertainty_ms"] >= 0 and host["lost"] is None
        assert host["latency_ms"]["response"]["p99"] <= four["latency_ms"]["response"]["max"]


def test_a_slow_link_is_that_hosts_alone(site: Site) -> None:
    """A host whose link takes less than its share is late and behind, by its own figures; the
    other is not, and nothing is lost from the accounts."""
    slow, quick = site.hosts[:2]
    site.network.limit(slow, "600kbit")
    options = ("--hosts", "2", "--rate", "2000", "--duration", "2s", "--batch", "50")
    _, found, _ = site.run(*options, "--timeout", "30s")
    site.network.unlimit(slow)
    hosts = {host["address"]: host for host in found["hosts"]}
    assert hosts[quick]["spans"]["accepted"] == 2000
    slow_p99, quick_p99 = (hosts[a]["latency_ms"]["response"]["p99"] for a in (slow, quick))
    assert slow_p99 > 2 * quick_p99
    assert hosts[slow]["spans"]["scheduled"] == 2000
    total = {name: sum(h["spans"][name] for h in found["hosts"]) for name in found["spans"]}
    assert total == found["spans"]


def kill(site: Site, host: str) -> None:
    os.kill(site.cluster.pid(host), signal.SIGKILL)


def pause(site: Site, host: str) -> None:
    site.network.signal(host, signal.SIGSTOP)


def cut_off(site: Site, host: str) -> None:
    site.network.unplug(host)


def cut_off_from_the_parent(site: Site, host: str) -> None:
    site.network.forget(host, site.home)


LOSSES = [kill, pause, cut_off, cut_off_from_the_parent]


@pytest.fixture(scope="module")
def losses(site: Site) -> dict[str, Any]:
    """The results of a run in which the first four of five hosts were lost, each in its own way,
    some two seconds after the start; and the sink's counts after they were back."""
    before = site.counts()["spans"]
    process = site.start("--rate", "2500", "--duration", "8s", "--batch", "10")
    said = wait_for(process, "accepted")
    said += wait_for(process, "accepted")
    for lose, host in zip(LOSSES, site.hosts, strict=False):
        lose(site, host)
    for _ in LOSSES:
        said += wait_for(process, "the run goes on without it")
    # Noticed within 5 s of what happened 2 s after the start, so before the 8 s are over.
    noticed = process.poll() is None
    site.network.signal(site.hosts[1], signal.SIGCONT)
    site.network.plug(site.hosts[2])
    site.network.remember(site.hosts[3], site.home)
    _, rest = process.communicate(timeout=60)
    read = results(site.json)
    spans = site.counts()["spans"] - before
    read.update(status=process.returncode, noticed=noticed, said=said, rest=rest, in_sink=spans)
    return read


@pytest.mark.parametrize("lose", LOSSES, ids=[f.__name__ for f in LOSSES])
def test_a_lost_host(site: Site, losses: dict[str, Any], lose: Callable[[Site, str], None]) -> None:
    """It is noticed while the run goes on, and named. What it had reported is kept, the rest is
    unknown or not offered."""
    name = site.hosts[LOSSES.index(lose)]
    assert losses["noticed"] and f"host {name} " in losses["said"]
    (host,) = [host for host in losses["hosts"] if host["address"] == name]
    assert host["lost"] and host["limited_by"] == "lost"
    assert name in " ".join(losses["generator"]["lost_workers"])
    its = host["spans"]
    assert its["scheduled"] == 4000 and its["accepted"] >= 500 and its["unknown"] > 0
    assert its["accepted"] + its["unknown"] < 4000, "not all of the rest can have been sent"
    assert its["not_offered"] == 4000 - its["accepted"] - its["unknown"]


def test_a_run_goes_on_without_its_lost_hosts(site: Site, losses: dict[str, Any]) -> None:
    """The host that was left sends all its share. The sink, even once the others are back, has no
    more than was accepted and unknown: whoever is lost has stopped sending."""
    (left,) = [host for host in losses["hosts"] if host["address"] == site.hosts[4]]
    assert left["lost"] is None and left["spans"]["accepted"] == 4000
    assert losses["status"] == 1 and not losses["interrupted"]
    assert "spans/s" in losses["rest"], "the run went on"
    spans = losses["spans"]
    assert spans["scheduled"] == 20_000
    assert spans["accepted"] <= losses["in_sink"] <= spans["accepted"] + spans["unknown"]


def test_a_lost_host_can_end_the_run(loopback: DaskCluster, tmp_path: Path) -> None:
    """With --on-host-lost stop the others stop, too, and what was measured is written."""
    file = tmp_path / "r.json"
    process = start(
        *("run", "--cluster", loopback.url, "--embedded", "--rate", "1000", "--duration", "60s"),
        *("--on-host-lost", "stop", "--json", str(file)),
    )
    wait_for(process, "accepted")
    os.kill(loopback.pid(loopback.hosts[0]), signal.SIGKILL)
    process.communicate(timeout=30)
    loopback.restart(loopback.hosts[0])
    found = results(file)
    assert process.returncode == 1 and loopback.hosts[0] in found["aborted"]
    assert found["spans"]["accepted"] > 0 and found["spans"]["sent"] < 60_000


def test_ctrl_c(loopback: DaskCluster, tmp_path: Path) -> None:
    """All hosts stop, the results are written, and the exit status is 130."""
    file = tmp_path / "r.json"
    process = start(
        *("run", "--cluster", loopback.url, "--embedded", "--rate", "500", "--duration", "60s"),
        *("--json", str(file)),
    )
    wait_for(process, "accepted")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    found = results(file)
    assert process.returncode == 130 and found["interrupted"]
    assert len(found["hosts"]) == 2 and 0 < found["spans"]["sent"] < 20_000


def test_everything_a_run_needs_travels(loopback: DaskCluster, tmp_path: Path) -> None:
    """A workload and a scenario that only the parent has; a header, which no log of Dask shows
    and which the sink is sent; verification by the sink's own counts."""
    scenario = tmp_path / "mine.toml"
    scenario.write_text(
        "stages = [{ rate = 400, duration = 2 }]\nbatch = 20\n[workload]\nviolation_rate = 0.1\n"
    )
    file = tmp_path / "r.json"
    ran = blaster(
        *("run", str(scenario), "--workload", "web-shop", "--cluster", loopback.url, "--embedded"),
        *("--header", f"authorization=Bearer {SECRET}", "--json", str(file), "--warmup", "1s"),
    )
    assert ran.returncode == 0, ran.stderr
    found = results(file)
    assert found["sink"]["spans"] == found["spans"]["accepted"] > 0
    assert found["violations"]["detected"] == found["violations"]["injected"] > 0
    assert SECRET not in loopback.logs() + ran.stderr + ran.stdout + file.read_text()
    assert "Hosts (" in ran.stdout


def test_a_target_that_a_host_cannot_reach(loopback: DaskCluster) -> None:
    """One line names the host and says who is there instead; what was secret stays so."""
    ran = blaster(
        *("run", "--cluster", loopback.url, "--endpoint", "http://127.0.0.1:1", "--duration", "1s"),
        *("--header", f"authorization={SECRET}"),
    )
    assert ran.returncode == 3
    assert "host 127.0.0." in ran.stderr and "connection refused" in ran.stderr
    assert len(ran.stderr.strip().splitlines()) <= 2
    assert SECRET not in loopback.logs() + ran.stderr


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--cluster", "tcp://127.0.0.1:1"), 3, "no Dask scheduler answers there"),
        (("--cluster", "carrier-pigeon://x"), 2, "--cluster 'carrier-pigeon://x'"),
        (("--hosts", "2"), 2, "--hosts 2: needs --cluster"),
        (("--cluster", "URL", "--hosts", "3"), 2, "--hosts 3: must be from 1 to 2"),
        (("--cluster", "URL", "--record", "x.json"), 2, "--record 'x.json': cannot be used"),
        (("--cluster", "URL", "--on-host-lost", "cry"), 2, "must be continue or stop"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    loopback: DaskCluster, options: tuple[str, ...], status: int, said: str
) -> None:
    """Each wrong use ends before anything is sent, with one line and its exit status."""
    given = [loopback.url if option == "URL" else option for option in options]
    ran = blaster("run", *given, "--endpoint", "http://127.0.0.1:1")
    assert (ran.returncode, said in ran.stderr) == (status, True), ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1


def test_check_says_what_each_host_has(loopback: DaskCluster) -> None:
    """Cores, versions, the clock, the transport, and the round trip to an endpoint that is there;
    for one that is not, who is there instead, and exit status 1."""
    with EmbeddedSink() as sink:
        where = ("cluster", "check", loopback.url, "--no-ceiling", "--endpoint")
        ran = blaster(*where, sink.endpoint, "--json")
    assert ran.returncode == 0, ran.stderr
    for host in json.loads(ran.stdout):
        assert host["address"] in loopback.hosts and host["cpus"] > 0 and host["differs"] == []
        assert host["round_trip_ms"] > 0 and host["clock"]["uncertainty_ms"] > 0
        assert host["versions"]["blaster"].startswith(__version__)
    ran = blaster(*where, "http://127.0.0.1:1")
    assert ran.returncode == 1 and "127.0.0.3: 127.0.0.1:1: nobody listens there" in ran.stdout


def test_a_trial_of_a_cluster_has_all_outcomes(loopback: DaskCluster) -> None:
    """The input of a capacity search: the hosts' Outcomes, by the parent's clock, in one array."""
    with EmbeddedSink() as sink, OutcomeLog() as outcome_log, StopSignals() as signals:
        options = RunOptions(
            rate="1000", duration="1s", batch=10, endpoint=sink.endpoint, environ={}
        )
        with joined(loopback.url, None, "stop") as members:
            job = resolve(options, members)
            found = run(job, signals, OutcomeListener(outcome_log), cluster=members)
        outcomes = outcome_log.outcomes()
    assert len(outcomes) == found.requests.sent == 100
    assert outcomes["spans"].sum() == found.spans.accepted == 1000
    steps = np.diff(outcomes["scheduled"])
    assert (steps >= 0).all() and abs(int(steps.sum()) - 990_000_000) < 50_000_000
    assert (outcomes["done"] >= outcomes["sent"]).all()
    assert (outcomes["sent"] >= outcomes["scheduled"]).all()

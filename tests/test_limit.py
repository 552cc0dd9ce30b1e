"""Who was the limit, with a generator and a target that are starved of CPU on purpose."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from support import cli, peers, sinks

from blaster.engine.results import AveragePeak, Lateness, Results
from blaster.sink.process import EmbeddedSink
from blaster.transport.base import OUTCOME
from blaster.transport.choice import wire_is_built
from blaster.verdict.limit import limit_of
from blaster.verdict.trial import trial_of

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="CPUs are pinned as Linux does it"),
    pytest.mark.skipif(not wire_is_built(), reason="the native client and sink were not built"),
]

SECOND = 1_000_000_000

BUSY = (
    "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); print(flush=True)\nwhile 1: pass"
)


NULL_RUN = ("run", "--transport", "null", "--rate", "1k", "--duration", "1s", "--quiet")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Those of some run."""
    out = tmp_path_factory.mktemp("limit") / "r.json"
    assert cli.blaster(*NULL_RUN, "--json", str(out)).returncode == 0
    return msgspec.json.decode(out.read_bytes(), type=Results)


@pytest.mark.parametrize(
    ("ran", "waited", "behind", "held", "capped", "limit"),
    [
        (30, 10, 90, 70, 0, "target"),
        (30, 10, 90, 10, 60, "target"),
        (3, 35, 93, 58, 0, "target"),
        (5, 5, 90, 20, 0, "generator"),  # asleep and late, but seldom held back
        (30, 50, 90, 40, 0, "generator"),  # it overslept: others had its CPU
        (60, 30, 90, 85, 0, "generator"),  # no CPU left, whatever else
        (5, 5, 0, 0, 0, "target"),  # from here on not measured
        (30, 10, 0, 0, 0, "generator"),
    ],
)
def test_late_by_whose_doing(
    results: Results, ran: int, waited: int, behind: int, held: int, capped: int, limit: str
) -> None:
    """A load that fell behind is the target's limit only where it held it back for most of the
    time, and never that of workers without CPU."""
    late = msgspec.structs.replace(
        results,
        lateness_ms=Lateness(p50=500.0, p99=900.0, max=1000.0),
        generator=msgspec.structs.replace(
            results.generator,
            worker_cpu_percent=AveragePeak(avg=ran, peak=ran),
            run_queue_percent=AveragePeak(avg=waited, peak=waited),
            behind_percent=behind,
            held_back_percent=held,
            capped_percent=capped,
        ),
    )
    found, reason = limit_of(late, cap_reached=False)
    assert found == limit, reason


@contextmanager
def busy_loops(cpu: int, count: int) -> Iterator[None]:
    """Keeps one CPU busy from so many processes."""
    with ExitStack() as stack:
        for _ in range(count):
            loop = subprocess.Popen(
                [sys.executable, "-c", BUSY, str(cpu)], stdout=subprocess.PIPE, text=True
            )
            stack.callback(loop.communicate)
            stack.callback(loop.kill)
            assert loop.stdout is not None and loop.stdout.readline()
        yield


def two_cpus() -> tuple[int, int]:
    """Two CPUs that may be used; skips where there is only one."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    return cpus[0], cpus[1]


@pytest.mark.quiet
def test_starved_generator(tmp_path: Path) -> None:
    """Workers that get a quarter of a CPU are the limit, and not the sink that has its own."""
    ours, theirs = two_cpus()
    out = tmp_path / "r.json"
    command = ["run", "--rate", "4M", "--duration", "2s", "--workers", "1", "--transport", "wire"]
    with EmbeddedSink() as sink:
        os.sched_setaffinity(sink.pid, {theirs})
        for thread in psutil.Process(sink.pid).threads():
            os.sched_setaffinity(thread.id, {theirs})
        command += ["--endpoint", sink.endpoint, "--json", str(out)]
        running = subprocess.Popen(
            ["taskset", "-c", str(ours), *cli.COMMAND, *command],
            env=cli.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert running.stderr is not None and "bytes a span" in running.stderr.readline()
        with busy_loops(ours, 3):
            running.communicate(timeout=60)
    read = cli.results(out)
    assert read["verdict"]["limited_by"] == "generator", read["verdict"]
    assert "waited for a CPU" in read["verdict"]["reason"]
    assert read["generator"]["run_queue_percent"]["avg"] > 30
    assert read["spans"]["not_offered"] > 0


@pytest.mark.quiet
def test_starved_target(tmp_path: Path) -> None:
    """A sink that gets a few hundredths of a CPU is the limit, not the workers that have theirs."""
    ours, theirs = two_cpus()
    out = tmp_path / "r.json"
    command = ["run", "--rate", "500k", "--duration", "2s", "--workers", "1", "--in-flight", "32"]
    with EmbeddedSink() as sink:
        process = psutil.Process(sink.pid)
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {theirs})
            os.setpriority(os.PRIO_PROCESS, thread.id, 10)
        command += ["--endpoint", sink.endpoint, "--timeout", "20s", "--quiet", "--json", str(out)]
        with busy_loops(theirs, 3):
            subprocess.run(
                ["taskset", "-c", str(ours), *cli.COMMAND, *command],
                env=cli.environment(),
                timeout=60,
                check=False,
            )
    read = cli.results(out)
    assert read["verdict"]["limited_by"] == "target", read["verdict"]
    assert "32 requests in flight" in read["verdict"]["reason"]


@pytest.mark.quiet
def test_a_collector_that_holds_back(tmp_path: Path, collector_binary: Path) -> None:
    """A Collector that takes less than is offered is the limit: its windows and its full socket
    hold the load back, with fewer requests in flight than may be."""
    ours, theirs = two_cpus()
    out = tmp_path / "r.json"
    command = ["run", "--rate", "3M", "--duration", "2s", "--workers", "1", "--batch", "200"]
    with peers.collector(collector_binary) as target:
        for thread in psutil.Process(target.pid).threads():
            os.sched_setaffinity(thread.id, {theirs})
        command += ["--endpoint", target.endpoint, "--in-flight", "4096", "--transport", "wire"]
        subprocess.run(
            ["taskset", "-c", str(ours), *cli.COMMAND, *command, "--quiet", "--json", str(out)],
            env=cli.environment(),
            timeout=60,
            check=False,
        )
    read = cli.results(out)
    assert read["spans"]["not_offered"] > 0
    assert read["generator"]["held_back_percent"] > 50, read["generator"]
    assert read["verdict"]["limited_by"] == "target", read["verdict"]
    assert "held it back" in read["verdict"]["reason"]


@pytest.mark.parametrize(
    ("late_ms", "lost"), [([41], 0), ([41, 42], 200), ([41, 90], 100), ([120], 100), ([29] * 9, 0)]
)
def test_the_last_answer_of_a_connection(results: Results, late_ms: list[int], lost: int) -> None:
    """A peer that waits for an acknowledgement holds back one answer a connection at the trial's
    end; more than that is a backlog."""
    outcomes = np.zeros(100, OUTCOME)
    outcomes["scheduled"] = outcomes["sent"] = SECOND + np.arange(100) * (SECOND // 100)
    outcomes["done"] = outcomes["sent"] + SECOND // 100
    outcomes["done"][-len(late_ms) :] = 2 * SECOND + np.array(late_ms) * (SECOND // 1000)
    outcomes["spans"] = 100
    offered = msgspec.structs.replace(results.spans, scheduled=10_000, not_offered=0)
    configuration = msgspec.structs.replace(results.configuration, connections=1)
    judged = trial_of(
        msgspec.structs.replace(results, spans=offered, configuration=configuration),
        outcomes,
        phase="test",
        load=10_000.0,
        duration_s=1.0,
        ceiling=None,
        broken=[],
    )
    assert judged.scheduled - judged.accepted == lost


@pytest.mark.quiet
def test_a_queue_that_grows(tmp_path: Path) -> None:
    """A target whose answers come later and later is the limit, though nothing was lost or late."""
    out = tmp_path / "r.json"
    with sinks.started(capacity=5000, overload="queue") as sink:
        ran = cli.blaster(
            *("run", "--endpoint", sink.endpoint, "--rate", "6k", "--duration", "3s"),
            *("--batch", "50", "--quiet", "--json", str(out)),
        )
        assert ran.returncode == 0, ran.stderr
    read = cli.results(out)
    assert read["spans"]["accepted"] == 18_000
    assert read["verdict"]["limited_by"] == "target"
    assert "latency grew" in read["verdict"]["reason"]

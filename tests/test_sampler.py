"""The sampler against what the kernel says of busy, ending and vanished processes."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from blaster.errors import UsageError
from blaster.measure.sampler import Sampler, Watch, parse_watch

TICK = 1 / os.sysconf("SC_CLK_TCK")
BUSY = "import time\nwhile time.process_time() < {}: pass\n"

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts Python code as a child that is told to go on by lines, and ends it afterwards."""
    started: list[subprocess.Popen[str]] = []

    def start_one(code: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        return child

    yield start_one
    for child in started:
        for process in _descendants(child.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        end(child)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def spent(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def test_a_busy_process_costs_what_the_kernel_says(start: Start) -> None:
    child = start(
        "print('ready', flush=True)\ninput()\n"
        + BUSY.format(0.5)
        + "print('done', flush=True)\ninput()"
    )
    assert line(child) == "ready"
    before = spent(child.pid)
    sampler = Sampler([parse_watch(str(child.pid))])
    tell(child)
    assert line(child) == "done"
    sample = sampler.sample()
    assert sample.cpu_seconds == pytest.approx(spent(child.pid) - before, abs=2 * TICK)
    assert sample.cpu_seconds > 0.3
    assert sample.rss_bytes == pytest.approx(psutil.Process(child.pid).memory_info().rss, rel=0.5)
    assert (sample.processes, sample.threads) == (1, 1)
    assert sampler.processes() == [{"pid": child.pid, "name": psutil.Process(child.pid).name()}]


def test_usage_is_the_total_over_the_time() -> None:
    sampler = Sampler.of_pids([os.getpid()])
    first = sampler.restart()
    samples = []
    for _ in range(5):
        until = time.process_time() + 0.03
        while time.process_time() < until:
            pass
        time.sleep(0.02)
        samples.append(sampler.sample())
    elapsed = samples[-1].t_ns - first.t_ns
    cpu = samples[-1].cpu_seconds - first.cpu_seconds
    usage = sampler.usage()
    assert cpu == pytest.approx(0.15, abs=0.1)
    assert usage["cpu_percent"]["avg"] == pytest.approx(100e9 * cpu / elapsed)
    assert usage["cpu_percent"]["peak"] == max(sample.cpu_percent for sample in samples)
    sizes = [sample.rss_bytes for sample in samples]
    assert usage["rss_bytes"]["peak"] == max(sizes)
    assert min(sizes) <= usage["rss_bytes"]["avg"] <= max(sizes)


def test_usage_is_zero_before_the_first_sample() -> None:
    usage = Sampler.of_pids([os.getpid()]).usage()
    assert usage == {"cpu_percent": {"avg": 0, "peak": 0}, "rss_bytes": {"avg": 0, "peak": 0}}


def test_children_that_come_and_go_count_once(start: Start) -> None:
    code = f"""
import subprocess, sys
print("ready", flush=True)
input()
for _ in range(4):
    subprocess.run([sys.executable, "-S", "-c", {BUSY.format(0.15)!r}])
print("done", flush=True)
input()
"""
    child = start(code)
    assert line(child) == "ready"
    before = spent(child.pid)
    sampler = Sampler([parse_watch(str(child.pid))])
    tell(child)
    last, most = 0.0, 0
    deadline = time.monotonic() + 60
    while spent(child.pid) - before < 0.3:
        sample = sampler.sample()
        assert sample.cpu_seconds >= last
        assert sample.cpu_percent >= 0
        last, most = sample.cpu_seconds, max(most, sample.processes)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert line(child) == "done"  # the rest came and went without a sample
    sampler.sample()
    final = sampler.sample()
    assert most >= 2
    assert final.processes == 1
    assert final.cpu_seconds == pytest.approx(spent(child.pid) - before, abs=8 * TICK)


def test_an_orphan_stays_in_the_group(start: Start) -> None:
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
input()
"""
    parent = start(code)
    orphan = int(line(parent))
    sampler = Sampler([parse_watch(str(parent.pid))])
    before = sampler.sample()
    assert before.processes == 2
    assert not sampler.gone
    end(parent)
    try:
        after = sampler.sample()
        assert after.processes == 1
        assert after.cpu_seconds >= before.cpu_seconds
        assert sampler.gone  # what was named has ended
    finally:
        psutil.Process(orphan).kill()


def test_an_ended_process_is_gone_waited_for_or_not(start: Start) -> None:
    child = start("input()")
    sampler = Sampler([parse_watch(str(child.pid))])
    before = sampler.sample()
    assert before.processes == 1
    psutil.Process(child.pid).kill()
    deadline = time.monotonic() + 30
    while not sampler.gone:  # a zombie until we wait for it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(2):
        sample = sampler.sample()
        assert (sample.processes, sample.rss_bytes, sample.threads) == (0, 0, 0)
        assert sample.cpu_seconds >= before.cpu_seconds
        child.wait()
    assert sampler.gone


def test_pids_that_nobody_has_are_passed_over(start: Start) -> None:
    child = start("input()")
    end(child)
    sampler = Sampler.of_pids([child.pid])
    assert sampler.gone
    sample = sampler.sample()
    assert (sample.processes, sample.cpu_seconds, sample.cpu_percent) == (0, 0, 0)
    with pytest.raises(UsageError) as caught:
        Sampler([parse_watch(str(child.pid))])
    assert str(caught.value) == f"--watch '{child.pid}': no process has this pid"


LISTEN = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
input()
"""


def test_a_port_finds_its_listener(start: Start) -> None:
    child = start(LISTEN)
    port = line(child)
    sampler = Sampler([parse_watch(f":{port}")])
    assert [process["pid"] for process in sampler.processes()] == [child.pid]
    end(child)
    with pytest.raises(UsageError) as caught:
        parse_watch(f":{port}").find()
    assert str(caught.value) == f"--watch ':{port}': nobody listens on port {port}"


def test_a_port_finds_a_listener_that_is_a_child(start: Start) -> None:
    parent = start(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', {LISTEN!r}])"
    )
    port = line(parent)
    found = parse_watch(f":{port}").find()
    assert found == psutil.Process(parent.pid).children()


def test_a_connection_is_no_listener(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code = f"import socket\ns = socket.create_connection(('127.0.0.1', {port}))\n"
        child = start(code + "print('there', flush=True)\ninput()")
        assert line(child) == "there"
        assert [process.pid for process in parse_watch(f":{port}").find()] == [os.getpid()]


def test_a_name_is_the_process_or_its_program(start: Start) -> None:
    child = subprocess.Popen(["blaster-test-name", "60"], executable="/bin/sleep")
    try:
        deadline = time.monotonic() + 30
        while psutil.Process(child.pid).name() != "sleep":  # until it is executed
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = parse_watch("blaster-test-name").find()
        assert [process.pid for process in found] == [child.pid]
        assert child.pid in [process.pid for process in parse_watch("sleep").find()]
    finally:
        child.kill()
        child.wait()
    with pytest.raises(UsageError) as caught:
        parse_watch("blaster-test-name").find()
    assert str(caught.value) == (
        "--watch 'blaster-test-name': no process is called so; give its pid or :PORT"
    )


def test_watches_are_told_apart() -> None:
    assert parse_watch("12") == Watch("12", pid=12)
    assert parse_watch(":80") == Watch(":80", port=80)
    assert parse_watch("otelcol") == Watch("otelcol", name="otelcol")
    assert parse_watch("2fast") == Watch("2fast", name="2fast")


@pytest.mark.parametrize(
    "text", ["", " ", "0", "-5", ":", ":0", ":65536", ":x", "99999999999", "a/b", "+1"]
)
def test_what_cannot_be_watched(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_watch(text)
    assert str(caught.value) == (
        f"--watch '{text}': must be a pid, a process's name, or :PORT from 1 to 65535"
    )


def test_processes_named_twice_count_once(start: Start) -> None:
    child = start("input()")
    watch = parse_watch(str(child.pid))
    assert Sampler([watch, watch]).sample().processes == 1

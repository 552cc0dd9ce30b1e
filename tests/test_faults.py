"""Bad input and bad luck: each ends as promised, and nothing measured is lost."""

import contextlib
import http.server
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil
import pytest
from support import cli

from blaster.engine.results import Results
from blaster.report.markdown import to_markdown
from blaster.transport.choice import wire_is_built

TRANSPORTS = ["grpc", "http", *(["wire"] if wire_is_built() else [])]

BAD_INPUT = [
    (["run", "nope"], "scenario 'nope'"),
    (["run", "norml"], "normal"),
    (["run", "--rate", "0"], "--rate '0'"),
    (["run", "--rate", "-5"], "--rate '-5'"),
    (["run", "--rate", "fast"], "--rate 'fast'"),
    (["run", "--rate", "nan"], "--rate 'nan'"),
    (["run", "--duration", "0"], "--duration '0'"),
    (["run", "--duration", "-3s"], "--duration '-3s'"),
    (["run", "--duration", "soon"], "--duration 'soon'"),
    (["run", "--violation-rate", "1.5"], "--violation-rate '1.5'"),
    (["run", "--violation-rate", "-0.1"], "--violation-rate '-0.1'"),
    (["run", "--violation-rate", "nan"], "--violation-rate 'nan'"),
    (["run", "--stages", "100@"], "--stages"),
    (["run", "--stages", "100@1s", "--rate", "5"], "--rate '5'"),
    (["run", "--endpoint", "ftp://localhost:1"], "--endpoint 'ftp://localhost:1'"),
    (["run", "--endpoint", "http://localhost:99999"], "--endpoint 'http://localhost:99999'"),
    (["run", "--endpoint", "http://"], "--endpoint 'http://'"),
    (["run", "--endpoint", "http://h:1/v1/traces"], "--endpoint 'http://h:1/v1/traces'"),
    (["run", "--endpoint", "http://h:1", "--embedded"], "--endpoint 'http://h:1'"),
    (["run", "--batch", "100000"], "--batch 100000"),
    (["run", "--batch", "0"], "--batch 0"),
    (["run", "--workers", "0"], "--workers 0"),
    (["run", "--workers", "5000"], "--workers 5000"),
    (["run", "--workers", "two"], "--workers"),
    (["run", "--in-flight", "0"], "--in-flight 0"),
    (["run", "--connections", "0"], "--connections 0"),
    (["run", "--spans-per-trace", "0"], "--spans-per-trace 0"),
    (["run", "--transport", "pigeon"], "--transport 'pigeon'"),
    (["run", "--transport", "null", "--embedded"], "--transport 'null'"),
    (["run", "--seed", "-1"], "--seed -1"),
    (["run", "--timeout", "0"], "--timeout '0'"),
    (["run", "--header", "secret"], "--header: must be NAME=VALUE"),
    (["run", "--watch", "/", "--embedded"], "--watch '/'"),
    (["run", "--watch", "999999999", "--embedded"], "--watch '999999999'"),
    (["run", "--json", "/nowhere/r.json", "--embedded"], "--json '/nowhere/r.json'"),
    (["run", "--nonsense"], "--nonsense"),
    (["sink", "--grpc-port", "70000"], "--grpc-port 70000"),
    (["nonsense"], "nonsense"),
]


@pytest.mark.parametrize(("arguments", "named"), BAD_INPUT, ids=[" ".join(b[0]) for b in BAD_INPUT])
def test_bad_input_is_one_line(arguments: list[str], named: str) -> None:
    """Wrong input ends with status 2 and one line that names it."""
    ran = cli.blaster(*arguments, timeout_s=20)
    assert ran.returncode == 2, ran
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("blaster: ") and named in line


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SPANS_PER_SECOND", "zero"),
        ("DURATION_SECONDS", "-1"),
        ("VIOLATION_RATE", "2"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://:x"),
    ],
)
def test_bad_environment_is_one_line(variable: str, value: str) -> None:
    """A wrong variable is named like a wrong option."""
    ran = cli.blaster("run", timeout_s=20, **{variable: value})
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert variable in line and value in line


def test_unknown_key_in_a_file(tmp_path: Path) -> None:
    """A scenario file's unknown key is named, with the nearest right one."""
    file = tmp_path / "s.toml"
    file.write_text('stages = [{ rate = 1, duration = "1s" }]\n[workload]\nviolation_rat = 0.1\n')
    ran = cli.blaster("run", str(file))
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "violation_rat" in line and "violation_rate" in line


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextlib.contextmanager
def serving(handler: type[socketserver.BaseRequestHandler]) -> Iterator[int]:
    """A TCP server on loopback in a thread."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(4096):
            self.request.sendall(data)


class Silent(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        time.sleep(8)


class Http1(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nobody_listens(transport: str) -> None:
    """A closed port is status 3, in one line."""
    url = f"http://127.0.0.1:{free_port()}"
    ran = cli.blaster("run", "--endpoint", url, "--transport", transport)
    assert ran.returncode == 3 and "nobody listens" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("handler", "seems"),
    [(Echo, "echo"), (Http1, "HTTP/1"), (Silent, "says nothing")],
    ids=["echo", "http1", "silent"],
)
def test_something_else_listens(handler: type[socketserver.BaseRequestHandler], seems: str) -> None:
    """A peer that does not speak OTLP/gRPC is status 3, and named for what it seems to be."""
    with serving(handler) as port:
        ran = cli.blaster("run", "--endpoint", f"http://127.0.0.1:{port}")
        assert ran.returncode == 3 and seems in ran.stderr, ran
        assert len(ran.stderr.splitlines()) == 1


class Run:
    """A run that goes on, against the embedded sink or an endpoint."""

    def __init__(self, out: Path, *arguments: str, before: Sequence[str] = ()) -> None:
        self.out = out
        self.process = cli.start("run", *arguments, "--json", str(out), before=before)
        assert self.process.stderr is not None
        # What will be sent is said at once, the first line of progress comes after a second.
        assert "bytes a span" in self.process.stderr.readline()
        assert "spans/s" in self.process.stderr.readline()

    def children(self, word: str = "") -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [c for c in children if (word in " ".join(c.cmdline()))]

    def workers(self) -> list[psutil.Process]:
        return [c for c in self.children() if "blaster.sink" not in " ".join(c.cmdline())]

    def end(self, timeout_s: float = 30) -> int:
        self.process.communicate(timeout=timeout_s)
        return self.process.returncode


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("rate", "signum"), [("500", signal.SIGINT), ("max", signal.SIGTERM)])
def test_interrupted(tmp_path: Path, transport: str, rate: str, signum: int) -> None:
    """Ctrl-C and SIGTERM end the run, status 130, and the results balance."""
    run = Run(
        tmp_path / "r.json",
        *("--embedded", "--rate", rate, "--duration", "60s", "--workers", "2"),
        *("--transport", transport),
    )
    workers = run.workers()
    assert len(workers) == 2
    run.process.send_signal(signum)
    assert run.end() == 130
    assert not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers)
    read = cli.results(run.out)
    assert read["interrupted"] and read["spans"]["unknown"] == 0
    assert read["sink"]["spans"] == read["spans"]["accepted"] > 0


def test_no_report_of_an_interrupted_run_says_just_passed(tmp_path: Path) -> None:
    """Console, Markdown, JUnit and HTML all say that the run was cut short, and when."""
    paths = {name: tmp_path / f"r.{name}" for name in ("xml", "html")}
    run = Run(
        tmp_path / "r.json",
        *("--embedded", "--rate", "500", "--duration", "60s", "--workers", "1"),
        *("--junit", str(paths["xml"]), "--html", str(paths["html"])),
    )
    run.process.send_signal(signal.SIGINT)
    console, _ = run.process.communicate(timeout=30)
    read = cli.results(run.out)
    passed = "Passed" if read["verdict"]["passed"] else "Failed"
    when = f"interrupted after {read['duration_s']:.1f} s"
    assert f"{passed.upper()} ({when})" in console
    assert f"**{passed} ({when}).**" in to_markdown(msgspec.convert(read, Results))
    assert f'<skipped message="expected all stages, actual {when}"' in paths["xml"].read_text()
    assert f"{passed} ({when})" in paths["html"].read_text()


def starting(command: str, *arguments: str) -> subprocess.Popen[str]:
    """A command that tells each import on standard error, which is how far it has come."""
    return subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "blaster", command, *arguments],
        env=cli.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def imported(process: subprocess.Popen[str], module: str) -> None:
    """Waits until the process has imported ``module``."""
    assert process.stderr is not None
    assert any(line.endswith(f" {module}\n") for line in process.stderr)


def has_children(process: subprocess.Popen[str], _: str) -> None:
    """Waits until the process has started another."""
    while not psutil.Process(process.pid).children():
        assert process.poll() is None
        time.sleep(0.001)


def has_said(process: subprocess.Popen[str], text: str) -> None:
    """Waits until ``text`` stands in a line on standard error."""
    assert process.stderr is not None
    assert any(text in line for line in process.stderr)


@pytest.mark.parametrize(
    ("sent_signal", "how"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "does not say its counts")],
)
def test_the_embedded_sink_is_lost(tmp_path: Path, sent_signal: signal.Signals, how: str) -> None:
    """The results are written without its counts, and the run has not passed."""
    run = Run(
        tmp_path / "r.json",
        *("--embedded", "--rate", "500", "--duration", "4s", "--timeout", "1s"),
    )
    (sink,) = run.children("blaster.sink")
    sink.send_signal(sent_signal)
    assert run.end() == 1
    read = cli.results(run.out)
    cli.balance(read)
    assert read["sink"] is None and 0 < read["spans"]["accepted"] < 2000
    (check,) = [c for c in read["verdict"]["checks"] if c["name"] == "embedded sink"]
    assert not check["passed"] and how in check["actual"]


def test_a_terminal_that_is_closed(tmp_path: Path) -> None:
    """SIGHUP to all of the process group ends the run as Ctrl-C does; nohup keeps it out."""
    out, kept = tmp_path / "r.json", tmp_path / "kept.json"
    arguments = ("--embedded", "--rate", "500", "--duration")
    run = Run(out, *arguments, "60s", before=["setsid"])
    os.killpg(run.process.pid, signal.SIGHUP)
    assert run.end() == 130
    read = cli.results(out)
    assert read["interrupted"] and read["sink"]["spans"] == read["spans"]["accepted"] > 0
    ignored = Run(kept, *arguments, "2s", before=["nohup"])
    ignored.process.send_signal(signal.SIGHUP)
    assert ignored.end() == 0 and not cli.results(kept)["interrupted"]


@pytest.mark.parametrize(
    ("wait", "for_what", "signum"),
    [
        (imported, "typer", signal.SIGINT),
        (imported, "numpy", signal.SIGTERM),
        (imported, "blaster.report.outputs", signal.SIGINT),
        (has_children, "the sink", signal.SIGINT),
        (has_said, "bytes a span", signal.SIGINT),
        (has_said, "bytes a span", signal.SIGTERM),
    ],
)
def test_interrupted_while_it_starts(
    tmp_path: Path,
    wait: Callable[[subprocess.Popen[str], str], None],
    for_what: str,
    signum: int,
) -> None:
    """From its first moment on, a run that is stopped has status 130 and results that balance."""
    out = tmp_path / "r.json"
    process = starting("run", "--embedded", "--duration", "60s", "--json", str(out))
    wait(process, for_what)
    process.send_signal(signum)
    said, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    read = cli.results(out)
    assert read["interrupted"] and read["spans"]["accepted"] == read["sink"]["spans"] < 5000
    if read["spans"]["scheduled"] == 0:
        assert "interrupted before the first span was offered" in said
        assert not read["verdict"]["passed"] and read["verdict"]["limited_by"] == "nobody"
        assert read["rate"]["target_spans_per_s"] == 100
    if wait is imported:
        assert read["spans"]["scheduled"] == 0


def test_interrupted_twice(tmp_path: Path) -> None:
    """A second signal does not wait until there are results."""
    out = tmp_path / "r.json"
    process = starting("run", "--embedded", "--duration", "60s", "--json", str(out))
    imported(process, "numpy")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    said, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and said == "" and not out.exists()
    assert [line for line in errors.splitlines() if "import time" not in line] == [
        "blaster: interrupted"
    ]


@pytest.mark.parametrize(("command", "module"), [("capacity", "numpy"), ("sink", "typer")])
def test_other_commands_interrupted_while_they_start(command: str, module: str) -> None:
    """They end with one line and status 130."""
    process = starting(command)
    imported(process, module)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and said == "", errors
    assert [line for line in errors.splitlines() if "import time" not in line] == [
        "blaster: interrupted"
    ]


def test_interrupted_while_it_connects(tmp_path: Path) -> None:
    """A signal while the target says nothing is status 130, too, with results."""
    out = tmp_path / "r.json"
    came = threading.Event()

    class Waits(Silent):
        def handle(self) -> None:
            came.set()
            super().handle()

    with serving(Waits) as port:
        process = cli.start("run", "--endpoint", f"http://127.0.0.1:{port}", "--json", str(out))
        assert came.wait(20)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=10)
    assert process.returncode == 130 and errors == ""
    assert "interrupted before the first span was offered" in said
    assert cli.results(out)["spans"]["scheduled"] == 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("rate", ["1000", "max"])
def test_worker_killed(tmp_path: Path, transport: str, rate: str) -> None:
    """A killed worker is named, what it sent is kept, and the run goes on to status 1."""
    run = Run(
        tmp_path / "r.json",
        *("--embedded", "--rate", rate, "--duration", "3s", "--workers", "2"),
        *("--transport", transport),
    )
    victim = run.workers()[0]
    victim.kill()
    assert run.process.stderr is not None
    said = [run.process.stderr.readline() for _ in range(2)]
    assert any(f"pid {victim.pid}" in line and "SIGKILL" in line for line in said)
    assert run.end() == 1
    read = cli.results(run.out)
    (lost,) = read["generator"]["lost_workers"]
    assert f"pid {victim.pid}" in lost and "SIGKILL" in lost
    assert read["spans"]["accepted"] > 0
    if rate != "max":
        assert read["spans"]["not_offered"] > 500
        assert read["spans"]["scheduled"] == 3000


def test_workers_do_not_outlive_the_parent(tmp_path: Path) -> None:
    """When the parent is killed, its workers and its sink are gone within seconds."""
    run = Run(tmp_path / "r.json", "--embedded", "--duration", "60s", "--workers", "2")
    children = run.children()
    assert len(children) == 3
    run.process.kill()
    run.process.communicate()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_backend_killed(tmp_path: Path, transport: str) -> None:
    """When the backend dies in mid-run the run goes on, counts what fails, and balances."""
    port = free_port()
    ports = (
        ["--http-port", "--grpc-port"] if transport == "http" else ["--grpc-port", "--http-port"]
    )
    sink = subprocess.Popen(
        [*cli.COMMAND, "sink", ports[0], str(port), ports[1], "0", "--api-port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sink.stdout is not None and sink.stdout.readline()
        run = Run(
            tmp_path / "r.json",
            *("--endpoint", f"http://127.0.0.1:{port}", "--rate", "1000", "--duration", "4s"),
            *("--timeout", "1s", "--watch", str(sink.pid), "--transport", transport),
        )
        sink.kill()
        assert run.end() == 1
    finally:
        sink.kill()
        sink.communicate()
    read = cli.results(run.out)
    assert read["spans"]["accepted"] > 500
    assert read["spans"]["failed"] + read["spans"]["unknown"] > 1000
    assert read["spans"]["scheduled"] == 4000
    assert "UNKNOWN" not in read["requests"]["by_status"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_backend_comes_back(tmp_path: Path, transport: str) -> None:
    """A backend that is stopped for a second delays answers; nothing is lost or doubled."""
    run = Run(
        tmp_path / "r.json",
        *("--embedded", "--rate", "1000", "--duration", "3s", "--transport", transport),
    )
    (sink,) = run.children("blaster.sink")
    os.kill(sink.pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(sink.pid, signal.SIGCONT)
    assert run.end() == 0
    read = cli.results(run.out)
    assert read["sink"]["spans"] == read["spans"]["accepted"] == 3000
    assert read["latency_ms"]["response"]["max"] > 900


def test_python_is_not_seen(tmp_path: Path) -> None:
    """No message of a failed start shows a stack trace."""
    ran = cli.blaster("run", "--endpoint", "http://no-such-host.invalid:4317")
    assert ran.returncode == 3
    assert "Traceback" not in ran.stderr and len(ran.stderr.splitlines()) == 1


def test_results_are_kept_when_their_file_cannot_be_written(tmp_path: Path) -> None:
    """Where the results cannot be written at the end, they are kept elsewhere, and it is said."""
    folder = tmp_path / "gone"
    folder.mkdir()
    run = Run(folder / "r.json", "--embedded", "--duration", "2s")
    folder.rmdir()
    _, errors = run.process.communicate(timeout=30)
    assert run.process.returncode == 1 and "Traceback" not in errors
    kept = Path(errors.strip().splitlines()[-1].rpartition(" ")[2])
    try:
        assert cli.results(kept)["spans"]["accepted"] == 200
    finally:
        kept.unlink()

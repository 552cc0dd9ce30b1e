"""Dask clusters for the tests: on loopback, or with a network namespace for each host.

A namespace has its own address, 10.77.0.N, on a link of its own to a bridge in one more namespace,
so that nothing touches the machine's own network.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from support.cli import environment

PYTHON = [sys.executable, "-m"]
START_TIMEOUT_S = 60.0


class Program:
    """A process that a test started, with what it wrote."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        self._file: IO[bytes] = log.open("ab")
        self.process = subprocess.Popen(
            command, stdout=self._file, stderr=self._file, env=environment()
        )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._file.close()


def _until(file: Path, program: Program) -> Any:
    """Return the content of a JSON file, once it is there."""
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        if program.process.poll() is not None:
            break
        if file.exists() and (text := file.read_text()).strip():
            try:
                return json.loads(text)
            except ValueError:
                pass
        time.sleep(0.05)
    raise AssertionError(f"did not start: {program.log.read_text()[-2000:]}")


class DaskCluster:
    """A scheduler and its workers. ``prefixes``: what comes before a command to run it on a host,
    by the host's address; the first is the scheduler's."""

    def __init__(self, folder: Path, prefixes: dict[str, list[str]]) -> None:
        self.folder, self.prefixes = folder, prefixes
        self.home, *self.hosts = prefixes
        self._programs: dict[str, Program] = {}
        self._started = 0
        file = folder / "scheduler.json"
        scheduler = self._start(
            self.home,
            ("scheduler", "--host", self.home, "--port", "0", "--scheduler-file", str(file)),
        )
        self.url: str = _until(file, scheduler)["address"]
        for host in self.hosts:
            self.start(host)
        self.wait()

    def start(self, host: str) -> None:
        """Starts the Dask worker of a host."""
        self._started += 1
        where = ("--host", host, "--local-directory", str(self.folder / f"local-{host}"))
        self._start(host, ("worker", self.url, *where, "--nthreads", "1", "--no-nanny"))

    def restart(self, host: str) -> None:
        """Starts a host's Dask worker again, once that was killed."""
        self.start(host)
        self.wait()

    def wait(self) -> None:
        """Waits until the scheduler knows all workers, as it writes itself."""
        until = time.monotonic() + START_TIMEOUT_S
        scheduler = self._programs[self.home]
        while scheduler.log.read_text().count("Register worker addr") < self._started:
            assert time.monotonic() < until, self.logs()
            time.sleep(0.05)

    def pid(self, host: str) -> int:
        return self._programs[host].process.pid

    def logs(self) -> str:
        """All that Dask wrote."""
        return "".join(p.log.read_text(errors="replace") for p in self._programs.values())

    def end(self) -> None:
        for program in self._programs.values():
            program.end()

    def _start(self, host: str, arguments: Sequence[str]) -> Program:
        if host in self._programs:
            self._programs[host].end()
        command = [*self.prefixes[host], *PYTHON, "distributed.cli.dask_" + arguments[0]]
        command += [*arguments[1:], "--no-dashboard"]
        program = Program(command, self.folder / f"{arguments[0]}-{host}.log")
        self._programs[host] = program
        return program


@contextmanager
def on_loopback(folder: Path, hosts: int) -> Iterator[DaskCluster]:
    """A cluster whose hosts are addresses of the loopback, from 127.0.0.2 on."""
    cluster = DaskCluster(folder, {f"127.0.0.{n + 1}": [] for n in range(hosts + 1)})
    try:
        yield cluster
    finally:
        cluster.end()


def why_no_namespaces() -> str | None:
    """Why this machine cannot make network namespaces; None where it can."""
    if sys.platform != "linux" or shutil.which("ip") is None or shutil.which("tc") is None:
        return "network namespaces need Linux and iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"blaster-{secrets.token_hex(4)}"
    tried = subprocess.run(
        ["ip", "netns", "add", name], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return f"ip netns add: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Network:
    """Namespaces at 10.77.0.1 and so on, joined by a bridge."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self._base = f"b{secrets.token_hex(3)}"
        self._stack = stack
        self._hub = self._namespace("hub")
        self._in(self._hub, "ip link add bridge type bridge")
        self._in(self._hub, "ip link set bridge up")
        self.addresses = [self._host(number) for number in range(1, count + 1)]

    def prefix(self, address: str) -> list[str]:
        """Return the words that run a command in the namespace of ``address``."""
        return ["ip", "netns", "exec", self._name(address)]

    def pids(self, address: str) -> list[int]:
        """All processes there."""
        said = subprocess.run(
            ["ip", "netns", "pids", self._name(address)], capture_output=True, text=True, check=True
        )
        return [int(pid) for pid in said.stdout.split()]

    def signal(self, address: str, number: signal.Signals) -> None:
        """Sends a signal to all processes there."""
        for pid in self.pids(address):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def unplug(self, address: str) -> None:
        """Takes the cable out: nothing comes or goes, and nobody is told."""
        self._in(self._hub, f"ip link set port{address.rpartition('.')[2]} nomaster")

    def plug(self, address: str) -> None:
        """Puts it back."""
        self._in(self._hub, f"ip link set port{address.rpartition('.')[2]} master bridge")

    def forget(self, address: str, peer: str) -> None:
        """From ``address``, packets to ``peer`` alone are thrown away."""
        self._in(self._name(address), f"ip route add blackhole {peer}/32")

    def remember(self, address: str, peer: str) -> None:
        """They arrive again."""
        self._in(self._name(address), f"ip route del blackhole {peer}/32")

    def limit(self, address: str, rate: str) -> None:
        """Limit the rate at which ``address`` sends, as ``2mbit``."""
        shape = f"rate {rate} burst 4kb latency 4s"
        self._in(self._name(address), f"tc qdisc replace dev eth0 root tbf {shape}")

    def unlimit(self, address: str) -> None:
        self._in(self._name(address), "tc qdisc del dev eth0 root")

    def _host(self, number: int) -> str:
        address = f"10.77.0.{number}"
        name = self._namespace(str(number))
        self._in(self._hub, f"ip link add port{number} type veth peer name eth0 netns {name}")
        self._in(self._hub, f"ip link set port{number} master bridge up")
        self._in(name, f"ip addr add {address}/24 dev eth0")
        self._in(name, "ip link set eth0 up")
        self._in(name, "ip link set lo up")
        return address

    def _name(self, address: str) -> str:
        return f"{self._base}-{address.rpartition('.')[2]}"

    def _namespace(self, suffix: str) -> str:
        name = f"{self._base}-{suffix}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        self._stack.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        return name

    @staticmethod
    def _in(name: str, command: str) -> None:
        subprocess.run(["ip", "netns", "exec", name, *command.split()], check=True)

"""The ladder: measures each rung in fresh processes, and what it adds to the one below."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from shutil import which
from typing import Any

from blaster import interpreter
from blaster.errors import BlasterError, UsageError
from blaster.sink.process import EmbeddedSink
from blaster.transport import choice
from blaster.transport.otlp_settings import OtlpSettings
from blaster.transport.probe import probe
from blaster.units import quoted

RUNS = 3
"""Processes for each rung; the median is reported."""

EXTRA_S = 30.0
RECEIVE_BYTES = 1 << 20


@dataclass(frozen=True)
class Rung:
    """The medians of a rung: CPU nanoseconds, bytes and user-mode instructions (None: not counted)
    a span; ``on``: the rung below, None for a reference beside the ladder."""

    name: str
    what: str
    on: str | None
    ns_per_span: float
    bytes_per_span: float
    instructions_per_span: float | None
    spans_per_cpu_second: float


def rungs(target: OtlpSettings | None) -> list[tuple[str, str, str | None]]:
    """Name, description and the rung below, from the bottom up; wire only if it is built."""
    ladder: list[tuple[str, str, str | None]] = [
        ("memcpy", "the same bytes, copied", None),
        ("loopback", "the same bytes, bare TCP", None),
        ("columns", "IDs, times, violations", None),
        ("stamp", "+ stamped, batch by batch", "columns"),
        ("null", "+ the worker, null transport", "stamp"),
    ]
    if choice.wire_is_built():
        ladder.append(("wire", "+ wire to the embedded sink", "null"))
    ladder.append(("grpc", "+ grpc to the embedded sink", "null"))
    if target is not None:
        ladder.append(("target", f"+ {target.transport} to {target.endpoint.url}", "null"))
    return ladder


def measure_rungs(batch: int, seconds: float, target: OtlpSettings | None) -> Iterator[Rung]:
    """Measure rung after rung. Raises BlasterError if one fails."""
    if target is not None:
        probe(target)
    with EmbeddedSink() as sink, _discarding() as port:
        for name, what, on in rungs(target):
            spec = _spec(name, batch, seconds, sink.endpoint, port, target)
            measured = [_measure(_command(spec), seconds) for _ in range(RUNS)]
            yield _median(name, what, on, measured)


def flame_graph(
    rung: str, path: str, batch: int, seconds: float, target: OtlpSettings | None
) -> None:
    """Sample one rung with py-spy, native frames included, and write the SVG to ``path``.

    Raises UsageError if there is no such rung, or no py-spy.
    """
    names = [name for name, _, _ in rungs(target)]
    if rung not in names:
        raise UsageError(f"--rung {quoted(rung)}: must be {', '.join(names)}")
    spy = which("py-spy", path=f"{sys.prefix}/bin") or which("py-spy")
    if spy is None:
        raise UsageError("--flame-graph: needs py-spy: pip install 'blaster[profile]'")
    with EmbeddedSink() as sink, _discarding() as port:
        spec = _spec(rung, batch, seconds, sink.endpoint, port, target)
        options = ["record", "--native", "--rate", "200", "--format", "flamegraph", "-o", path]
        _measure([spy, *options, "--", *_command(spec)], seconds, parse=False)


def to_json(measured: list[Rung], batch: int, host: dict[str, Any]) -> str:
    """The ladder as JSON."""
    rows = [asdict(rung) for rung in measured]
    return json.dumps({"spans_per_request": batch, "host": host, "rungs": rows}, indent=2) + "\n"


def _spec(
    rung: str, batch: int, seconds: float, sink: str, port: int, target: OtlpSettings | None
) -> dict[str, Any]:
    spec = {"batch": batch, "seconds": seconds, "port": port}
    if rung == "target" and target is not None:
        return {**spec, "rung": target.transport, "url": target.endpoint.url, "target": True}
    return {**spec, "rung": rung, "url": sink, "target": False}


def _command(spec: dict[str, Any]) -> list[str]:
    return interpreter.command("blaster.profile.rung", json.dumps(spec))


def _measure(command: list[str], seconds: float, parse: bool = True) -> dict[str, Any]:
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + EXTRA_S
        )
    except subprocess.TimeoutExpired:
        raise BlasterError("a rung did not end in time") from None
    if ran.returncode != 0:
        lines = ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"]
        raise BlasterError(f"a rung failed: {lines[-1]}")
    return dict(json.loads(ran.stdout)) if parse else {}


def _median(name: str, what: str, on: str | None, runs: list[dict[str, Any]]) -> Rung:
    if not all(run["spans"] for run in runs):
        raise BlasterError(f"the rung {name} sent nothing in that time; give it more --seconds")
    ns = statistics.median(1e9 * run["cpu_seconds"] / run["spans"] for run in runs)
    counted = [r["instructions"] / r["spans"] for r in runs if r["instructions"] is not None]
    return Rung(
        name=name,
        what=what,
        on=on,
        ns_per_span=round(ns, 2),
        bytes_per_span=round(runs[0]["bytes"] / runs[0]["spans"], 1),
        instructions_per_span=round(statistics.median(counted), 1) if counted else None,
        spans_per_cpu_second=round(1e9 / ns),
    )


@contextmanager
def _discarding() -> Iterator[int]:
    """Run a TCP server on loopback, in its own process, that discards its input; yield its port."""
    with subprocess.Popen(
        interpreter.command("blaster.profile.ladder"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C in the terminal is for the parent
    ) as server:
        assert server.stdout is not None and server.stdin is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()


def _discard() -> None:
    """Discard everything received, until standard input ends."""

    def read(connection: socket.socket) -> None:
        room = bytearray(RECEIVE_BYTES)
        with connection:
            while connection.recv_into(room):
                pass

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=read, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        threading.Thread(target=accept, daemon=True).start()
        sys.stdin.read()


if __name__ == "__main__":
    _discard()

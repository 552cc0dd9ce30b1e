"""One rung of the ladder, measured in its own process: ``python -m blaster.profile.rung SPEC``.

Prints one line of JSON: spans, bytes, CPU time, and instructions if they are counted.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from blaster.engine import worker
from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan
from blaster.measure.instructions import InstructionCounter
from blaster.scenario.scenario import Scenario, Stage, Workload
from blaster.transport.factory import Settings, factory
from blaster.transport.otlp_options import OtlpOptions
from blaster.transport.otlp_settings import resolve

SEED = 1
CONNECT_NS = 400_000_000
"""The time for a rung with a transport to connect."""

LOOPBACK_BYTES = 3 << 20
"""The size of the data that the loopback rung sends repeatedly."""

WRITE_BYTES = 256 << 10
"""The most bytes that the loopback rung writes at once."""


@dataclass(frozen=True)
class Measured:
    """The work of one rung and its CPU-seconds; ``instructions``: None if the machine does not
    count them."""

    spans: int
    bytes: int
    cpu_seconds: float
    instructions: int | None


def plan_of(batch: int, seconds: float) -> Plan:
    """The plan of a closed loop of one worker with the default workload."""
    stage = Stage(duration_ns=int(seconds * 1e9), start_rate=None, end_rate=None)
    workload = Workload(violation_rate=Fraction(1, 10))
    scenario = Scenario(name="profile", stages=(stage,), workload=workload, batch=batch)
    return Plan.of(scenario, seed=SEED, workers=1)


def columns(batch: int, seconds: float) -> Measured:
    """Measure the columns alone: IDs, times and violations, chunk after chunk."""
    chunk = _Chunk(batch)
    return _repeat(chunk.columns, chunk.spans, 0, seconds)


def stamp(batch: int, seconds: float) -> Measured:
    """Measure making batches, as for sending: columns, and the kernel that stamps them."""
    chunk = _Chunk(batch)
    return _repeat(chunk.make, chunk.spans, chunk.bytes, seconds)


def memcpy(batch: int, seconds: float) -> Measured:
    """Measure a plain copy of a batch's bytes: the limit of memory alone."""
    chunk = _Chunk(batch)
    size = chunk.bytes // chunk.requests
    original, copy = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return _repeat(lambda: np.copyto(copy, original), chunk.spans // chunk.requests, size, seconds)


def loopback(batch: int, seconds: float, port: int) -> Measured:
    """Measure the same bytes over a bare TCP connection: the cost of loopback alone."""
    chunk = _Chunk(batch)
    # Whole batches, in distinct pages: zeros would all share one.
    batches = max(1, LOOPBACK_BYTES * chunk.requests // chunk.bytes)
    size = batches * (chunk.bytes // chunk.requests)
    data = np.ones(size, np.uint8).data
    step = min(WRITE_BYTES, size)
    with socket.create_connection(("127.0.0.1", port)) as connection:

        def send() -> None:
            for at in range(0, size, step):
                connection.sendall(data[at : at + step])

        return _repeat(send, batches * (chunk.spans // chunk.requests), size, seconds)


def transport(name: str, batch: int, seconds: float, url: str, *, target: bool) -> Measured:
    """Measure a whole worker with a transport, as with ``--rate max``. ``target``: it sends to the
    user's endpoint, with the environment's variables."""
    plan = plan_of(batch, seconds)
    in_flight = 1 if name == "null" else 8
    options = OtlpOptions(endpoint=url, transport=name)
    otlp = resolve(options if target else dataclasses.replace(options, environ={}))
    ledger = Ledger(1, plan.segments)
    ledger.control.start_ns = time.monotonic_ns() + CONNECT_NS
    make = factory(Settings(otlp, 1, in_flight))
    with InstructionCounter() as counter:
        worker.run(plan, 0, ledger, make, timeout_s=10.0, connect_timeout_s=4.0)
    slab = ledger.slabs[0]
    if error := slab.messages().get("error"):
        raise SystemExit(error)
    sent = slab.sent_spans
    if slab.accepted != sent:
        raise SystemExit(f"{name}: only {slab.accepted} of {sent} spans were accepted")
    return Measured(sent, slab.sent_bytes, slab.cpu_seconds, counter.count)


class _Chunk:
    """A chunk as large as the engine's; its spans and bytes."""

    def __init__(self, batch: int) -> None:
        plan = plan_of(batch, 1.0)
        self._source = plan.column_source()
        self._made = self._source.batches(plan.template.compile())
        self.requests = max(1, worker.CHUNK_SPANS["made"] // batch)
        self._held = plan.shard(0).of(np.arange(self.requests, dtype=np.int64))
        self._ended = np.full(self.requests, time.time_ns())
        self.spans = plan.shard(0).spans_of(self.requests)
        self.bytes = self.make()

    def columns(self) -> None:
        held = self._held
        self._source.make(
            held.first, held.counts, self._ended, parts=held.parts, quota_first=held.quota
        )

    def make(self) -> int:
        held = self._held
        self._source.begin(
            *(self._made, held.first, held.counts, self._ended),
            parts=held.parts,
            quota_first=held.quota,
        )
        return sum(map(len, self._made))


def _repeat(work: Callable[[], object], spans: int, size: int, seconds: float) -> Measured:
    work()
    rounds = 0
    with InstructionCounter() as counter:
        begun, until = time.process_time(), time.monotonic() + seconds
        while time.monotonic() < until:
            work()
            rounds += 1
        cpu = time.process_time() - begun
    return Measured(spans * rounds, size * rounds, cpu, counter.count)


_ALONE: dict[str, Callable[[int, float], Measured]] = {
    "columns": columns,
    "stamp": stamp,
    "memcpy": memcpy,
}


def main(spec: dict[str, Any]) -> Measured:
    """Measure the rung that ``spec`` names: {rung, batch, seconds} and {port} or {url}."""
    name, batch, seconds = spec["rung"], spec["batch"], spec["seconds"]
    if name in _ALONE:
        return _ALONE[name](batch, seconds)
    if name == "loopback":
        return loopback(batch, seconds, spec["port"])
    return transport(name, batch, seconds, spec["url"], target=spec["target"])


if __name__ == "__main__":
    print(json.dumps(vars(main(json.loads(sys.argv[1])))))

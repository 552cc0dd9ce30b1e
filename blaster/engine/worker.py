"""A worker: makes the batches of its shard and sends them, until the plan or the user says stop.

It runs in a process of its own, forked before grpcio is imported or any thread is started.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan
from blaster.engine.sample import Sample
from blaster.engine.slab import WorkerState
from blaster.errors import BlasterError
from blaster.layout import Int64
from blaster.transport.base import Chunk, Framing, Status, Transport, TransportFactory

CHUNK_SPANS: dict[Framing, int] = {"made": 65_536, "buffer": 16_384}
"""Spans handed to the transport at a time, by its framing: enough to make Python's cost a span
small; and of those that are stamped beforehand no more than the caches hold."""

LEAD_NS = 5_000_000
"""How long before its time a request is handed over."""

HORIZON_NS = 50_000_000
"""How far ahead a chunk reaches: no longer, so that what is recorded is never old."""

RECORD_NS = 20_000_000
"""How often what ended is added to the ledger: adding costs as much as a hundred requests do."""

GRACE_NS = 1_000_000_000
"""How long after the last stage what is late may still be offered; then it is not_offered."""

DRAIN_ON_STOP_NS = 1_000_000_000
"""How long answers are awaited after an interruption."""

MAX_CHUNK_BYTES = 64 << 20


def run(
    plan: Plan,
    worker: int,
    ledger: Ledger,
    make_transport: TransportFactory,
    *,
    timeout_s: float,
    connect_timeout_s: float,
    sample: Sample | None = None,
) -> None:
    """The life of worker ``worker``: connect, wait for the start, send, drain, record.

    What goes wrong is left in the slab for the parent to say; the state then is FAILED.
    """
    slab = ledger.slabs[worker]
    transport: Transport | None = None
    try:
        transport = make_transport(slab, ledger.stop_word)
        if sample is not None:
            transport = sample.wrap(worker, transport)
        # Before the connections, which must not be kept waiting, and long before the start.
        sender = _Worker(plan, worker, ledger, transport)
        transport.connect(connect_timeout_s)
        slab.state = WorkerState.READY
        while ledger.control.start_ns == 0 and ledger.stopped_ns == 0:
            time.sleep(0.001)
        slab.state = WorkerState.RUNNING
        sender.send_all(int(timeout_s * 1e9))
        slab.put_messages(
            {Status(status).name: text for status, text in transport.messages().items()}
        )
        slab.state = WorkerState.DONE
    except BlasterError as error:
        slab.put_messages({"error": str(error), "exit_status": str(error.exit_status)})
        slab.state = WorkerState.FAILED
    finally:
        if transport is not None:
            transport.close()
            start = ledger.control.start_ns
            slab.record(transport.outcomes(), start, closed_loop=plan.pacer is None)


class _Worker:
    def __init__(self, plan: Plan, worker: int, ledger: Ledger, transport: Transport) -> None:
        self._whole_plan = self._plan = plan  # as it was made, and with the holds so far
        self._worker, self._hold_steps = worker, 0
        self._shard = plan.shard(worker)
        self._ledger = ledger
        self._slab = ledger.slabs[worker]
        self._transport = transport
        self._source = plan.column_source()
        self._template = plan.template.compile()
        self._made = None
        if transport.framing == "made" and not plan.template.text:
            self._made = self._source.batches(self._template)
        self._request_bytes = plan.bytes_per_request
        self._chunk_requests = max(
            1,
            min(
                int(
                    CHUNK_SPANS["buffer" if self._made is None else "made"] / plan.spans_per_request
                ),
                MAX_CHUNK_BYTES // self._request_bytes,
            ),
        )
        self._epoch = ledger.epoch_ns
        self._start = self._record_at = 0
        self._buffers = _Buffers()

    def send_all(self, timeout_ns: int) -> None:
        self._start = self._ledger.control.start_ns
        self._slab.cpu_begin_ns = self._slab.cpu_ns = time.process_time_ns()
        if self._start:
            if self._plan.pacer is None:
                self._closed_loop()
            else:
                self._open_loop()
        self._slab.scheduled = self._scheduled_spans()
        self._drain(time.monotonic_ns() + timeout_ns)

    def _drain(self, until: int) -> None:
        """Awaits the answers, recording what comes; a stop leaves them DRAIN_ON_STOP_NS."""
        stop = self._ledger.stop_word
        while not stop[0] and self._transport.in_flight() and time.monotonic_ns() < until:
            self._transport.wait(min(time.monotonic_ns() + HORIZON_NS, until))
            self._record()
        if stop[0]:
            until = min(until, time.monotonic_ns() + DRAIN_ON_STOP_NS)
        self._transport.drain(until)
        self._record_at = 0
        self._record()

    def _open_loop(self) -> None:
        transport = self._transport
        k = 0
        while True:
            # Before the holds are looked at: what is sent now lies before any hold not seen yet.
            now = time.monotonic_ns()
            self._look_at_holds()
            shard, pacer = self._shard, self._plan.pacer
            assert shard.requests is not None and pacer is not None
            until = self._start + pacer.duration_ns + GRACE_NS
            if k >= shard.requests:
                return
            ahead = np.arange(k, min(k + self._chunk_requests, shard.requests), dtype=np.int64)
            scheduled = shard.times(ahead) + self._start
            if self._ledger.stopped_ns or now >= self._ledger.lease(until):
                return
            if scheduled[0] > now + LEAD_NS:
                transport.wait(min(int(scheduled[0]) - LEAD_NS, now + HORIZON_NS))
                self._record()
                continue
            here = max(1, int(np.searchsorted(scheduled, now + HORIZON_NS)))
            ended = shard.ended(ahead[:here]) + self._start
            chunk = self._chunk(ahead[:here], scheduled[:here], ended)
            # Fewer than all only where the time is over, or the lease is: then it may be renewed.
            k += transport.send(chunk, self._ledger.lease(until))
            self._record()

    def _look_at_holds(self) -> None:
        steps = self._ledger.control.hold_steps
        if steps != self._hold_steps:
            self._hold_steps = steps
            self._plan = self._whole_plan.held(self._ledger.holds())
            self._shard = self._plan.shard(self._worker)
            self._slab.starts = self._plan.segments.starts

    def _closed_loop(self) -> None:
        transport = self._transport
        until = self._start + self._plan.scenario.duration_ns
        k = 0
        while not self._ledger.stopped_ns:
            now = time.monotonic_ns()
            if now >= self._ledger.lease(until):
                return
            ahead = np.arange(k, k + self._chunk_requests, dtype=np.int64)
            scheduled = np.full(len(ahead), now, np.int64)
            # Several workers send the parts of a trace: they all know when the run began.
            ended = scheduled if self._plan.mix.parts == 1 else np.full_like(scheduled, self._start)
            chunk = self._chunk(ahead, scheduled, ended)
            k += transport.send(chunk, self._ledger.lease(until))
            self._record()

    def _chunk(self, k: Int64, scheduled: Int64, ended: Int64) -> Chunk:
        """The batches of requests ``k``, whose traces ended at ``ended``."""
        held, first = self._shard.of(k), int(k[0])
        rows = (held.first, held.counts, ended + self._epoch)
        if self._made is not None:
            spans = self._source.begin(self._made, *rows, parts=held.parts, quota_first=held.quota)
            return Chunk(scheduled, spans, made=self._made, first=first)
        columns = self._source.make(*rows, parts=held.parts, quota_first=held.quota)
        filling = self._plan.template.filling(columns.arrays)
        offsets = np.empty(len(k) + 1, np.int64)
        out = self._buffers.take(len(k) * self._request_bytes)
        self._template.stamp_into(filling, columns.variants, columns.counts, out, offsets)
        return Chunk(scheduled, columns.spans, offsets, out.data, first=first)

    def _record(self) -> None:
        now = time.monotonic_ns()
        if now < self._record_at:
            return
        self._record_at = now + RECORD_NS
        self._slab.record(
            self._transport.outcomes(), self._start, closed_loop=self._plan.pacer is None
        )
        self._slab.cpu_ns = time.process_time_ns()

    def _scheduled_spans(self) -> int:
        """The spans that were due while this worker was offering, and never fewer than it sent."""
        self._look_at_holds()
        sent = self._shard.spans_of(self._slab.sent_requests)
        if self._plan.pacer is None or not self._start:
            return sent
        stop = self._ledger.stopped_ns
        elapsed = (stop or time.monotonic_ns()) - self._start
        return max(sent, self._shard.spans_of(self._shard.due(elapsed)))


class _Buffers:
    """Memory for chunks, used again once no transport holds it: fresh pages cost page faults."""

    def __init__(self) -> None:
        self._arrays: list[npt.NDArray[np.uint8]] = []

    def take(self, size: int) -> npt.NDArray[np.uint8]:
        """An array (uint8) of at least ``size`` that nobody else refers to."""
        arrays = self._arrays
        for index in range(len(arrays)):
            # Two references: the list's and getrefcount's own argument.
            if sys.getrefcount(arrays[index]) == 2 and len(arrays[index]) >= size:
                return arrays[index]
        # Powers of two, so that chunks of nearly one size share their memory.
        arrays.append(np.empty(1 << size.bit_length(), np.uint8))
        return arrays[-1]


def fork(target: Callable[[], None]) -> int:
    """Forks a process that runs ``target`` and exits; returns its pid.

    The child ignores SIGINT and SIGHUP (the parent stops it) and, on Linux, is killed when the
    parent dies.
    """
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _die_with(parent)
        target()
        status = 0
    except BaseException:  # the child must not return into the parent's stack
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

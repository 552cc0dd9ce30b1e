"""The wire client: gives every request exactly one outcome, whatever the peer does."""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support import hostile, peers

from blaster import __version__
from blaster.errors import TargetUnreachable, UsageError
from blaster.payload import flat, workload
from blaster.payload.columns import ColumnSource
from blaster.payload.mix import Mix
from blaster.scenario.scenario import Workload
from blaster.transport.base import EXPORT_METHOD, Chunk, SendCounts, Status
from blaster.transport.tls import Tls

wire = pytest.importorskip("blaster.transport.wire", reason="blaster._wire is not built")
_wire = pytest.importorskip("blaster._wire", reason="blaster._wire is not built")

pytestmark = pytest.mark.native

MILLISECOND = 1_000_000
SECOND = 1_000_000_000
SPANS = 10


class Run:
    """A transport, its two shared arrays, and the outcomes it gave."""

    def __init__(self, port: int, **options: Any) -> None:
        self.counts = SendCounts.zeros()
        self.stop = np.zeros(1, np.int64)
        self.found: list[Any] = []
        defaults = {"connections": 1, "in_flight": 8, "timeout_s": 0.5, "metadata": []}
        self.transport = wire.WireTransport(
            host=options.pop("host", "127.0.0.1"),
            port=port,
            counts=self.counts,
            stop=self.stop,
            **(defaults | options),
        )

    def chunk(self, sizes: Sequence[int], spacing_ns: int = 0, body: bytes = b"") -> Chunk:
        """Batches of these sizes, due from now on."""
        count = len(sizes)
        offsets = np.concatenate(([0], np.cumsum(np.array(sizes, np.int64)))).astype(np.int64)
        return Chunk(
            scheduled=time.monotonic_ns() + np.arange(count, dtype=np.int64) * spacing_ns,
            spans=np.full(count, SPANS, np.int64),
            offsets=offsets,
            buffer=memoryview(body or bytearray(int(offsets[-1]))),
        )

    def made(self, traces: Sequence[int], spacing_ns: int = 0) -> Chunk:
        """Batches of so many traces of a span, due from now on, that are made as they are sent."""
        return made_chunk(traces, time.monotonic_ns() + np.arange(len(traces)) * spacing_ns)

    def outcomes(self) -> Any:
        """All outcomes so far, in one array."""
        taken = self.transport.outcomes()
        self.found.append(taken)
        return np.concatenate(self.found)

    def statuses(self) -> Counter[str]:
        """How often each status came."""
        return Counter(Status(int(status)).name for status in self.outcomes()["status"])

    def check(self, offered: int) -> None:
        """As many requests were offered as were sent and have ended."""
        outcomes = self.outcomes()
        assert len(outcomes) == offered
        assert self.counts.words[:3].tolist() == [
            offered,
            outcomes["spans"].sum(),
            outcomes["bytes"].sum(),
        ]
        assert self.transport.in_flight() == 0
        assert (outcomes["sent"] >= outcomes["scheduled"]).all()
        assert (outcomes["done"] >= outcomes["sent"]).all()


def made_chunk(traces: Sequence[int], scheduled: Any, mix: Mix | None = None) -> Chunk:
    mix = mix or Mix([flat.shape()], Fraction(1, 10))
    source = ColumnSource(1, mix)
    batches = source.batches(mix.template.compile())
    counts = np.array(traces, np.int64)
    spans = source.begin(batches, np.cumsum(counts) - counts, counts, np.full_like(counts, SECOND))
    return Chunk(scheduled, spans, made=batches)


@contextmanager
def running(port: int, *, connect: bool = True, **options: Any) -> Iterator[Run]:
    run = Run(port, **options)
    try:
        if connect:
            run.transport.connect(5.0)
        yield run
    finally:
        run.transport.close()


@pytest.mark.parametrize("name", ["OUTCOME_FIELDS", "RAISED_FIELDS"])
def test_refuses_a_client_with_other_layouts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was built with its fields in another order is not used."""
    fields = getattr(_wire, name)
    monkeypatch.setattr(_wire, name, (fields[1], fields[0], *fields[2:]))
    monkeypatch.delitem(sys.modules, "blaster.transport.wire")
    with pytest.raises(ImportError, match="built from other sources"):
        importlib.import_module("blaster.transport.wire")


@pytest.mark.parametrize("name", ["connections", "in_flight"])
def test_refuses_more_than_its_limits(name: str) -> None:
    """The limits that the module tells are those of the client."""
    limit = {"connections": _wire.MAX_CONNECTIONS, "in_flight": _wire.MAX_IN_FLIGHT}[name]
    Run(1, **{name: limit}).transport.close()
    with pytest.raises(UsageError, match=f"{name} is {limit + 1}, not 1 to {limit}"):
        Run(1, **{name: limit + 1})


def soon(seconds: float) -> int:
    return time.monotonic_ns() + int(seconds * SECOND)


@pytest.mark.parametrize("name", hostile.BEHAVIOURS)
def test_counts_every_request(name: str) -> None:
    """Every request that is offered ends once, with a status that the peer deserves."""
    case = hostile.BEHAVIOURS[name]
    sizes = [150_000] * 4 if case.large else [0, 1, 1000, 3000] * 5
    timeout_s = 0.5 if {"NO_ANSWER_TIMEOUT", "CONNECT_FAILED"} & set(case.may.split()) else 5.0
    with (
        hostile.peer(case.behaviour, case.values) as peer,
        running(peer.port, timeout_s=timeout_s) as run,
    ):
        chunk = run.chunk(sizes)
        offered = run.transport.send(chunk, soon(4.0))
        run.transport.drain(soon(4.0))
        run.check(offered)
        statuses = run.statuses()
        assert set(statuses) <= set(case.may.split()), (statuses, run.transport.messages())
        if case.every:
            assert set(statuses) == set(case.may.split())
        assert not run.transport.holds(chunk)
        if case.may == "OK":
            assert offered == len(sizes)


def outcome_of(name: str) -> tuple[Run, Any]:
    """The outcomes of a few requests to a peer of this behaviour."""
    with hostile.peer(hostile.BEHAVIOURS[name].behaviour) as peer, running(peer.port) as run:
        offered = run.transport.send(run.chunk([100] * 3), soon(1.0))
        run.transport.drain(soon(1.0))
        run.check(offered)
        return run, run.outcomes()


def test_partial_success() -> None:
    """The rejected spans and the reason are read out of the response."""
    run, outcomes = outcome_of("partial success")
    assert outcomes["rejected"].tolist() == [3, 3, 3]
    assert run.transport.messages() == {0: "too ol"}


def test_percent_decoding() -> None:
    """grpc-message is decoded, what is no escape stands for itself."""
    run, _ = outcome_of("trailers only")
    assert run.transport.messages() == {14: "café 100%"}


def test_retry_info() -> None:
    """RetryInfo's delay is given for the outcome that came with it."""
    _, outcomes = outcome_of("retry info")
    assert outcomes["delay"].tolist() == [hostile.RETRY_DELAY_NS] * 3
    _, outcomes = outcome_of("trailers only")
    assert set(outcomes["delay"].tolist()) == {-1}


def test_reset_code_in_the_message() -> None:
    run, _ = outcome_of("cancels streams")
    assert run.transport.messages() == {Status.STREAM_RESET: "RST_STREAM with CANCEL"}


@pytest.mark.parametrize("table", [4096, 300, 40, 0])
def test_header_fields(table: int) -> None:
    """Every request has gRPC's fields and the metadata; most are sent once in a connection."""
    long = ("x-long", "v" * 5000)  # never fits the table
    metadata = [("Authorization", "Bearer token"), ("x-tenant", "café"), long]
    with (
        hostile.peer(hostile.Wire.serve, {hostile.TABLE_SIZE: table}) as peer,
        running(peer.port, metadata=metadata) as run,
    ):
        run.transport.send(run.chunk([10] * 10), soon(2.0))
        run.transport.drain(soon(2.0))
        assert run.statuses() == {"OK": 10}
    streams = list(peer.wires[0].streams.values())
    for stream in streams:
        assert stream.fields == [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", EXPORT_METHOD),
            (":authority", f"127.0.0.1:{peer.port}"),
            ("te", "trailers"),
            ("grpc-timeout", "500000u"),
            ("content-type", "application/grpc"),
            ("user-agent", f"blaster/{__version__}"),
            ("authorization", "Bearer token"),
            ("x-tenant", "café"),
            long,
        ]
    assert streams[-1].block < (5040 if table == 4096 else 5400)


def test_refuses_too_much_metadata() -> None:
    with pytest.raises(UsageError, match="longer than 12288 bytes"):
        Run(1, metadata=[("x-long", "v" * 13_000)])


@pytest.mark.parametrize(
    "pair", [("x y", "v"), ("x", "a\nb"), ("", "v"), ("grpc-x", "v"), (":x", "")]
)
def test_refuses_bad_metadata(pair: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="metadata"):
        Run(1, metadata=[pair])


def test_honours_max_concurrent_streams() -> None:
    """There are never more streams open than the peer allows."""
    open_at_once: list[int] = []

    def behave(peer: hostile.Wire) -> None:
        while True:
            stream = peer.request()
            time.sleep(0.002)
            while peer.socket in _readable(peer.socket):
                peer.frame()
            open_at_once.append(len(peer.streams) - 1 - len(open_at_once))
            peer.send(hostile.answer(stream))

    with (
        hostile.peer(behave, {hostile.MAX_STREAMS: 3}) as peer,
        running(peer.port, in_flight=50) as run,
    ):
        run.transport.send(run.chunk([10] * 30), soon(2.0))
        run.transport.drain(soon(2.0))
        assert run.statuses() == {"OK": 30}
    assert 2 <= max(open_at_once) <= 3


PEERS: dict[str, tuple[int, dict[int, int], int]] = {
    "the connection's window": (SendCounts.backpressure_ns, {hostile.INITIAL_WINDOW: 1 << 20}, 8),
    "streams": (SendCounts.backpressure_ns, {hostile.MAX_STREAMS: 2}, 8),
    "in flight": (SendCounts.capped_ns, {hostile.INITIAL_WINDOW: 1 << 20}, 2),
}


@pytest.mark.parametrize("name", PEERS)
def test_tells_what_held_it_back(name: str) -> None:
    """The time that requests were due and a peer let none through is told, and by what."""
    what, values, in_flight = PEERS[name]

    def behave(peer: hostile.Wire) -> None:
        time.sleep(0.3)
        peer.send(hostile.window(0, 1 << 20))
        peer.serve()

    with (
        hostile.peer(behave, values) as peer,
        running(peer.port, in_flight=in_flight, timeout_s=3.0) as run,
    ):
        run.transport.send(run.chunk([20_000] * 6), soon(3.0))
        run.transport.drain(soon(3.0))
        assert run.statuses() == {"OK": 6}
        assert run.counts.words[what] > 200 * MILLISECOND
        assert run.counts.words[what] == max(run.counts.backpressure_ns, run.counts.capped_ns)
        assert run.counts.behind_ns >= run.counts.backpressure_ns + run.counts.capped_ns


def test_its_own_lateness_holds_nothing_back() -> None:
    """Requests given late are the caller's delay; those sent again are behind no schedule."""
    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port) as run:
        chunk = run.chunk([10] * 4)
        chunk.scheduled -= 300 * MILLISECOND
        run.transport.send(chunk, soon(2.0))
        behind = run.counts.behind_ns
        assert behind > 300 * MILLISECOND
        assert (run.counts.backpressure_ns, run.counts.capped_ns) == (0, 0)
        run.transport.send(replace(chunk, again=True), soon(2.0))
        assert run.counts.behind_ns == behind
        run.transport.drain(soon(2.0))


def _readable(connection: socket.socket) -> list[socket.socket]:
    return select.select([connection], [], [], 0)[0]


def test_honours_max_frame_size() -> None:
    """Frames grow when the peer allows it, and only then."""
    for allowed, largest in ((16384, 16384), (20_000, 20_000), (1 << 20, 150_005)):
        values = {hostile.MAX_FRAME: allowed, hostile.INITIAL_WINDOW: 1 << 20}

        def behave(peer: hostile.Wire) -> None:
            peer.send(hostile.window(0, 1 << 24))
            peer.serve()

        with hostile.peer(behave, values) as peer, running(peer.port) as run:
            run.transport.wait(soon(0.05))  # for the window
            run.transport.send(run.chunk([150_000] * 2), soon(2.0))
            run.transport.drain(soon(2.0))
            assert run.statuses() == {"OK": 2}
            assert peer.wires[0].largest == largest


def test_honours_windows() -> None:
    """Not a byte goes out beyond the windows."""

    def behave(peer: hostile.Wire) -> None:
        peer.open_windows = False
        peer.silence()

    with hostile.peer(behave, {hostile.INITIAL_WINDOW: 1000}) as peer, running(peer.port) as run:
        run.transport.send(run.chunk([5000] * 4), soon(2.0))
        run.transport.drain(soon(2.0))
        run.check(4)
        got = {s: state.received for s, state in peer.wires[0].streams.items() if s > 1}
        assert run.statuses() == {"NO_ANSWER_TIMEOUT": 4}
        late = soon(5.0)
        while len(peer.wires[0].resets) < 4 and time.monotonic_ns() < late:
            time.sleep(0.001)
        assert set(peer.wires[0].resets) == {3, 5, 7, 9}  # each was cancelled
        assert all(count <= 1000 for count in got.values())


def test_sends_again_what_goaway_left() -> None:
    """Streams that GOAWAY left unprocessed go out on the next connection, counted once."""

    def behave(peer: hostile.Wire) -> None:
        if peer.number == 0:
            peer.opened()
            peer.send(hostile.goaway(1))
            peer.silence()
        peer.serve()

    with hostile.peer(behave) as peer, running(peer.port, timeout_s=3.0) as run:
        # Larger than the windows: their bytes are still here when GOAWAY comes.
        run.transport.send(run.chunk([200_000] * 3), soon(3.0))
        run.transport.drain(soon(3.0))
        run.check(3)
        assert run.statuses() == {"OK": 3}
        assert len(peer.wires) == 2


def test_sends_again_what_never_left() -> None:
    """A request of which no byte was written when the connection ended is not lost."""

    def behave(peer: hostile.Wire) -> None:
        if peer.number == 0:
            peer.send(peer.settings({hostile.MAX_STREAMS: 0}))
            time.sleep(0.2)
            return
        peer.serve()

    with hostile.peer(behave) as peer, running(peer.port, timeout_s=3.0) as run:
        run.transport.wait(soon(0.1))
        run.transport.send(run.chunk([1000] * 5), soon(3.0))
        run.transport.drain(soon(3.0))
        run.check(5)
        assert run.statuses() == {"OK": 5}


def test_goes_on_when_the_peer_comes_back() -> None:
    """While nobody listens requests fail at their deadline; later ones are answered again."""
    with hostile.peer(hostile.Wire.serve) as first, running(first.port, timeout_s=0.3) as run:
        run.transport.send(run.chunk([100] * 3), soon(1.0))
        run.transport.drain(soon(1.0))
        first.stop()
        offered = run.transport.send(run.chunk([100] * 20), soon(0.8))
        assert 16 <= offered <= 20  # eight at a time, each after 0.3 s
        run.transport.drain(soon(1.0))
        statuses = run.statuses()
        assert statuses["CONNECT_FAILED"] + statuses["CONNECTION_LOST"] == offered
        with hostile.peer(hostile.Wire.serve, port=first.port):
            # The pauses between two tries to connect have grown to less than two seconds.
            run.transport.send(run.chunk([100] * 10, spacing_ns=300 * MILLISECOND), soon(5.0))
            run.transport.drain(soon(3.0))
            run.check(3 + offered + 10)
            assert run.statuses()["OK"] >= 4


def test_abandons_at_the_end() -> None:
    """A request without an answer when drain ends, or at close, is ABANDONED."""
    with hostile.peer(hostile.Wire.silence) as peer:
        run = Run(peer.port, timeout_s=30.0)
        run.transport.connect(5.0)
        assert run.transport.send(run.chunk([100] * 5), soon(1.0)) == 5
        assert run.transport.in_flight() == 5
        run.transport.drain(soon(0.1))
        assert run.statuses() == {"ABANDONED": 5}
        run.transport.send(run.chunk([100] * 2), soon(1.0))
        run.transport.close()
        run.transport.close()
        assert run.statuses() == {"ABANDONED": 7}
        run.check(7)


def test_in_flight_cap() -> None:
    """No more requests are in flight than allowed; the others wait and are late, in order."""
    with hostile.peer(hostile.Wire.silence) as peer, running(peer.port, timeout_s=30.0) as run:
        assert run.transport.send(run.chunk([10] * 20), soon(0.2)) == 8
        assert run.transport.in_flight() == 8


@pytest.mark.quiet
@pytest.mark.parametrize("call", ["send", "wait"])
def test_stop_ends_calls(call: str) -> None:
    """Within 100 ms of the stop word."""
    with hostile.peer(hostile.Wire.silence) as peer, running(peer.port, timeout_s=30.0) as run:
        began = time.monotonic()
        timer = threading.Timer(0.1, lambda: run.stop.fill(1))
        timer.start()
        if call == "send":
            run.transport.send(run.chunk([10] * 20), soon(5.0))
        else:
            run.transport.wait(soon(5.0))
        assert 0.1 <= time.monotonic() - began < 0.25
        timer.join()


@pytest.mark.quiet
def test_never_early_and_hardly_late() -> None:
    """Requests leave at their scheduled times."""
    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port, in_flight=64) as run:
        run.transport.send(run.chunk([100] * 300, spacing_ns=MILLISECOND), soon(5.0))
        run.transport.drain(soon(2.0))
        outcomes = run.outcomes()
        lateness = outcomes["sent"] - outcomes["scheduled"]
        assert lateness.min() >= 0
        assert np.median(lateness) < 5 * MILLISECOND  # bench_wire.py measures it in earnest


@pytest.mark.quiet
def test_sleeps_between_requests() -> None:
    """One request a second costs next to no CPU."""
    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port) as run:
        before = time.thread_time()
        run.transport.send(run.chunk([10] * 3, spacing_ns=SECOND // 2), soon(5.0))
        assert time.thread_time() - before < 0.05


def test_several_connections() -> None:
    """Requests are spread over all connections."""
    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port, connections=3) as run:
        # On connections but the first the empty request is served like any other.
        run.transport.send(run.chunk([100] * 60), soon(3.0))
        run.transport.drain(soon(3.0))
        run.check(60)
        assert run.statuses() == {"OK": 60}
        assert all(len(one.streams) > 10 for one in peer.wires)


def test_several_buffers_at_once() -> None:
    """A chunk's buffer is kept while its bytes wait, and not longer."""
    open_up = threading.Event()

    def behave(peer: hostile.Wire) -> None:
        peer.open_windows = False
        for _ in range(5):
            peer.opened()
        open_up.wait(5)
        peer.open_windows = True
        peer.send(hostile.window(0, 1 << 20), peer.settings({hostile.INITIAL_WINDOW: 1 << 20}))
        peer.serve()

    values = {hostile.INITIAL_WINDOW: 100}
    with hostile.peer(behave, values) as peer, running(peer.port, timeout_s=5.0) as run:
        chunks = [run.chunk([300]) for _ in range(5)]
        for chunk in chunks:
            assert run.transport.send(chunk, soon(1.0)) == 1
        assert all(run.transport.holds(chunk) for chunk in chunks)
        open_up.set()
        run.transport.drain(soon(3.0))
        assert not any(run.transport.holds(chunk) for chunk in chunks)
        assert run.statuses() == {"OK": 5}


def test_holds_buffers_until_their_requests_end() -> None:
    """A buffer may have to be sent again until its last request has ended, and not beyond."""
    with (
        hostile.peer(hostile.Wire.silence) as peer,
        running(peer.port, timeout_s=9.0, in_flight=200) as run,
    ):
        chunks = [run.chunk([300]) for _ in range(100)]
        assert [run.transport.send(chunk, soon(1.0)) for chunk in chunks] == [1] * 100
        run.transport.wait(soon(0.05))
        assert all(run.transport.holds(chunk) for chunk in chunks)
        run.transport.drain(soon(0.1))
        run.check(100)
        assert not any(run.transport.holds(chunk) for chunk in chunks)


def says(first: bytes) -> hostile.Behaviour:
    """Says this and then waits."""

    def behave(peer: hostile.Wire) -> None:
        peer.read(len(hostile.PREFACE))
        peer.send(first)
        peer.stopping.wait(9)

    return behave


REFUSALS = {
    "echo": (says(hostile.PREFACE), "echoes"),
    "HTTP/1": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "HTTP/1"),
    "TLS": (says(b"\x15\x03\x01\x00\x02\x02\x46"), "TLS"),
    "SSH": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "SSH-2.0"),
    "silent": (says(b""), "says nothing"),
    "closes": (lambda peer: None, "closes the connection"),
    "HTTP/2 and silent": (says(hostile.settings({})), "does not answer an Export"),
    "HTTP/2 and GOAWAY": (
        says(hostile.settings({}) + hostile.goaway(0, 11)),
        "GOAWAY with ENHANCE_YOUR_CALM",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_says_who_is_there(name: str) -> None:
    """connect tells in one line what the peer seems to be."""
    behaviour, expected = REFUSALS[name]
    with hostile.peer(behaviour, raw=True) as peer:
        run = Run(peer.port)
        with pytest.raises(TargetUnreachable, match=expected) as caught:
            run.transport.connect(0.5)
        assert "\n" not in str(caught.value)
        assert str(peer.port) in str(caught.value)
        run.transport.close()
        run.check(0)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (lambda s: hostile.answer(s, status="12"), "does not take OTLP traces"),
        (lambda s: hostile.answer(s, status="16"), "refuses an empty request with UNAUTHENTICATED"),
        (lambda s: hostile.headers(s, hostile.fields((":status", "404")), 5), "not gRPC.*404"),
        (lambda s: hostile.headers(s, b"\x88", 5), "not gRPC"),
        (lambda s: hostile.reset(s, 13), "not gRPC.*HTTP_1_1_REQUIRED"),
    ],
)
def test_says_what_export_came_to(reply: Callable[[int], bytes], expected: str) -> None:
    """A peer that speaks HTTP/2 but does not accept an empty Export is not a target."""

    def behave(peer: hostile.Wire) -> None:
        peer.read(24)
        peer.send(hostile.settings({}))
        peer.send(reply(peer.request()))
        peer.silence()

    with hostile.peer(behave, raw=True) as peer:
        run = Run(peer.port)
        with pytest.raises(TargetUnreachable, match=expected):
            run.transport.connect(1.0)
        run.transport.close()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    run = Run(port, host="localhost")
    with pytest.raises(TargetUnreachable, match="nobody listens"):
        run.transport.connect(1.0)
    with pytest.raises(TargetUnreachable, match=r"host\.invalid:"):
        Run(port, host="host.invalid")


def test_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on loopback")
    with (
        hostile.peer(hostile.Wire.serve, listener=listener) as peer,
        running(peer.port, host="::1") as run,
    ):
        run.transport.send(run.chunk([10]), soon(1.0))
        run.transport.drain(soon(1.0))
        assert run.statuses() == {"OK": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": np.array([0, 5, 4], np.int64)},
        {"offsets": np.array([0, 5, 99], np.int64)},
        {"offsets": np.array([-1, 5, 9], np.int64)},
        {"offsets": np.array([0, 5], np.int64)},
        {"spans": np.array([1], np.int64)},
        {"spans": np.array([1.0, 2.0])},
        {"scheduled": np.array([1, 2], np.int32)},
        {"buffer": memoryview(bytearray(20))[::2]},
    ],
)
def test_refuses_bad_chunks(change: dict[str, Any]) -> None:
    """No byte outside the buffer is ever sent."""
    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port) as run:
        chunk = run.chunk([5, 5])
        for name, value in change.items():
            setattr(chunk, name, value)
        with pytest.raises((ValueError, TypeError, BufferError)):
            run.transport.send(chunk, soon(1.0))
        run.check(0)


def test_grpcio_gets_what_was_sent() -> None:
    """A server of grpcio, with its own ideas of windows and frames, gets every byte."""
    bodies = [_request(spans) for spans in (0, 1, 10, 2000)] * 5
    with peers.counting_receiver() as peer, running(peer.grpc_port, timeout_s=10.0) as run:
        chunk = run.chunk([len(body) for body in bodies], body=b"".join(bodies))
        run.transport.send(chunk, soon(10.0))
        run.transport.drain(soon(10.0))
        run.check(20)
        assert run.statuses() == {"OK": 20}
        assert sorted(peer.payloads()) == sorted([*bodies, b""])  # and the greeting


def test_grpcio_gets_what_was_made() -> None:
    """Batches that are made as they are sent arrive whole and once, also where the peer's windows
    hold many of them up."""
    traces = [0, 1, 2000, 10, 3000] * 8
    wanted = list(made_chunk(traces, np.zeros(40)).each())
    with (
        peers.counting_receiver() as peer,
        running(peer.grpc_port, in_flight=30, timeout_s=10.0) as run,
    ):
        assert run.transport.send(run.made(traces), soon(10.0)) == 40
        run.transport.drain(soon(10.0))
        run.check(40)
        assert run.statuses() == {"OK": 40}
        assert sorted(peer.payloads()) == sorted([*wanted, b""])


def test_what_was_made_is_not_offered_beyond_its_time() -> None:
    """A batch is made only where it is offered: what is left over was not counted."""
    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port) as run:
        chunk = run.made([5] * 10, spacing_ns=50 * MILLISECOND)
        offered = run.transport.send(chunk, soon(0.12))
        assert 1 <= offered < 10
        assert len(list(chunk.each())) == 10 - offered
        run.transport.drain(soon(1.0))
        assert run.counts.words[:2].tolist() == [offered, 5 * offered]
        assert run.statuses() == {"OK": offered}


def test_batches_in_use_are_not_replaced() -> None:
    """While a client makes batches, nobody else can begin others or take the next of them."""
    counts = np.ones(1, np.int64)
    zeros = np.zeros(1, np.int64)
    digits = np.zeros(16, np.uint32)

    def send_elsewhere() -> None:
        with running(peer.port) as other:
            other.transport.send(Chunk(zeros, counts, made=batches), soon(1.0))

    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port) as run:
        chunk = run.made([5] * 4, spacing_ns=SECOND)
        batches = chunk.made
        assert batches is not None
        sending = threading.Thread(target=run.transport.send, args=(chunk, soon(9.0)))
        sending.start()
        while not run.counts.sent_requests:
            time.sleep(0.001)
        for use in (
            lambda: batches.begin(zeros, counts, zeros, zeros, zeros, digits, counts.copy()),
            lambda: next(batches),
            send_elsewhere,
        ):
            with pytest.raises(RuntimeError, match="in use"):
                use()
        run.stop[0] = 1
        sending.join()
        left = len(list(batches))
        assert run.counts.sent_requests + left == 4
        assert left >= 1


MIXES = {
    "flat": lambda: Mix([flat.shape()], Fraction(1, 10)),
    "drawn": lambda: workload.mix(Workload(name="web-shop"), 7),
}
"""Templates without digits to draw, and with."""


@pytest.mark.parametrize(
    ("name", "traces"), [("flat", 5), ("flat", 400), ("drawn", 1), ("drawn", 400)]
)
def test_what_was_made_is_made_again(name: str, traces: int) -> None:
    """What GOAWAY or REFUSED_STREAM leaves goes out again byte by byte, written whole or not."""

    def behave(peer: hostile.Wire) -> None:
        peer.keep_bodies = True
        if peer.number == 0:
            peer.open_windows = False
            for _ in range(3 if traces < 100 else 1):
                peer.opened()
            time.sleep(0.1)
            peer.send(hostile.goaway(1))
            peer.silence()
        peer.send(hostile.reset(peer.request(), 7))
        peer.serve()

    counts, times = [traces] * 3, np.zeros(6, np.int64)
    with hostile.peer(behave) as peer, running(peer.port, timeout_s=9.0) as run:
        mix = MIXES[name]()
        expected = list(made_chunk(counts * 2, times, mix).each())
        chunk = made_chunk(counts * 2, times, mix)
        run.transport.send(chunk, soon(9.0))
        run.transport.drain(soon(9.0))
        run.check(6)
        assert run.statuses() == {"OK": 6}
        got = [bytes(stream.body[5:]) for stream in peer.wires[1].streams.values()]
    assert Counter(expected) <= Counter(got)
    assert set(got) == set(expected)
    assert len(got) == 7  # one was refused once more


def test_a_buffer_is_sent_again() -> None:
    """What stands in a buffer goes out again, too, though it had been written whole."""

    def behave(peer: hostile.Wire) -> None:
        peer.keep_bodies = True
        if peer.number == 0:
            peer.opened()
            time.sleep(0.1)
            peer.send(hostile.goaway(1))
            peer.silence()
        peer.serve()

    body = bytes(range(250)) * 4
    with hostile.peer(behave) as peer, running(peer.port, timeout_s=9.0) as run:
        run.transport.send(run.chunk([300, 0, 700], body=body), soon(3.0))
        run.transport.drain(soon(9.0))
        run.check(3)
        assert run.statuses() == {"OK": 3}
        got = sorted(bytes(stream.body[5:]) for stream in peer.wires[1].streams.values())
    assert got == sorted([body[:300], b"", body[300:]])


def test_batches_begun_anew_change_nothing_of_those_in_flight() -> None:
    """A request is made again of what it was made of, whatever its source makes meanwhile."""

    def behave(peer: hostile.Wire) -> None:
        peer.keep_bodies = True
        if peer.number == 0:
            for _ in range(9):
                peer.opened()
            peer.send(hostile.goaway(1))
            peer.silence()
        peer.serve()

    mix = MIXES["drawn"]()
    source = ColumnSource(1, mix)
    batches = source.batches(mix.template.compile())
    expected = []

    def chunk(first: int) -> Chunk:
        counts = np.array([4, 2, 7])
        numbers = first + np.cumsum(counts) - counts
        spans = source.begin(batches, numbers, counts, np.full(3, SECOND))
        expected.extend(batches)
        spans = source.begin(batches, numbers, counts, np.full(3, SECOND))
        return Chunk(np.zeros(3, np.int64), spans, made=batches)

    with hostile.peer(behave) as peer, running(peer.port, timeout_s=9.0, in_flight=20) as run:
        for first in (0, 100, 50):
            assert run.transport.send(chunk(first), soon(3.0)) == 3
        run.transport.drain(soon(9.0))
        run.check(9)
        assert run.statuses() == {"OK": 9}
        got = [bytes(stream.body[5:]) for stream in peer.wires[1].streams.values()]
    assert sorted(got) == sorted(expected)


@pytest.mark.parametrize("keepalive_requests", [1000, 100, 5])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plaintext", "TLS"])
def test_nginx_ends_connections_in_good_order(
    nginx_binary: Path, authority: Any, server: Any, keepalive_requests: int, encrypted: bool
) -> None:
    """Behind nginx nothing is lost, doubled or counted twice, however short its connections live.

    Its GOAWAY comes with requests under way: those above its last stream are passed on never."""
    receiver = _wire.Receiver()
    stop = np.zeros(1, np.int64)
    serving = threading.Thread(target=receiver.run, args=(stop,))
    serving.start()
    requests = 3 * keepalive_requests + 50
    try:
        with (
            peers.nginx(
                nginx_binary,
                grpc_upstream=receiver.port,
                tls=server if encrypted else None,
                keepalive_requests=keepalive_requests,
            ) as proxy,
            running(
                proxy.grpc_port,
                timeout_s=30.0,
                in_flight=32,
                tls=Tls(authority.file) if encrypted else None,
            ) as run,
        ):
            chunk = made_chunk([10] * requests, np.zeros(requests, np.int64))
            assert run.transport.send(chunk, soon(60.0)) == requests
            run.transport.drain(soon(30.0))
            run.check(requests)
            assert run.statuses() == {"OK": requests}
    finally:
        stop[0] = 1
        serving.join()
    counts = receiver.counts()
    assert (counts["spans"], counts["duplicates"]) == (10 * requests, 0)
    receiver.close()


@pytest.mark.parametrize("encrypted", [False, True], ids=["plaintext", "TLS"])
def test_haproxy_is_reloaded_with_requests_under_way(
    haproxy_binary: Path, authority: Any, server: Any, encrypted: bool
) -> None:
    """A reload ends each connection with GOAWAY; nothing is lost, doubled or counted twice."""
    receiver = _wire.Receiver()
    stop = np.zeros(1, np.int64)
    serving = threading.Thread(target=receiver.run, args=(stop,))
    serving.start()
    try:
        with (
            peers.haproxy(
                haproxy_binary, grpc_upstream=receiver.port, tls=server if encrypted else None
            ) as proxy,
            running(
                proxy.grpc_port,
                timeout_s=30.0,
                in_flight=32,
                tls=Tls(authority.file) if encrypted else None,
            ) as run,
        ):
            mix = Mix([flat.shape()], Fraction(1, 10))
            for seed in range(4):
                source = ColumnSource(seed, mix)
                batches = source.batches(mix.template.compile())
                counts = np.full(300, 10)
                numbers = np.arange(0, 3000, 10)
                spans = source.begin(batches, numbers, counts, np.full(300, SECOND))
                chunk = Chunk(np.zeros(300, np.int64), spans, made=batches)
                assert run.transport.send(chunk, soon(60.0)) == 300
                proxy.reload()
            run.transport.drain(soon(30.0))
            run.check(1200)
            assert run.statuses() == {"OK": 1200}
    finally:
        stop[0] = 1
        serving.join()
    accepted = receiver.counts()
    assert (accepted["spans"], accepted["duplicates"]) == (12_000, 0)
    receiver.close()


def test_refuses_a_source_that_has_too_little() -> None:
    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port) as run:
        chunk = run.made([5] * 3)
        next(chunk.each())
        with pytest.raises(ValueError, match="fewer batches"):
            run.transport.send(chunk, soon(1.0))
        run.check(0)


def test_grpcio_refuses_the_greeting() -> None:
    with (
        peers.counting_receiver(status=13) as peer,
        pytest.raises(TargetUnreachable, match="INTERNAL: as the test asked"),
    ):
        Run(peer.grpc_port).transport.connect(5.0)


@pytest.mark.parametrize("status", [3, 8, 14])
def test_grpcio_statuses(status: int) -> None:
    with peers.counting_receiver(status=status) as peer, running(peer.grpc_port) as run:
        run.transport.send(run.chunk([10] * 3), soon(3.0))
        run.transport.drain(soon(3.0))
        assert run.statuses() == {Status(status).name: 3}
        assert run.transport.messages() == {status: "as the test asked"}


@pytest.mark.quiet
def test_grpcio_deadline() -> None:
    """The server is told the deadline, and no answer by then is not waited for."""
    with peers.counting_receiver(delay_s=0.6) as peer:
        run = Run(peer.grpc_port, timeout_s=0.3)
        run.transport.connect(5.0)
        began = time.monotonic()
        run.transport.send(run.chunk([10] * 2), soon(3.0))
        run.transport.drain(soon(3.0))
        assert time.monotonic() - began < 0.55
        run.check(2)
        assert set(run.statuses()) <= {"NO_ANSWER_TIMEOUT", "DEADLINE_EXCEEDED"}
        run.transport.close()


def deliver(peer: peers.Peer, counter: str) -> None:
    """Sends twenty thousand spans; the peer's own counter must show them all."""
    bodies = [_request(100)] * 200
    with running(peer.grpc_port, timeout_s=10.0, connections=2) as run:
        chunk = run.chunk([len(body) for body in bodies], body=b"".join(bodies))
        run.transport.send(chunk, soon(10.0))
        run.transport.drain(soon(10.0))
        run.check(200)
        assert run.statuses() == {"OK": 200}
    peer.wait_for(counter, 20_000)


def test_rotel_accepts_everything(rotel_binary: Path) -> None:
    with peers.rotel(rotel_binary) as peer:
        deliver(peer, "rotel_receiver_accepted_spans")


def test_collector_accepts_everything(collector_binary: Path) -> None:
    with peers.collector(collector_binary) as peer:
        deliver(peer, "otelcol_receiver_accepted_spans")


def _request(spans: int) -> bytes:
    request = ExportTraceServiceRequest()
    if spans:
        scope = request.resource_spans.add().scope_spans.add()
        for i in range(spans):
            scope.spans.add(
                trace_id=i.to_bytes(15, "big") + b"\1",
                span_id=i.to_bytes(7, "big") + b"\1",
                name="s",
            )
    return request.SerializeToString()


def test_memory_stays_flat() -> None:
    """A hundred thousand requests leave the process as large as it was."""
    with hostile.peer(hostile.Wire.serve) as peer, running(peer.port, in_flight=64) as run:

        def send(rounds: int) -> None:
            for _ in range(rounds):
                run.transport.send(run.chunk([100] * 100), soon(30.0))
                run.transport.outcomes()

        send(10)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        send(50)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096


@pytest.mark.memory
def test_clients_do_not_leak() -> None:
    """Clients that come and go, with requests abandoned or refused, leave no memory behind."""

    def rounds(count: int) -> int:
        for _ in range(count):
            run = Run(peer.port, in_flight=100)
            run.transport.connect(5.0)
            run.transport.send(run.chunk([100] * 20), soon(1.0))
            run.transport.send(run.made([100] * 20), soon(1.0))
            with suppress(ValueError):
                run.transport.send(
                    Chunk(run.counts.words, run.counts.words, run.counts.words, memoryview(b"")), 0
                )
            with suppress(UsageError):
                Run(peer.port, in_flight=0)
            run.transport.messages()
            if count % 2:
                run.transport.close()
                run.transport.outcomes()
        gc.collect()
        return psutil.Process().memory_info().rss

    with hostile.peer(hostile.Wire.serve) as peer:
        before = rounds(20)
        assert rounds(101) - before < 4 << 20


def test_runs_after_fork(tmp_path: Path) -> None:
    """A worker makes its transport after the fork and sends; SIGPIPE does not end it."""
    script = tmp_path / "forked.py"
    script.write_text(
        """
import json, os, signal, sys, time
import numpy as np
from blaster.transport.base import Chunk, SendCounts
from blaster.transport.wire import WireTransport

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
pid = os.fork()
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
counts, stop = SendCounts.zeros(), np.zeros(1, np.int64)
transport = WireTransport(host="127.0.0.1", port=int(sys.argv[1]), connections=1, in_flight=4,
                          timeout_s=1.0, metadata=[], counts=counts, stop=stop)
transport.connect(5.0)
now = time.monotonic_ns()
for _ in range(20):
    transport.send(Chunk(scheduled=np.full(3, now), spans=np.full(3, 1),
                         offsets=np.arange(4) * 100, buffer=memoryview(bytes(300))),
                   now + 2 * 10**9)
    transport.wait(time.monotonic_ns() + 10**7)
transport.drain(now + 5 * 10**9)
print(json.dumps([len(transport.outcomes()), counts.sent_requests]))
"""
    )

    def behave(peer: hostile.Wire) -> None:
        if peer.number == 0:
            peer.request()
            return  # closes: the client writes into a dead connection
        peer.serve()

    with hostile.peer(behave) as peer:
        done = subprocess.run(
            [sys.executable, script, str(peer.port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        )
    ended, offered = json.loads(done.stdout)
    assert ended == offered > 0


def test_random_bytes_never_hang() -> None:
    """Mutations of a good answer end each request in time."""
    random = np.random.default_rng(7)

    def behave(peer: hostile.Wire) -> None:
        with suppress(IndexError):
            while True:
                reply = bytearray(hostile.answer(peer.request(), b"\x0a\x02\x08\x01"))
                for _ in range(random.integers(1, 4)):
                    reply[random.integers(len(reply))] = random.integers(256)
                peer.send(bytes(reply))

    with hostile.peer(behave) as peer, running(peer.port, timeout_s=0.1) as run:
        offered = sum(run.transport.send(run.chunk([50] * 10), soon(0.5)) for _ in range(10))
        run.transport.drain(soon(1.0))
        run.check(offered)

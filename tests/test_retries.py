"""Retries: what is sent again and when, and that every span is still counted once."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status as RpcStatus
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from support import cli, peers

from blaster.layout import Int64
from blaster.otlp.status import retry_delay
from blaster.transport import retry
from blaster.transport.base import (
    EXPORT_METHOD,
    OUTCOME,
    Chunk,
    Framing,
    SendCounts,
    Status,
    Transport,
)
from blaster.transport.choice import wire_is_built
from blaster.transport.retry import IGNORE_THROTTLE, MAX_TRIES, SPEC, Backoff
from blaster.transport.retrying import RetryingTransport

TRANSPORTS = ["grpc", *(["wire"] if wire_is_built() else [])]
MILLISECOND, SECOND = 10**6, 10**9
SPANS = 7

RULES = {
    # status: whether it is retried without a delay from the peer, and with one
    Status.OK: (False, False),
    Status.CANCELLED: (True, True),
    Status.UNKNOWN: (False, False),
    Status.INVALID_ARGUMENT: (False, False),
    Status.DEADLINE_EXCEEDED: (True, True),
    Status.NOT_FOUND: (False, False),
    Status.ALREADY_EXISTS: (False, False),
    Status.PERMISSION_DENIED: (False, False),
    Status.RESOURCE_EXHAUSTED: (False, True),
    Status.FAILED_PRECONDITION: (False, False),
    Status.ABORTED: (True, True),
    Status.OUT_OF_RANGE: (True, True),
    Status.UNIMPLEMENTED: (False, False),
    Status.INTERNAL: (False, False),
    Status.UNAVAILABLE: (True, True),
    Status.DATA_LOSS: (True, True),
    Status.UNAUTHENTICATED: (False, False),
}


def status_details(delay_ns: int | None) -> bytes:
    """google.rpc.Status with a RetryInfo, by Google's own classes."""
    info = RetryInfo()
    if delay_ns is not None:
        info.retry_delay.CopyFrom(Duration(seconds=delay_ns // SECOND, nanos=delay_ns % SECOND))
    packed = AnyMessage()
    packed.Pack(info)
    other = AnyMessage(type_url="type.googleapis.com/google.rpc.Help", value=b"\x0a\x00")
    return RpcStatus(code=8, message="busy", details=[other, packed]).SerializeToString()


@given(st.integers(0, 315_576_000_000 * SECOND) | st.none())
def test_retry_info_is_read(delay_ns: int | None) -> None:
    """Every delay that RetryInfo can hold is read; one without a delay asks for none: 0."""
    read = retry_delay(status_details(delay_ns))
    assert read == min(delay_ns or 0, 2**63 - 1)


@given(
    st.binary(max_size=60)
    | st.builds(lambda n, d: status_details(n)[:d], st.integers(0, 99), st.integers(0, 80))
)
def test_retry_info_of_anything(data: bytes) -> None:
    """Bytes that are no Status with a RetryInfo give no delay, and no error."""
    assert retry_delay(data) >= -1


def test_rules() -> None:
    """The table of the specification, with RetryInfo and without."""
    for status, (plain, with_delay) in RULES.items():
        statuses = np.array([status, status, status], np.int64)
        found = retry.retryable(statuses, np.array([-1, 0, SECOND]))
        assert found.tolist() == [plain, with_delay, with_delay], status


@given(st.integers(0, 2**63), st.integers(1, MAX_TRIES), st.integers(1, 100 * SECOND))
def test_backoff(seed: int, tries: int, asked: int) -> None:
    """Backoff grows and stays within its jitter; a delay asked for is never cut short, unless it
    is to be ignored; the same seed waits the same."""
    expected = min(SECOND * 1.5 ** (tries - 1), 5 * SECOND)
    for mode in (SPEC, IGNORE_THROTTLE):
        wait = Backoff(mode, seed).wait_ns(tries, -1)
        assert 0.8 * expected - 1 <= wait <= 1.2 * expected + 1
        assert wait == Backoff(mode, seed).wait_ns(tries, -1)
    assert asked <= Backoff(SPEC, seed).wait_ns(tries, asked) <= 1.2 * asked + 1
    ignored = Backoff(IGNORE_THROTTLE, seed).wait_ns(tries, asked)
    assert ignored == Backoff(IGNORE_THROTTLE, seed).wait_ns(tries, -1)


class Soon(Backoff):
    """Waits a millisecond or two, whatever the rules say."""

    def wait_ns(self, tries: int, delay_ns: int) -> int:
        return self._random.randrange(2 * MILLISECOND)


@dataclass
class Try:
    """The end of one attempt: its status, and whether the peer has the spans then."""

    status: Status
    received: bool
    rejected: int = 0
    delay: int = -1


class Scripted:
    """A Transport that ends each try as a script says; the last one of a script stands for all that
    follow. Keeps the accounts as every Transport must."""

    framing: Framing = "made"

    def __init__(
        self,
        scripts: Sequence[Sequence[Try]],
        cap: int,
        counts: SendCounts,
        stop: Int64,
    ) -> None:
        self._scripts, self._cap, self._counts, self._stop = scripts, cap, counts, stop
        self._flying: list[tuple[int, int, int, bytes]] = []
        self._rows: list[tuple[int, ...]] = []
        self.tries: Counter[int] = Counter()
        self.bytes: dict[int, bytes] = {}
        self.received = 0
        self.most = 0

    def connect(self, timeout_s: float) -> None: ...

    def send(self, chunk: Chunk, until: int) -> int:
        for i in range(len(chunk)):
            while len(self._flying) >= self._cap:
                if time.monotonic_ns() >= until or self._stop[0]:
                    return i
                self._answer(1)
            data, number = chunk.batch(i), chunk.first + i
            assert self.bytes.setdefault(number, data) == data, "another batch's bytes"
            assert chunk.again == (number in self.tries)
            if not chunk.again:
                self._counts.count_request(int(chunk.spans[i]), len(data))
            now = time.monotonic_ns()
            assert chunk.scheduled[i] <= now
            self._flying.append((number, int(chunk.scheduled[i]), now, data))
            self.most = max(self.most, len(self._flying))
        return len(chunk)

    def _answer(self, count: int) -> None:
        for number, scheduled, sent, data in self._flying[:count]:
            script = self._scripts[number]
            told = script[min(self.tries[number], len(script) - 1)]
            self.tries[number] += 1
            self.received += SPANS * told.received
            done = time.monotonic_ns()
            times = scheduled, sent, done
            self._rows.append(
                (*times, SPANS, len(data), told.rejected, int(told.status), number, told.delay)
            )
        del self._flying[:count]

    def wait(self, until: int) -> None:
        self._answer(2)
        time.sleep(max(0, min(until - time.monotonic_ns(), MILLISECOND)) / 1e9)

    def drain(self, until: int) -> None:
        self._answer(len(self._flying))

    def outcomes(self) -> Any:
        rows, self._rows = self._rows, []
        return np.array(rows, OUTCOME)

    def in_flight(self) -> int:
        return len(self._flying)

    def messages(self) -> dict[int, str]:
        return {}

    def close(self) -> None:
        self.drain(0)


@st.composite
def tries(draw: st.DrawFn) -> Try:
    status = draw(st.sampled_from([Status.OK, *Status]))
    unanswered = 32 <= status < 64 or retry.maybe_received(status)
    received = status == Status.OK or (unanswered and draw(st.booleans()))
    delay = draw(st.sampled_from([-1, -1, 0, MILLISECOND]))
    return Try(status, received, draw(st.integers(0, SPANS)), delay)


def chunk_of(numbers: range) -> Chunk:
    """A batch for each number, that no other has."""
    batches = [f"batch {n}".encode() * (1 + n % 3) for n in numbers]
    times = np.full(len(numbers), time.monotonic_ns())
    return Chunk.of(batches, times, np.full(len(numbers), SPANS, np.int64))


@given(
    scripts=st.lists(
        st.lists(tries(), min_size=1, max_size=MAX_TRIES + 1), min_size=1, max_size=30
    ),
    size=st.integers(1, 4),
    cap=st.integers(1, 9),
    timeout_s=st.sampled_from([0.001, 10.0]),
    stop=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_request_ends_once(
    scripts: list[list[Try]],
    size: int,
    cap: int,
    timeout_s: float,
    stop: bool,
    seed: int,
) -> None:
    """However the attempts end: one outcome a request, each span counted once, and what the
    peer received lies between accepted and accepted + unknown + possible duplicates."""
    counts, stopped = SendCounts.zeros(), np.zeros(1, np.int64)
    inner = Scripted(scripts, cap, counts, stopped)
    transport = RetryingTransport(
        inner, Soon(SPEC, seed), in_flight=cap, timeout_s=timeout_s, counts=counts, stop=stopped
    )
    offered, found = 0, []
    for begin in range(0, len(scripts), size):
        numbers = range(begin, min(begin + size, len(scripts)))
        took = transport.send(chunk_of(numbers), time.monotonic_ns() + 10 * SECOND)
        assert took == len(numbers)
        offered += took
        found.append(transport.outcomes())
    if stop:
        stopped[0] = 1
    transport.drain(time.monotonic_ns() + 10 * SECOND)
    assert transport.in_flight() == 0
    transport.close()
    outcomes = np.concatenate([*found, transport.outcomes()])

    assert sorted(outcomes["number"].tolist()) == list(range(offered))
    assert counts.words[:3].tolist() == [
        offered,
        offered * SPANS,
        sum(map(len, inner.bytes.values())),
    ]
    assert (outcomes["sent"] >= outcomes["scheduled"]).all()
    assert (outcomes["done"] >= outcomes["sent"]).all()
    assert inner.most <= cap
    assert max(inner.tries.values()) <= MAX_TRIES
    again = sum(inner.tries.values()) - offered
    assert counts.retried_requests == again == counts.retried_statuses.sum()
    assert counts.retried_spans == again * SPANS
    status = outcomes["status"]
    ok = status == Status.OK
    unanswered = (status >= 32) & (status < 64)
    accepted = int(outcomes["spans"][ok].sum())
    unknown = int(outcomes["spans"][unanswered].sum())
    # What a peer of ours processed and answered otherwise is a lie that no client can see through.
    lied = sum(
        SPANS
        for number, script in enumerate(scripts)
        for told in (script * MAX_TRIES)[: inner.tries[number]][-1:]
        if told.received and told.status in (Status.CANCELLED, Status.DEADLINE_EXCEEDED)
    )
    assert accepted <= inner.received
    assert inner.received <= accepted + unknown + counts.possible_duplicates + lied
    for outcome in outcomes:
        script = scripts[int(outcome["number"])]
        last = script[min(inner.tries[int(outcome["number"])], len(script)) - 1]
        assert (outcome["status"] == Status.OK) == (last.status == Status.OK)


@dataclass
class Case:
    """A server's answers to the attempts of a request, and the outcome that must follow."""

    answers: list[tuple[int, int | None]]  # status, and RetryInfo's delay
    status: Status
    tries: int
    after_ns: int = 0
    """How long the retries take at least."""


CASES = {
    "accepted": Case([(0, None)], Status.OK, 1),
    "partial success": Case([(-1, None)], Status.OK, 1),
    **{
        f"{status.name} once": Case([(int(status), None), (0, None)], Status.OK, 2)
        for status, (plain, _) in RULES.items()
        if plain
    },
    **{
        f"{status.name}, never retried": Case([(int(status), None)], status, 1)
        for status, (plain, _) in RULES.items()
        if not plain and status is not Status.OK
    },
    "throttled": Case(
        [(8, 300 * MILLISECOND), (8, 300 * MILLISECOND), (0, None)],
        Status.OK,
        3,
        600 * MILLISECOND,
    ),
    "throttled by UNAVAILABLE": Case(
        [(14, 400 * MILLISECOND), (0, None)], Status.OK, 2, 400 * MILLISECOND
    ),
    "throttled, without a time": Case([(8, 0), (0, None)], Status.OK, 2),
    "throttled for longer than there is time": Case(
        [(8, 60 * SECOND)], Status.RESOURCE_EXHAUSTED, 1
    ),
    "rejected after a retry": Case([(14, None), (3, None)], Status.INVALID_ARGUMENT, 2),
    "partial after a retry": Case([(14, None), (-1, None)], Status.OK, 2),
    "never well": Case([(14, None)], Status.UNAVAILABLE, MAX_TRIES),
}


@contextmanager
def scripted_server(
    answers: Callable[[bytes], tuple[int, int | None]], threads: int = 4
) -> Iterator[int]:
    """A gRPC server whose answer depends on the request; -1 is a partial success."""

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        if not request:  # the greeting
            return b""
        status, delay = answers(request)
        if status == -1:
            answer = ExportTraceServiceResponse()
            answer.partial_success.rejected_spans = 2
            return answer.SerializeToString()
        if status:
            code = next(code for code in grpc.StatusCode if code.value[0] == status)
            if delay is not None:
                details = (("grpc-status-details-bin", status_details(delay)),)
                context.set_trailing_metadata(details)
            context.abort(code, "as asked for")
        return b""

    service, method = EXPORT_METHOD[1:].split("/")
    handler = grpc.unary_unary_rpc_method_handler(export)
    server = grpc.server(futures.ThreadPoolExecutor(threads))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def transport_of(
    name: str, port: int, counts: SendCounts, stop: Int64, in_flight: int
) -> Transport:
    settings: dict[str, Any] = {"connections": 1, "in_flight": in_flight, "timeout_s": 5.0}
    if name == "wire":
        from blaster.transport.wire import WireTransport

        return WireTransport(
            host="127.0.0.1", port=port, metadata=(), counts=counts, stop=stop, **settings
        )
    from blaster.transport.grpc import GrpcTransport

    return GrpcTransport(
        target=f"127.0.0.1:{port}", tls=None, metadata=(), counts=counts, stop=stop, **settings
    )


@pytest.mark.parametrize("mode", [SPEC, IGNORE_THROTTLE])
@pytest.mark.parametrize("name", TRANSPORTS)
def test_against_a_server(monkeypatch: pytest.MonkeyPatch, name: str, mode: str) -> None:
    """Each rule against a real gRPC server: how often a request comes, when, and how it ends."""
    monkeypatch.setattr(retry, "FIRST_BACKOFF_NS", 20 * MILLISECOND)
    cases = list(CASES.values())
    seen: Counter[int] = Counter()
    times: dict[int, list[int]] = {}

    def answer(request: bytes) -> tuple[int, int | None]:
        number = int(request)
        script = cases[number].answers
        told = script[min(seen[number], len(script) - 1)]
        seen[number] += 1
        times.setdefault(number, []).append(time.monotonic_ns())
        return told

    counts, stop = SendCounts.zeros(), np.zeros(1, np.int64)
    with scripted_server(answer) as port:
        transport = RetryingTransport(
            transport_of(name, port, counts, stop, 8),
            Backoff(mode, 1),
            in_flight=8,
            timeout_s=5.0,
            counts=counts,
            stop=stop,
        )
        try:
            transport.connect(5.0)
            batches = [b"%d" % i for i in range(len(cases))]
            due = np.full(len(cases), time.monotonic_ns())
            chunk = Chunk.of(batches, due, np.full(len(cases), SPANS, np.int64))
            assert transport.send(chunk, time.monotonic_ns() + 5 * SECOND) == len(cases)
            transport.drain(time.monotonic_ns() + 6 * SECOND)
            outcomes = transport.outcomes()
        finally:
            transport.close()
    assert sorted(outcomes["number"].tolist()) == list(range(len(cases)))
    assert counts.sent_spans == SPANS * len(cases)
    for outcome in outcomes:
        number = int(outcome["number"])
        case, label = cases[number], list(CASES)[number]
        if mode == IGNORE_THROTTLE and label == "throttled for longer than there is time":
            assert seen[number] == MAX_TRIES
            continue
        assert (int(outcome["status"]), seen[number]) == (case.status, case.tries), label
        took = times[number][-1] - times[number][0]
        assert took >= case.after_ns or mode == IGNORE_THROTTLE, label
        assert outcome["done"] - outcome["scheduled"] >= took, label
    assert counts.retried_requests == sum(seen.values()) - len(cases)


@pytest.mark.parametrize("name", TRANSPORTS)
def test_retried_runs_balance(tmp_path: Path, name: str) -> None:
    """A refused request is sent again, counted apart, and ends with the last refusal's status."""
    out = tmp_path / "r.json"
    tries = 0

    def refuse(_: bytes) -> tuple[int, int | None]:
        nonlocal tries
        tries += 1
        return 14, None

    with scripted_server(refuse, threads=1) as port:
        ran = cli.blaster(
            *("run", "--endpoint", f"http://127.0.0.1:{port}", "--transport", name, "--quiet"),
            *("--rate", "400", "--batch", "10", "--duration", "0.5s", "--timeout", "1.5s"),
            *("--json", str(out)),
        )
    assert ran.returncode == 1
    read = cli.results(out)
    assert read["configuration"]["retry"] == "spec"
    assert read["spans"]["failed"] == read["spans"]["scheduled"] == 200
    requests = read["requests"]
    assert requests["by_status"] == {"UNAVAILABLE": 20}
    # After 1 s, more or less by a fifth; within 1.5 s there is no time for another.
    assert requests["retried"] == 20
    assert requests["retried_by_status"] == {"UNAVAILABLE": requests["retried"]}
    assert requests["retried_spans"] == 10 * requests["retried"]
    assert requests["possible_duplicates"] == 0
    assert tries == 20 + requests["retried"]
    assert read["verdict"]["limited_by"] == "target"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("name", TRANSPORTS)
def test_ended_while_waiting(tmp_path: Path, name: str, how: int) -> None:
    """Requests that wait for their next try are not lost when the run is stopped, nor when their
    worker is killed: they end as they were refused, or are unknown."""
    out = tmp_path / "r.json"
    with scripted_server(lambda _: (14, None)) as port:
        process = cli.start(
            *("run", "--endpoint", f"http://127.0.0.1:{port}", "--transport", name),
            *(
                "--json",
                str(out),
                "--rate",
                "100",
                "--batch",
                "10",
                "--duration",
                "20s",
                "--workers",
                "1",
            ),
        )
        assert process.stderr is not None
        while "spans/s" not in process.stderr.readline():
            assert process.poll() is None
        if how == signal.SIGKILL:
            (worker,) = psutil.Process(process.pid).children()
            worker.kill()
        else:
            process.send_signal(how)
        process.communicate(timeout=20)
    read = cli.results(out)
    assert process.returncode == (1 if how == signal.SIGKILL else 130)
    spans, requests = read["spans"], read["requests"]
    assert spans["accepted"] == 0 and spans["sent"] > 50
    if how == signal.SIGINT:
        assert spans["failed"] == spans["sent"]
        assert set(requests["by_status"]) == {"UNAVAILABLE"}
    else:
        assert spans["unknown"] > 0


def test_sink_that_comes_back(tmp_path: Path) -> None:
    """A target that is away for a second loses nothing, once its clients try again."""
    port = peers.free_ports(1)[0]
    command = ("sink", "--grpc-port", str(port), "--http-port", "0", "--api-port", "0")
    sink = cli.start(*command)
    out = tmp_path / "r.json"
    try:
        assert sink.stdout is not None and sink.stdout.readline()
        process = cli.start(
            *("run", "--endpoint", f"http://127.0.0.1:{port}", "--transport", "grpc"),
            *("--rate", "100", "--batch", "10", "--duration", "3s", "--json", str(out)),
        )
        assert process.stderr is not None
        while "spans/s" not in process.stderr.readline():
            assert process.poll() is None
        sink.kill()
        sink.communicate()
        time.sleep(0.3)
        sink = cli.start(*command)
        process.communicate(timeout=30)
    finally:
        sink.kill()
        sink.communicate()
    read = cli.results(out)
    assert read["spans"]["accepted"] == read["spans"]["scheduled"] == 300, read["requests"]
    assert read["requests"]["retried"] > 0
    assert set(read["requests"]["by_status"]) == {"OK"}
    assert json.loads(out.read_text())["latency_ms"]["response"]["max"] > 700


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("--rate", "100"), "spec"), (("--rate", "max"), "off"), (("--retry", "off"), "off")],
)
def test_default(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    """Paced runs retry by the specification unless told otherwise, closed loops do not."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--transport", "null", "--duration", "0.2s", *arguments, "--json", str(out))
    )
    assert ran.returncode == 0, ran
    assert cli.results(out)["configuration"]["retry"] == expected


def test_over_http(tmp_path: Path) -> None:
    """429, 502, 503 and 504 are sent again, after the time that the sink asks for where it does;
    another status is not. Nothing comes to the sink twice."""
    faults = ("http=429@4%", "http=502@4%", "http=503,retry-after=1s@4%", "http=504@4%")
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--embedded", "--transport", "http", "--rate", "2k", "--duration", "2s"),
        *("--batch", "20", "--seed", "3", "--quiet", "--json", str(out)),
        *(word for fault in (*faults, "http=500@10%") for word in ("--fault", fault)),
    )
    assert ran.returncode == 1, ran.stderr
    read = cli.results(out)
    requests, spans = read["requests"], read["spans"]
    assert set(requests["retried_by_status"]) == {"HTTP_429", "HTTP_502", "HTTP_503", "HTTP_504"}
    assert requests["retried"] == sum(requests["retried_by_status"].values())
    assert requests["by_status"]["HTTP_500"] * 20 == spans["failed"] > 0
    assert set(requests["by_status"]) == {"OK", "HTTP_500"}
    assert requests["possible_duplicates"] == 0 and read["sink"]["spans"] == spans["accepted"]

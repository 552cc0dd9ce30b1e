"""OTLP/HTTP: whatever a peer answers, every request ends once, and as it must."""

import contextlib
import email.utils
import itertools
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from support import cli, http_peer, peers
from support.http_peer import OK, Sender, chunk, response, says

from blaster.errors import TargetUnreachable
from blaster.transport.http_answer import read_answer, retry_after
from blaster.transport.http_response import (
    MAX_BODY_BYTES,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    BadResponse,
    Response,
    ResponseReader,
)


def rejecting(spans: int, message: str = "") -> bytes:
    """The protobuf answer that rejects so many."""
    partial = ExportTracePartialSuccess(rejected_spans=spans, error_message=message)
    return ExportTraceServiceResponse(partial_success=partial).SerializeToString()


STATUS = b"\x08\x03\x12\x0btoo strange"
"""A google.rpc.Status with code 3 and a message."""

RETRY_AT = time.time() + 3600
HTTP_DATE = email.utils.formatdate(RETRY_AT, usegmt=True)

# Name, answer, how every request ends, what is said of it.
ANSWERS = [
    ("empty", says(OK), "OK", None),
    ("202", says(response("202 Accepted")), "OK", None),
    (
        "interim",
        says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n" + OK),
        "OK",
        None,
    ),
    (
        "chunked",
        says(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2;x=y\r\n\x0a\x00\r\n0\r\nTrailer: 1\r\n\r\n"
        ),
        "OK",
        None,
    ),
    ("until the end", says(b"HTTP/1.0 200 OK\r\n\r\n", close=True), "OK", None),
    ("asks to close", says(response("200 OK", b"", "Connection: close"), close=True), "OK", None),
    ("more than asked for", says(OK + b"HTTP/1.1 408 Timeout\r\n\r\n", close=True), "OK", None),
    ("no reason", says(b"HTTP/1.1 200\r\ncontent-length:0\r\n\r\n"), "OK", None),
    ("partial", says(response("200 OK", rejecting(3, "why\nnot"))), "OK", "why not"),
    (
        "partial in JSON",
        says(
            response(
                "200 OK",
                b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"so"},"new":1}',
                kind="application/json; charset=utf-8",
            )
        ),
        "OK",
        "so",
    ),
    ("rejects too many", says(response("200 OK", rejecting(11))), "INVALID_RESPONSE", "11 of 10"),
    ("rejects too few", says(response("200 OK", rejecting(-1))), "INVALID_RESPONSE", "-1 of 10"),
    ("garbage", says(response("200 OK", b"\xff\xff")), "INVALID_RESPONSE", "not an Export"),
    (
        "garbage in JSON",
        says(response("200 OK", b"[" * 100_000, kind="application/json")),
        "INVALID_RESPONSE",
        "not an Export",
    ),
    (
        "a web page",
        says(response("200 OK", b"<html>", kind="text/html")),
        "INVALID_RESPONSE",
        "text/html",
    ),
    (
        "encoded",
        says(response("200 OK", b"xx", "Content-Encoding: gzip")),
        "INVALID_RESPONSE",
        "encoded",
    ),
    ("no HTTP", says(b"SSH-2.0-x\r\n"), "INVALID_RESPONSE", "begins with"),
    ("HTTP/2", says(b"HTTP/2 200 OK\r\n\r\n"), "INVALID_RESPONSE", "begins with"),
    ("no status", says(b"HTTP/1.1 OK\r\n\r\n"), "INVALID_RESPONSE", "begins with"),
    ("a status of 999", says(b"HTTP/1.1 999 x\r\n\r\n"), "INVALID_RESPONSE", "begins with"),
    (
        "101",
        says(b"HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n"),
        "INVALID_RESPONSE",
        "another protocol",
    ),
    ("endless 1xx", says(b"HTTP/1.1 100 C\r\n\r\n" * 99), "INVALID_RESPONSE", "interim"),
    (
        "an endless head",
        says(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 99_999),
        "INVALID_RESPONSE",
        "head",
    ),
    (
        "too many fields",
        says(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n"),
        "INVALID_RESPONSE",
        "fields",
    ),
    ("a field without a colon", says(b"HTTP/1.1 200 OK\r\nA\r\n\r\n"), "INVALID_RESPONSE", "field"),
    (
        "two lengths",
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"),
        "INVALID_RESPONSE",
        "content-length",
    ),
    (
        "a negative length",
        says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
        "INVALID_RESPONSE",
        "content-length",
    ),
    (
        "a length and chunks",
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "INVALID_RESPONSE",
        "transfer-encoding",
    ),
    (
        "a body too long",
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n"),
        "INVALID_RESPONSE",
        "5,000,000,000",
    ),
    (
        "a chunk too long",
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n"),
        "INVALID_RESPONSE",
        "more than",
    ),
    (
        "a chunk of no size",
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
        "INVALID_RESPONSE",
        "chunk",
    ),
    (
        "a chunk's size without an end",
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000),
        "INVALID_RESPONSE",
        "does not end",
    ),
    ("400", says(response("400 Bad", STATUS)), "HTTP_400", "too strange"),
    (
        "400 in JSON",
        says(response("400 Bad", b'{"code":3,"message":"odd"}', kind="application/json")),
        "HTTP_400",
        "odd",
    ),
    (
        "404 in words",
        says(response("404 No", b"no page", kind="text/plain")),
        "HTTP_404",
        "no page",
    ),
    ("500 with garbage", says(response("500 E", b"\xff\xff")), "HTTP_500", None),
    ("302", says(response("302 Found", b"", "Location: http://x/")), "HTTP_302", "redirects"),
    ("429", says(response("429 Slow", b"", "Retry-After: 7")), "HTTP_429", None),
    ("503", says(response("503 Down", b"", f"Retry-After: {HTTP_DATE}")), "HTTP_503", None),
    ("closes", says(b"", close=True), "CONNECTION_LOST", "closes the connection"),
    ("closes in the middle", says(OK[:20], close=True), "CONNECTION_LOST", "closes"),
    ("resets", http_peer.resets, "CONNECTION_LOST", "lost"),
    ("is silent", http_peer.silent, "NO_ANSWER_TIMEOUT", "deadline"),
]


@pytest.mark.parametrize(
    ("answer", "status", "said"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS]
)
def test_every_answer_is_counted(answer: http_peer.Answer, status: str, said: str | None) -> None:
    """Three requests, one after the other, end as the answer says; none is lost or doubled."""
    timeout_s = 0.3 if status == "NO_ANSWER_TIMEOUT" else 10.0
    with http_peer.peer(answer) as peer, Sender(peer.port, timeout_s=timeout_s) as sender:
        sender.transport.connect(5)
        begun = time.time()
        until = time.monotonic_ns() + 20_000_000_000
        assert sender.transport.send(chunk(3), until) == 3
        sender.transport.drain(until)
        outcomes = sender.transport.outcomes()
        assert sender.statuses(outcomes) == {status: 3}
        assert sender.counts.words[:3].tolist() == [3, 30, 300]
        messages = list(sender.transport.messages().values())
        assert len(peer.bodies) == 3
    assert said is None or said in messages[0]
    assert all(m.isprintable() for m in messages)
    rejected = {"why not": 3, "so": 3}.get(said or "", 0)
    assert outcomes["rejected"].tolist() == [rejected] * 3
    delay = outcomes["delay"].tolist()[0] / 1e9
    if status == "HTTP_429":
        assert delay == 7
    elif status == "HTTP_503":
        assert RETRY_AT - time.time() - 1 <= delay <= RETRY_AT - begun
    else:
        assert delay < 0


def test_a_connection_that_ends_between_two_requests() -> None:
    """A request sent as the peer hung up is unknown; one not sent goes to the next connection."""
    with http_peer.peer(says(OK, close=True)) as peer, Sender(peer.port) as sender:
        sender.transport.connect(5)
        for number in range(20):
            until = time.monotonic_ns() + 20_000_000_000
            sender.transport.wait(time.monotonic_ns() + number * 100_000)
            sender.transport.send(chunk(1, first=number), until)
        sender.transport.drain(until)
        statuses = sender.statuses(sender.transport.outcomes())
    assert statuses.keys() <= {"OK", "CONNECTION_LOST"} and statuses["OK"] > 0


def test_an_answer_that_comes_before_all_was_sent() -> None:
    """A peer that refuses a large request by its head, and hangs up, is understood."""
    said = says(response("413 Too Large", b"", "Connection: close"), close=True)
    with http_peer.peer(said, early=True) as peer, Sender(peer.port) as sender:
        sender.transport.connect(5)
        until = time.monotonic_ns() + 20_000_000_000
        sender.transport.send(chunk(2, size=8 << 20), until)
        sender.transport.drain(until)
        statuses = sender.statuses(sender.transport.outcomes())
    # The kernel may throw the answer away when the peer closes with bytes unread.
    assert statuses.keys() <= {"HTTP_413", "CONNECTION_LOST"}


def test_a_peer_that_goes_and_comes_back() -> None:
    """While nobody listens requests fail at their deadline; then they are delivered again."""
    with http_peer.peer(says(OK)) as first:
        sender = Sender(first.port, connections=2, timeout_s=0.3)
        sender.transport.connect(5)
        port = first.port
    with sender:
        now = time.monotonic_ns()
        sender.transport.wait(now + 100_000_000)
        sender.transport.send(chunk(4), now + 5_000_000_000)
        assert sender.transport.in_flight() <= 2
        sender.transport.drain(now + 5_000_000_000)
        gone = sender.transport.outcomes()
        assert sender.statuses(gone) == {"CONNECT_FAILED": 4}
        assert "refused" in next(iter(sender.transport.messages().values())).lower()
        with http_peer.peer(says(OK), port=port):
            now = time.monotonic_ns()
            sender.transport.wait(now + 500_000_000)
            sender.transport.send(chunk(6, first=4), now + 5_000_000_000)
            sender.transport.drain(now + 5_000_000_000)
            back = sender.transport.outcomes()
        statuses = sender.statuses(np.concatenate([gone, back]))
        # On a busy machine an answer may come too late for so short a deadline.
        assert statuses.pop("CONNECT_FAILED") == 4 and statuses.pop("OK") > 0
        assert statuses.keys() <= {"NO_ANSWER_TIMEOUT"}


def test_connections_carry_one_request_each() -> None:
    """As many requests are in flight as there are connections, and no more."""
    gate = threading.Event()

    def held(connection: socket.socket) -> bool:
        gate.wait(10)
        connection.sendall(OK)
        return True

    with http_peer.peer(held) as peer, Sender(peer.port, connections=3) as sender:
        sender.transport.connect(5)
        assert peer.connections == 3
        now = time.monotonic_ns()
        assert sender.transport.send(chunk(9), now + 200_000_000) == 3
        assert sender.transport.in_flight() == 3
        gate.set()
        sender.transport.drain(now + 5_000_000_000)
        assert sender.statuses(sender.transport.outcomes()) == {"OK": 3}
        assert peer.connections == 3


def test_stop_and_the_end_of_the_run() -> None:
    """A stop ends send, whatever its deadline; what has no answer at the end is abandoned."""
    with http_peer.peer(http_peer.silent) as peer, Sender(peer.port, connections=2) as sender:
        sender.transport.connect(5)
        threading.Timer(0.2, sender.stop.__setitem__, (0, 1)).start()
        sender.transport.send(chunk(5), time.monotonic_ns() + 3_600_000_000_000)
        assert sender.counts.sent_requests == 2
        sender.transport.drain(time.monotonic_ns() + 100_000_000)
        assert sender.statuses(sender.transport.outcomes()) == {"ABANDONED": 2}


def test_what_a_request_looks_like() -> None:
    """The head has what the protocol asks for, the user's headers, and a User-Agent."""
    with (
        http_peer.peer(says(OK)) as peer,
        Sender(peer.port, headers=(("x-key", "v"),), encoding="json") as sender,
    ):
        sender.transport.connect(5)
        sender.transport.send(chunk(1, size=77), time.monotonic_ns() + 5_000_000_000)
        sender.transport.drain(time.monotonic_ns() + 5_000_000_000)
        head = peer.heads[-1].decode()
    first, *lines = head.strip().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert first == "POST /v1/traces HTTP/1.1"
    assert fields.pop("User-Agent").startswith("blaster/")
    assert fields == {
        "Host": f"127.0.0.1:{peer.port}",
        "Content-Type": "application/json",
        "Content-Length": "77",
        "Accept-Encoding": "identity",
        "x-key": "v",
    }


@pytest.mark.parametrize(
    ("status", "said"), [("404 Not Found", "path"), ("401 Unauthorized", "--header"), ("302 F", "")]
)
def test_a_greeting_that_is_turned_away(status: str, said: str) -> None:
    """A peer that is no OTLP receiver, or wants none of ours, is named before the run."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(response(status))
                connection.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Sender(listener.getsockname()[1]) as sender:
            with pytest.raises(TargetUnreachable) as raised:
                sender.transport.connect(5)
            assert status[:3] in str(raised.value) and said in str(raised.value)
            assert len(sender.transport.outcomes()) == 0
        thread.join(5)


heads = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 503 No\r\nA: 1\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 204 None\r\n\r\n",
    ]
)


@given(heads, st.lists(st.integers(0, 120), max_size=8))
def test_a_response_may_come_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    """However a response is cut up, it is read the same, the second time from the cache as well."""
    whole = ResponseReader().feed(data)
    assert whole is not None
    reader = ResponseReader()
    for _ in range(2):
        places = sorted({0, len(data), *(c for c in cuts if c < len(data))})
        got = [reader.feed(data[a:b]) for a, b in itertools.pairwise(places)]
        assert got[-1] == whole and got[:-1] == [None] * (len(got) - 1)
        assert reader.feed(data) == whole and not reader.began


@given(heads, st.lists(st.tuples(st.integers(0, 90), st.binary(max_size=3)), max_size=4))
def test_no_response_breaks_the_reader(data: bytes, edits: list[tuple[int, bytes]]) -> None:
    """Any bytes end in a response, in BadResponse or in the wish for more, within bounds."""
    mutated = bytearray(data)
    for place, piece in edits:
        mutated[place : place + 1] = piece
    reader = ResponseReader()
    with contextlib.suppress(BadResponse):
        for byte in bytes(mutated):
            found = reader.feed(bytes([byte]))
            if found is not None:
                read_answer(found, 10, "protobuf")
                read_answer(found, 10, "json")
        found = reader.end()
    assert len(reader._data) <= MAX_HEAD_BYTES + 4 and len(reader._body) <= MAX_BODY_BYTES


@given(st.integers(200, 599), st.binary(max_size=200), st.sampled_from(["protobuf", "json"]))
def test_any_body_is_an_answer(status: int, body: bytes, encoding: str) -> None:
    """For any body, no more spans are rejected than were sent, and nothing is raised."""
    answer = read_answer(Response(status, {}, body, True), 10, encoding)
    assert 0 <= answer.rejected <= 10
    assert (answer.status == status) == (status >= 300)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("99999999999999999", 10**9),
        ("-1", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("", None),
    ],
)
def test_retry_after(text: str, seconds: int | None) -> None:
    """Seconds, or a date; a date that has passed is now; nonsense is nothing."""
    found = retry_after(Response(503, {b"retry-after": text.encode()}, b"", True))
    assert found == (-1 if seconds is None else seconds * 10**9)


def test_the_sink_takes_it(tmp_path: Path) -> None:
    """A run over HTTP ends with every account in balance, and says what it was."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--embedded", "--transport", "http", "--rate", "20k", "--duration", "2s"),
        *("--workers", "2", "--json", str(out)),
    )
    assert ran.returncode == 0, ran.stderr
    read = cli.results(out)
    assert read["sink"]["spans"] == read["spans"]["accepted"] == 40_000
    assert read["configuration"]["transport"] == "http"
    assert read["configuration"]["encoding"] == "protobuf"


def test_the_collector_takes_it(collector_binary: Path, tmp_path: Path) -> None:
    """The Collector accepts every span of a run over HTTP."""
    out = tmp_path / "r.json"
    with peers.collector(collector_binary) as peer:
        ran = cli.blaster(
            *("run", "--rate", "5k", "--duration", "2s", "--json", str(out)),
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{peer.http_port}/",
        )
        assert ran.returncode == 0, ran.stderr
        counted = peer.wait_for("otelcol_receiver_accepted_spans", 10_000)
    read = cli.results(out)
    assert counted["otelcol_receiver_accepted_spans"] == read["spans"]["accepted"] == 10_000
    assert read["configuration"]["endpoint"].endswith("/")


def test_the_collector_takes_json(collector_binary: Path, tmp_path: Path) -> None:
    """The Collector accepts every span of a run in JSON."""
    out = tmp_path / "r.json"
    with peers.collector(collector_binary) as peer:
        ran = cli.blaster(
            *("run", "--transport", "http", "--encoding", "json", "--json", str(out)),
            *("--endpoint", f"http://127.0.0.1:{peer.http_port}", "--rate", "3k"),
            *("--duration", "1s", "--workload", "web-shop"),
        )
        assert ran.returncode == 0, ran.stderr
        accepted = cli.results(out)["spans"]["accepted"]
        counted = peer.wait_for("otelcol_receiver_accepted_spans", accepted)
    assert counted["otelcol_receiver_accepted_spans"] == accepted > 2500


def test_the_sink_takes_json(tmp_path: Path) -> None:
    """The sink finds every span and every violation in JSON, and all accounts balance."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--embedded", "--transport", "http", "--encoding", "json", "--rate", "500"),
        *("--duration", "1s", "--json", str(out)),
    )
    assert ran.returncode == 0, ran.stderr
    found = cli.results(out)
    assert found["sink"]["spans"] == 500 and found["configuration"]["encoding"] == "json"
    assert found["violations"]["detected"] == found["violations"]["injected"] == 50


def test_numbers_of_statuses_have_names() -> None:
    """Each HTTP status has a name in the results, and the bounds hold."""
    from blaster.transport.base import FIRST_HTTP, STATUS_COUNT, Status, answered, left

    assert [Status(n).name for n in (100, 429, 599)] == ["HTTP_100", "HTTP_429", "HTTP_599"]
    every = np.arange(STATUS_COUNT)
    assert answered(every)[FIRST_HTTP:].all() and left(every)[FIRST_HTTP:].all()
    for wrong in (50, STATUS_COUNT):
        with pytest.raises(ValueError, match="not a valid Status"):
            Status(wrong)


def closes_with_its_answer(connection: socket.socket) -> bool:
    """Answers and closes in one segment, without a word of it."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    connection.sendall(OK)
    connection.shutdown(socket.SHUT_RDWR)
    return False


@pytest.mark.parametrize("connections", [1, 4])
def test_a_connection_that_was_closed_before_the_request_came(connections: int) -> None:
    """Requests on a kept-alive connection whose FIN came before they had arrived were certainly not
    processed: they go out again, uncounted, and each is received once."""
    with (
        http_peer.peer(closes_with_its_answer) as target,
        Sender(target.port, connections=connections) as sender,
    ):
        sender.transport.connect(5)
        sender.transport.send(chunk(60), time.monotonic_ns() + 20 * 10**9)
        sender.transport.drain(time.monotonic_ns() + 20 * 10**9)
        outcomes = sender.transport.outcomes()
        assert sender.statuses(outcomes) == {"OK": 60}
        assert len(target.bodies) == sender.counts.sent_requests == 60


def test_a_request_that_was_received_is_not_sent_again() -> None:
    """A kept-alive connection that ends without an answer to what it had received: unknown."""
    answers = iter([True, False])

    def answer_one(connection: socket.socket) -> bool:
        if next(answers, True):
            connection.sendall(OK)
            return True
        return False

    with http_peer.peer(answer_one) as target, Sender(target.port) as sender:
        sender.transport.connect(5)
        for _ in range(3):
            sender.transport.send(chunk(1), time.monotonic_ns() + 10**10)
            sender.transport.drain(time.monotonic_ns() + 10**10)
        statuses = [int(s) for s in sender.transport.outcomes()["status"]]
        assert statuses == [0, 33, 0] and len(target.bodies) == 3

"""Faults on purpose: their grammar, and that the books balance whatever the sink does."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import random
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import cli, sinks
from support.faulty import SHOWN, SPANS, TRANSPORTS, FaultySink, raised, request

from blaster.errors import UsageError
from blaster.sink import fault_grammar
from blaster.sink.fault import ALL, GRPC, HTTP, RECEIVERS, WIRE, Fault, Kind
from blaster.sink.fault_grammar import KINDS
from blaster.sink.fault_table import FaultTable
from blaster.sink.options import SinkOptions
from blaster.sink.server import serve
from blaster.sink.settings import SinkSettings, resolve
from blaster.transport.base import Chunk

MS = 10**6

GOOD = [
    ("delay=50ms", Fault("", Kind.DELAY, 50 * MS, 50 * MS)),
    ("delay=50ms..200ms@10%", Fault("", Kind.DELAY, 50 * MS, 200 * MS, share=round(ALL * 0.1))),
    ("delay=exp:5ms", Fault("", Kind.DELAY, 5 * MS, 5 * MS, True)),
    (
        "status=UNAVAILABLE,retry=2s@5%,from=10s,for=5s",
        Fault(
            *("", Kind.STATUS, 14, 14, False, round(ALL * 0.05), 10_000 * MS, 15_000 * MS),
            retry_ns=2000 * MS,
        ),
    ),
    ("status=data_loss", Fault("", Kind.STATUS, 15, 15)),
    (
        "http=429,retry-after=1s@0.5",
        Fault("", Kind.HTTP, 429, 429, share=ALL // 2, retry_ns=1000 * MS),
    ),
    ("http=503,retry-after=3s,date", Fault("", Kind.HTTP, 503, 503, retry_ns=3000 * MS, date=True)),
    ("partial=10%", Fault("", Kind.PARTIAL, round(ALL * 0.1), round(ALL * 0.1))),
    (
        "freeze=2s,at=5s",
        Fault("", Kind.FREEZE, 2000 * MS, 2000 * MS, from_ns=5000 * MS, once=True),
    ),
    ("slow-read", Fault("", Kind.SLOW_READ, 1000 * MS, 1000 * MS)),
    ("rst", Fault("", Kind.RST, 2, 2)),
    ("rst=REFUSED_STREAM", Fault("", Kind.RST, 7, 7)),
    ("goaway@1%", Fault("", Kind.GOAWAY, share=round(ALL * 0.01))),
    ("reset", Fault("", Kind.RESET)),
    ("refuse,for=1s", Fault("", Kind.REFUSE, until_ns=1000 * MS)),
    ("half-close", Fault("", Kind.HALF_CLOSE)),
    ("garbage", Fault("", Kind.GARBAGE)),
    ("frames", Fault("", Kind.FRAMES)),
    ("oversize=1MiB", Fault("", Kind.OVERSIZE, 1 << 20, 1 << 20)),
    ("content-type", Fault("", Kind.CONTENT_TYPE)),
]


@pytest.mark.parametrize(("text", "wanted"), GOOD, ids=[text for text, _ in GOOD])
def test_what_is_written_is_what_is_meant(text: str, wanted: Fault) -> None:
    got = fault_grammar.parse(text)
    assert got.text == text
    for name in Fault.__dataclass_fields__:
        if name != "text":
            assert getattr(got, name) == getattr(wanted, name), name


def test_every_kind_is_among_the_examples() -> None:
    assert {fault.kind for _, fault in GOOD} == set(Kind)
    assert {grammar.kind for grammar in KINDS.values()} == set(Kind)


BAD = [
    ("", "the kinds are delay, "),
    ("late", "the kinds are delay, "),
    ("delay", "delay needs a value"),
    ("delay=", "delay=: "),
    ("delay=soon", "delay=soon: "),
    ("delay=200ms..50ms", "from the shorter to the longer"),
    ("delay=2h", "at most 600 s"),
    ("delay=5ms@0", "a share of 0 never happens"),
    ("delay=5ms@150%", "must be a share"),
    ("delay=5ms@10%,from=1s@5%", "has two shares"),
    ("delay=5ms,retry=1s", "must be from=…, for=…, at=…"),
    ("delay=5ms,from=1s,from=2s", "from is given twice"),
    ("delay=5ms,at=1s,for=2s", "neither from=… nor for=…"),
    ("delay=5ms,from", "must be from=…"),
    ("status=OK", "must be a status of gRPC"),
    ("status=14", "must be a status of gRPC"),
    ("http=200", "an HTTP status from 300 to 599"),
    ("http=99999999999999", "an HTTP status from 300 to 599"),
    ("http=503,date", "date needs retry-after"),
    ("partial=110%", "must be a share"),
    ("rst=LATER", "must be one of NO_ERROR"),
    ("oversize=1GiB", "from 1 to 64MiB"),
    ("goaway=1", "goaway takes no value"),
]


@pytest.mark.parametrize(("text", "why"), BAD, ids=[text for text, _ in BAD])
def test_bad_faults_are_refused_in_one_line(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        resolve(SinkOptions(fault=[text]))
    said = str(refused.value)
    assert said.startswith(f"--fault '{text}': ") and why in said and "\n" not in said


@pytest.mark.parametrize("text", ["rst", "goaway"])
def test_what_no_receiver_shows_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=rf"--fault '{text}': not supported over grpc or http: "):
        serve(SinkSettings(receiver="grpc", faults=resolve(SinkOptions(fault=[text])).faults))


def test_the_api_refuses_what_are_no_faults() -> None:
    with FaultySink() as sink:
        sink.fault(["delay=1ms"], 5)
        for body in (
            *({"faults": ["late"]}, {"faults": "rst"}, {"faults": [5]}, [], {"other": 1}),
            *({"seed": -1}, {"seed": True}, {"faults": ["rst"] * 33}),
        ):
            status, said = sink.ask("POST", "/v1/faults", body)
            assert status == 400 and said.count("\n") == 1, said
        assert sink.ask("GET", "/v1/faults") == (
            200,
            {"seed": 5, "faults": [{"fault": "delay=1ms", "met": 0}]},
        )


def test_the_table_draws_by_seed_share_and_time() -> None:
    """The same seed draws the same; shares are kept; a time is kept; delays add up."""
    texts = ["delay=1ms..3ms@50%", "delay=1ms", "reset@25%", "garbage,from=1s,for=1s", "rst,at=1s"]
    tables = [FaultTable(WIRE, fault_grammar.parse_all(texts), seed) for seed in (1, 1, 2)]
    drawn = [[table.draw(i * MS) for i in range(4000)] for table in tables]
    assert drawn[0] == drawn[1] != drawn[2]
    resets = [d.fault is not None and d.fault.kind == Kind.RESET for d in drawn[0]]
    assert 0.22 < sum(resets) / 4000 < 0.28
    garbage = [i for i, d in enumerate(drawn[0]) if d.fault and d.fault.kind == Kind.GARBAGE]
    assert min(garbage) >= 1000 and max(garbage) < 2000 and len(garbage) > 700
    assert tables[0].hits[4] == 1
    assert all(MS <= d.delay_ns <= 4 * MS for d in drawn[0])
    unshown = FaultTable(HTTP, fault_grammar.parse_all(["rst", "status=INTERNAL"]))
    assert unshown.draw(0).fault is None


@pytest.fixture(scope="module")
def sink() -> Iterator[FaultySink]:
    with FaultySink() as sink:
        yield sink


@pytest.mark.skipif("wire" not in TRANSPORTS, reason="blaster._wire is not built")
def test_the_native_receiver_draws_as_its_twin(sink: FaultySink) -> None:
    """The same faults meet the same number of the same requests."""
    texts = ["delay=0s..1ms@40%", "status=ABORTED@20%", "partial=50%@50%", "delay=exp:1ms@10%"]
    sink.fault(texts, 11)
    sink.run("wire", 100)
    twin = FaultTable(WIRE, fault_grammar.parse_all(texts), 11)
    for i in range(100):
        twin.draw(i)
    assert sink.met() == twin.hits


@pytest.mark.native
@pytest.mark.skipif("wire" not in TRANSPORTS, reason="blaster._wire is not built")
def test_the_native_receiver_in_this_process() -> None:
    """Every kind in turn, where the sanitizers see it; and rows that are out of their range."""
    from blaster._wire import Receiver

    receiver, stop = Receiver(), array("q", [0])
    thread = threading.Thread(target=receiver.run, args=(stop,))
    thread.start()
    try:
        for number, (text, _) in enumerate(GOOD):
            fault = fault_grammar.parse(text.partition(",")[0].partition("@")[0])
            if fault.kind in (Kind.DELAY, Kind.FREEZE, Kind.SLOW_READ):
                fault = dataclasses.replace(fault, low=5 * MS, high=5 * MS)
            receiver.fault(number, (dataclasses.replace(fault, share=ALL // 2).row(),))
            url = f"http://127.0.0.1:{receiver.port}"
            client = FaultySink.connected("wire", url, 1.0, *raised())
            batches = [request(10_000 + number * 20 + i) for i in range(20)]
            sizes = np.cumsum([0, *map(len, batches)], dtype=np.int64)
            times, each = np.zeros(20, np.int64), np.full(20, SPANS, np.int64)
            until = time.monotonic_ns() + 2 * 10**9
            client.send(Chunk(times, each, sizes, memoryview(b"".join(batches))), until)
            client.drain(until)
            client.close()
            assert receiver.fault_hits()[0] > 0 or fault.kind == Kind.REFUSE
        good = fault_grammar.parse("delay=5ms").row()
        for at, value in ((0, 0), (0, 99), (1, ALL + 1), (2, -1), (4, -1), (8, b"x" * 200)):
            with pytest.raises(ValueError, match="out of its range"):
                receiver.fault(0, ((*good[:at], value, *good[at + 1 :]),))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="at most 32"):
            receiver.fault(0, (good,) * 33)
        assert receiver.counts()["spans"] > 0
    finally:
        stop[0] = 1
        thread.join()
        receiver.close()


EACH = [
    *(
        "delay=1ms..5ms",
        "delay=exp:2ms@50%",
        "partial=30%",
        "partial=100%@50%",
        "freeze=60ms,at=0s",
    ),
    *("status=UNAVAILABLE@40%", "status=RESOURCE_EXHAUSTED,retry=50ms@40%", "status=DATA_LOSS"),
    *("http=503@40%", "http=429,retry-after=1s@40%", "http=503,retry-after=1s,date@40%"),
    *("http=400@40%", "http=301@40%"),
    *("slow-read=60ms@20%", "rst@40%", "rst=REFUSED_STREAM@40%", "rst=NO_ERROR@40%"),
    *("goaway@20%", "reset@20%", "reset,at=5ms", "half-close@20%", "garbage@40%", "frames@20%"),
    *("oversize@10%", "oversize=70KB@30%", "content-type@40%"),
]


@pytest.mark.parametrize("text", EACH)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_books_balance_under_each_fault(sink: FaultySink, transport: str, text: str) -> None:
    """Both equations, and accepted <= sink.spans <= accepted + unknown."""
    fault = fault_grammar.parse(text)
    if SHOWN[transport] not in RECEIVERS[fault.kind]:
        with pytest.raises(UsageError, match="not supported over"):
            fault_grammar.check_supported([fault], [SHOWN[transport]])
        return
    sink.fault([text], 3)
    books = sink.run(transport, 40)
    assert sink.met()[0] > 0
    statuses = set(books.by_status) - {"OK"}
    if fault.kind in (Kind.DELAY, Kind.FREEZE, Kind.SLOW_READ):
        assert books.accepted == books.sent > 0
    elif fault.kind == Kind.PARTIAL:
        assert books.rejected > 0 and books.accepted + books.rejected == books.sent
    elif fault.kind in (Kind.STATUS, Kind.HTTP):
        assert books.failed > 0 and books.unknown == 0
        if fault.kind == Kind.STATUS:
            assert statuses == {fault_grammar.STATUSES[fault.low - 1]}
    elif text.startswith("rst=REFUSED_STREAM"):  # sent again: it was not processed
        assert books.accepted == books.sent > 0
    elif fault.kind not in (Kind.GOAWAY, Kind.CONTENT_TYPE, Kind.OVERSIZE):
        assert books.failed + books.unknown > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_refused_connections(sink: FaultySink, transport: str) -> None:
    """Whoever has lost his connection finds nobody listening, and later somebody again."""
    sink.fault(["reset,at=0s", "refuse,for=150ms"])
    books = sink.run(transport, 60, spread_s=0.6, timeout_s=0.4)
    assert books.unknown > 0 and books.accepted > 0
    sink.fault(["reset@20%", "refuse@50%"], 1)
    sink.run(transport, 40, spread_s=0.2)
    assert sink.met()[1] > 0


@pytest.mark.parametrize("text", ["delay=2ms", "status=ABORTED,retry=1s@30%", "partial=50%"])
def test_the_receiver_on_grpcio_shows_what_it_can(text: str) -> None:
    with FaultySink(receiver="grpc", fault=[text], fault_seed=4) as sink:
        books = sink.run("grpc", 30)
        assert sink.met()[0] > 0
        fault = fault_grammar.parse(text)
        assert (books.failed > 0) == (fault.kind == Kind.STATUS)
        assert (books.rejected > 0) == (fault.kind == Kind.PARTIAL)
        for other in ("garbage@40%", "oversize@20%", "freeze=50ms@10%"):
            sink.fault([other])
            sink.run("grpc", 30)
            assert sink.met()[0] > 0


def schedule(shown: str, seed: int) -> list[str]:
    """One to four faults that this receiver shows, with shares and times; short ones."""
    rng = random.Random(seed)

    def times() -> str:
        begin, length = rng.randrange(0, 15), rng.randrange(2, 20)
        return rng.choice(["", f",from={begin}ms", f",from={begin}ms,for={length}ms"])

    def one(name: str) -> str:
        values = {
            "delay": rng.choice(["=1ms", "=0s..10ms", "=exp:3ms"]),
            "status": "=" + rng.choice(fault_grammar.STATUSES) + rng.choice(["", ",retry=10ms"]),
            "http": rng.choice(["=429", "=503", "=500", "=404"])
            + rng.choice(["", ",retry-after=1s", ",retry-after=1s,date"]),
            "partial": rng.choice(["=5%", "=50%", "=100%"]),
            "freeze": "=10ms",
            "slow-read": "=10ms",
            "rst": "=" + rng.choice(list(fault_grammar.RESETS)),
            "oversize": rng.choice(["=1KB", "=100KB", "=5MiB"]),
        }
        share = rng.choice(["5%", "20%", "50%"])
        if name in ("freeze", "slow-read", "oversize"):
            share = "5%"
        return f"{name}{values.get(name, '')}{times()}@{share}"

    names = [name for name, grammar in KINDS.items() if shown in RECEIVERS[grammar.kind]]
    return [one(name) for name in rng.choices(names, k=rng.randrange(1, 5))]


PARTS, SCHEDULES = 4, 50


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_books_balance_under_any_schedule_of_faults(transport: str, part: int) -> None:
    """Two hundred seeded schedules for each transport."""
    with FaultySink() as sink:
        begin = sink.settled().spans
        least = most = 0
        for seed in range(part * SCHEDULES, (part + 1) * SCHEDULES):
            texts = schedule(SHOWN[transport], seed)
            sink.fault(texts, seed)
            try:
                books = sink.run(transport, 16, timeout_s=0.15)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {texts}: {error}") from error
            least += books.accepted
            most += books.accepted + books.unknown
        assert least <= sink.settled().spans - begin <= most
        assert least > 0 and most > least


def test_the_embedded_sink_takes_faults() -> None:
    with sinks.started(fault=["reset@1%", "partial=10%"]) as sink:
        assert sink.counts().spans == 0


def test_kinds_say_where_they_are_shown() -> None:
    """Only what needs HTTP/2 or sockets is missing anywhere, and says why."""
    for name, grammar in KINDS.items():
        assert RECEIVERS[grammar.kind] <= {WIRE, GRPC, HTTP}
        assert (RECEIVERS[grammar.kind] == {WIRE, GRPC, HTTP}) == (not grammar.limitation), name


@pytest.mark.parametrize("body", [b"{}", b' {"resourceSpans": []} ', b'{"new": 1}'])
def test_no_fault_meets_an_empty_message_in_json(body: bytes) -> None:
    """A client that first looks whether anybody is there is told so, whatever the encoding."""
    with FaultySink() as sink:
        sink.fault(["reset"])
        address = sink.sink.http_endpoint.removeprefix("http://")
        for kind, empty in (("application/json", body), ("application/x-protobuf", b"")):
            connection = http.client.HTTPConnection(address, timeout=10)
            with contextlib.closing(connection):
                connection.request("POST", "/v1/traces", empty, {"Content-Type": kind})
                assert connection.getresponse().status == 200
        assert sink.ask("GET", "/v1/faults")[1]["faults"][0]["met"] == 0


@pytest.mark.parametrize(
    "transport",
    ["wire", "wire --compression gzip", "grpc", "http", "http --encoding json"],
)
def test_the_greeting_meets_no_fault(transport: str, tmp_path: Path) -> None:
    """A run against faults begins, and its accounts hold."""
    out = tmp_path / "r.json"
    done = cli.blaster(
        *("run", "--embedded", "--rate", "200", "--duration", "1s", "--json", str(out)),
        *("--transport", *transport.split(), "--fault", "delay=1ms@50%"),
        *("--fault", "http=503" if transport.startswith("http") else "status=UNAVAILABLE"),
        *("--retry", "off"),
    )
    assert done.returncode == 1, done.stderr
    spans = cli.results(out)["spans"]
    assert spans["failed"] == spans["sent"] > 0

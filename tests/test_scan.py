"""The scan in C against protobuf's own parser and the Python twin."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from blaster._native import Scanner
from blaster.otlp.rules import RULES, violations_of
from tests.support.scanner_twin import ScannerTwin

pytestmark = pytest.mark.native

Request = trace_service_pb2.ExportTraceServiceRequest


def agree(data: bytes) -> None:
    """Asserts the same verdict and the same counts as protobuf's."""
    scanner, twin = Scanner(), ScannerTwin()
    assert scanner.request(data) == twin.request(data)
    assert scanner.counts() == twin.counts()


CAPTURES = Path(__file__).parent / "captures"


def test_text_that_is_cut_within_a_letter_is_malformed() -> None:
    scanner = Scanner()
    assert scanner.request((CAPTURES / "utf8cut.pb").read_bytes()) == -1
    counts = scanner.counts()
    assert (counts["malformed"], counts["spans"]) == (1, 0)


def _every_string(text: str) -> Request:
    """A request with this text in every string that the schema has."""
    request = Request()
    block = request.resource_spans.add(schema_url=text)
    block.resource.attributes.add(key=text).value.string_value = text
    block.resource.entity_refs.add(
        schema_url=text, type=text, id_keys=[text], description_keys=[text]
    )
    scope = block.scope_spans.add(schema_url=text)
    scope.scope.name = scope.scope.version = text
    span = scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name=text, trace_state=text)
    span.status.message = text
    span.attributes.add(key=text).value.string_value = text
    span.attributes.add(key=text).value.array_value.values.add(string_value=text)
    span.attributes.add(key=text).value.kvlist_value.values.add(key=text)
    span.events.add(name=text).attributes.add(key=text).value.string_value = text
    span.links.add(trace_state=text).attributes.add(key=text).value.string_value = text
    return request


LETTERS = "a\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"
NOT_UTF8 = [
    *(b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc2\x7f", b"\xc2\xc2"),
    *(b"\xe0\x9f\xbf", b"\xe0\xa0", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xef\xbf"),
    *(b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf0\x90\x80", b"\xff"),
]


@pytest.mark.parametrize("length", [0, 3, 8, 21, 70])
def test_every_string_is_utf8(length: int) -> None:
    """As protobuf has it, in each string by itself, wherever in it the fault is."""
    agree(_every_string("v" * length + LETTERS).SerializeToString())
    for wrong in NOT_UTF8:
        mark = "~" * len(wrong)
        data = _every_string("v" * length + mark + "w").SerializeToString()
        at = -1
        places = 0
        while (at := data.find(mark.encode(), at + 1)) >= 0:
            broken = data[:at] + wrong + data[at + len(wrong) :]
            assert Scanner().request(broken) == ScannerTwin().request(broken) == -1, broken
            places += 1
        assert places == 25


# Requests as a client would build them, with every field of the schema and few enough IDs that
# duplicates are common.

u64 = st.one_of(
    st.sampled_from([0, 1, 10**18, 10**18 + 500_000_000, 10**18 + 500_000_001, 2**64 - 1]),
    st.integers(0, 2**64 - 1),
)
u32 = st.integers(0, 2**32 - 1)
text = st.text(max_size=5) | st.just("v" * 200)
trace_ids = st.sampled_from(
    [bytes(16), bytes(15), bytes(17), b"", b"\1" * 16, bytes(15) + b"\1", b"\1" + bytes(15)]
)
span_ids = st.sampled_from(
    [bytes(8), bytes(7), bytes(9), b"", b"\1" * 8, bytes(7) + b"\1", b"\1" + bytes(7)]
)
keys = st.sampled_from(["http.route", "auth.token", "http.routf", "auth.toke", ""]) | text
values = st.recursive(
    st.one_of(
        st.just({}),
        st.builds(lambda v: {"string_value": v}, text),
        st.builds(lambda v: {"bool_value": v}, st.booleans()),
        st.builds(lambda v: {"int_value": v}, st.integers(-(2**63), 2**63 - 1)),
        st.builds(lambda v: {"double_value": v}, st.floats(allow_nan=False)),
        st.builds(lambda v: {"bytes_value": v}, st.binary(max_size=5)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda v: {"array_value": {"values": v}}, st.lists(inner, max_size=3)),
        st.builds(
            lambda v: {"kvlist_value": {"values": [{"key": k, "value": w} for k, w in v]}},
            st.lists(st.tuples(text, inner), max_size=3),
        ),
    ),
    max_leaves=5,
)
attributes = st.lists(st.fixed_dictionaries({"key": keys}, optional={"value": values}), max_size=4)
spans = st.fixed_dictionaries(
    {},
    optional={
        "trace_id": trace_ids,
        "span_id": span_ids,
        "parent_span_id": span_ids,
        "trace_state": text,
        "flags": u32,
        "name": text,
        "kind": st.integers(-1, 6),
        "start_time_unix_nano": u64,
        "end_time_unix_nano": u64,
        "attributes": attributes,
        "dropped_attributes_count": u32,
        "events": st.lists(
            st.fixed_dictionaries(
                {}, optional={"time_unix_nano": u64, "name": text, "attributes": attributes}
            ),
            max_size=2,
        ),
        "links": st.lists(
            st.fixed_dictionaries(
                {}, optional={"trace_id": trace_ids, "attributes": attributes, "flags": u32}
            ),
            max_size=2,
        ),
        "status": st.fixed_dictionaries(
            {}, optional={"message": text, "code": st.sampled_from([0, 1, 2, 3, -1, 2**31 - 1])}
        ),
    },
)
scope_spans = st.fixed_dictionaries(
    {},
    optional={
        "scope": st.fixed_dictionaries({}, optional={"name": text, "attributes": attributes}),
        "spans": st.lists(spans, max_size=4),
        "schema_url": text,
    },
)
resource_spans = st.fixed_dictionaries(
    {},
    optional={
        "resource": st.fixed_dictionaries({}, optional={"attributes": attributes}),
        "scope_spans": st.lists(scope_spans, max_size=2),
        "schema_url": text,
    },
)
requests = st.builds(
    lambda rs: Request(resource_spans=rs).SerializeToString(), st.lists(resource_spans, max_size=2)
)

# Bytes that are wire format, more or less: any field in any message, any wire type, tags and
# lengths written longer than need be, groups, and lengths that are off by one.


def varint(value: int, padding: int = 0) -> bytes:
    out = bytearray()
    while value > 127 or padding > 0:
        if value <= 127:
            padding -= 1
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def block(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


paddings = st.sampled_from([0] * 12 + [1, 2, 3, 4, 6, 9])
numbers = st.sampled_from(
    [1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10, 11, 13, 15, 16, 17, 2**29 - 1]
)
odd_numbers = numbers | st.sampled_from([0, 2**29])
tags = st.builds(
    lambda number, padding: lambda wire_type: varint(number << 3 | wire_type, padding),
    st.one_of(numbers, numbers, numbers, odd_numbers),
    paddings,
)
leaves = st.one_of(
    st.builds(
        lambda tag, value, padding: tag(0) + varint(value, padding),
        tags,
        st.sampled_from([0, 1, 2, 2 + 2**32, 2**64 - 1, 2**70 - 1]),
        paddings,
    ),
    st.builds(lambda tag, content: tag(1) + content, tags, st.binary(min_size=8, max_size=8)),
    st.builds(lambda tag, content: tag(5) + content, tags, st.binary(min_size=4, max_size=4)),
    st.builds(lambda tag, wire_type: tag(wire_type), tags, st.sampled_from([4, 6, 7])),
    st.builds(lambda content: b"\x0a\x10" + content, st.binary(min_size=16, max_size=16)),
    st.sampled_from([b"\x0a\x0ahttp.route", b"\x0a\x0aauth.token"]),
)
fields = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda tag, parts, padding, slip: (
                tag(2) + varint(max(0, sum(map(len, parts)) + slip), padding) + b"".join(parts)
            ),
            tags,
            st.lists(inner, max_size=3),
            paddings,
            st.sampled_from([0] * 30 + [-1, 1]),
        ),
        st.builds(
            lambda number, parts, slip: (
                varint(number << 3 | 3) + b"".join(parts) + varint((number + slip) << 3 | 4)
            ),
            odd_numbers,
            st.lists(inner, max_size=3),
            st.sampled_from([0] * 15 + [1]),
        ),
    ),
    max_leaves=8,
)
PATHS = {
    "request": (),
    "resource spans": (1,),
    "resource": (1, 1),
    "scope spans": (1, 2),
    "scope": (1, 2, 1),
    "span": (1, 2, 2),
    "attribute": (1, 2, 2, 9),
    "value": (1, 2, 2, 9, 2),
    "list value": (1, 2, 2, 9, 2, 6),
    "event": (1, 2, 2, 11),
    "link": (1, 2, 2, 13),
    "status": (1, 2, 2, 15),
}


def at(path: tuple[int, ...], content: bytes) -> bytes:
    for number in reversed(path):
        content = block(number, content)
    return content


@given(st.lists(requests, max_size=4))
def test_counts_equal_the_twins(batch: list[bytes]) -> None:
    """Any sequence of requests gives the same counts in C as in Python over protobuf's objects."""
    scanner, twin = Scanner(), ScannerTwin()
    for data in batch:
        assert scanner.request(data) == twin.request(data)
    assert scanner.counts() == twin.counts()
    assert scanner.counts()["malformed"] == 0


@settings(max_examples=500)
@given(st.sampled_from(sorted(PATHS)), st.lists(fields, min_size=1, max_size=4))
@example("span", [bytes.fromhex("0b01296440f0dbf942bc0c")])  # field 0 inside a group
def test_odd_wire_bytes_get_protobufs_verdict(where: str, parts: list[bytes]) -> None:
    """Protobuf and the scan agree on every message, whichever fields it holds."""
    agree(at(PATHS[where], b"".join(parts)))


@given(requests, st.data())
def test_truncated_requests_get_protobufs_verdict(data: bytes, draw: st.DataObject) -> None:
    """A request cut anywhere is malformed exactly when protobuf says so."""
    agree(data[: draw.draw(st.integers(0, len(data)))])


edits = st.tuples(st.integers(0, 2**16), st.integers(0, 3), st.binary(max_size=3))


@settings(max_examples=300)
@given(requests, st.lists(edits, min_size=1, max_size=4))
def test_mutated_requests_get_protobufs_verdict(
    data: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    """A request with bytes changed, left out or put in is judged as protobuf judges it."""
    mutated = bytearray(data)
    for where, cut, put in changes:
        place = where % (len(mutated) + 1)
        mutated[place : place + cut] = put
    agree(bytes(mutated))


@given(requests, st.integers(1, 3))
def test_a_request_again_is_all_duplicates(data: bytes, again: int) -> None:
    """Every valid ID of a request that comes again counts as a duplicate, each time."""
    scanner = Scanner()
    scanner.request(data)
    first = scanner.counts()
    for _ in range(again):
        scanner.request(data)
    gained = scanner.counts()["duplicates"] - first["duplicates"]
    assert gained == again * (first["spans"] - first["invalid"])


@given(st.lists(requests, max_size=4))
def test_concatenated_requests_are_one_request(batch: list[bytes]) -> None:
    """Requests one after another in one message count as they count one by one."""
    apart, together = Scanner(), Scanner()
    for data in batch:
        apart.request(data)
    together.request(b"".join(batch))
    ignored = {"requests": 0}
    assert {**apart.counts(), **ignored} == {**together.counts(), **ignored}


@pytest.mark.parametrize("levels", [50, 90, 95, 96, 97, 98, 99, 100, 101, 150, 5000])
@pytest.mark.parametrize("kind", ["group", "group in a span", "array", "list"])
def test_nesting_is_bounded_as_in_protobuf(kind: str, levels: int) -> None:
    content = b""
    if kind.startswith("group"):
        content = b"\x83\x02" * levels + b"\x84\x02" * levels
        data = at(PATHS["span"] if kind.endswith("span") else (), content)
    else:
        cycle = (5, 1) if kind == "array" else (6, 1, 2)
        for level in range(levels):
            content = block(cycle[level % len(cycle)], content)
        data = at(PATHS["value"], content)
    agree(data)


def test_a_malformed_request_counts_nothing_else() -> None:
    good = at(PATHS["span"], block(1, b"\1" * 16) + block(2, b"\1" * 8) + b"\x7a\x02\x18\x02")
    scanner = Scanner()
    assert scanner.request(good + b"\x0a") == -1
    nothing = ScannerTwin().counts()
    assert scanner.counts() == {**nothing, "malformed": 1}
    assert scanner.request(good) == 1
    assert scanner.counts()["duplicates"] == 0  # its IDs were not remembered either


def span(**values: Any) -> Span:
    return Span(trace_id=b"\1" * 16, span_id=b"\1" * 8, **values)


def with_keys(*names: str) -> Span:
    return span(attributes=[{"key": name, "value": {"string_value": "v"}} for name in names])


@pytest.mark.parametrize(
    ("broken", "of"),
    [
        ((0, 0, 0), span()),
        ((0, 0, 0), span(start_time_unix_nano=7, end_time_unix_nano=500_000_007)),
        ((1, 0, 0), span(start_time_unix_nano=7, end_time_unix_nano=500_000_008)),
        ((0, 0, 0), span(start_time_unix_nano=10**18, end_time_unix_nano=1)),
        ((1, 0, 0), span(end_time_unix_nano=2**64 - 1)),
        ((0, 0, 0), span(status={"code": 1})),
        ((0, 1, 0), span(status={"code": 2})),
        ((0, 0, 1), with_keys("http.route")),
        ((0, 0, 0), with_keys("http.route", "auth.token")),
        ((0, 0, 0), with_keys("auth.token", "http.route")),
        ((0, 0, 0), with_keys("http.method")),
        ((0, 0, 1), with_keys("auth.tokem", "http.route", "Auth.token")),
    ],
)
def test_rules(broken: tuple[int, int, int], of: Span) -> None:
    assert tuple(map(int, violations_of(of))) == broken
    scanner = Scanner()
    request = Request(resource_spans=[{"scope_spans": [{"spans": [of]}]}])
    assert scanner.request(request.SerializeToString()) == 1
    assert scanner.counts()["violations"] == broken


def test_rule_names() -> None:
    assert RULES == ("load-test-slow-requests", "load-test-errors", "load-test-missing-auth")


def test_any_buffer_is_taken_and_nothing_else() -> None:
    data = at(PATHS["span"], b"")
    scanner = Scanner()
    for buffer in (data, bytearray(data), memoryview(b"?" + data)[1:]):
        assert scanner.request(buffer) == 1
    with pytest.raises(BufferError):
        scanner.request(memoryview(data + data)[::2])
    with pytest.raises(TypeError):
        scanner.request("text")  # type: ignore[arg-type]


def test_threads_share_a_scanner() -> None:
    """Large requests are scanned with the GIL released; one at a time all the same."""
    data = at(PATHS["span"], b"\x32\x00") * 20_000
    scanner = Scanner()

    def work() -> None:
        for _ in range(20):
            scanner.request(data)
            scanner.counts()
            _ = scanner.sampling

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scanner.counts()["spans"] == 4 * 20 * 20_000

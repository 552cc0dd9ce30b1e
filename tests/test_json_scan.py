"""The scan of OTLP/JSON in C against that of protobuf, and against a slow reader in Python."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from test_json_template import columns_of, mix_of, stamped
from test_scan import PATHS, at, block, requests

from blaster._native import Scanner
from blaster.otlp.rules import RULES
from blaster.payload.template import LAYOUTS, Layout
from tests.support import otlp_json
from tests.support.scanner_twin import ScannerTwin

pytestmark = pytest.mark.native

ALL_RULES = (1 << len(RULES)) - 1

choices = st.integers(0, 2**64 - 1).map(random.Random)


def in_json(request: bytes, choice: random.Random) -> bytes:
    return otlp_json.encode(ExportTraceServiceRequest.FromString(request), choice)


documents = st.builds(in_json, requests, choices)


def without_bytes(scanner: Scanner) -> dict[str, Any]:
    return {**scanner.counts(), "bytes": None}


def agree(data: bytes) -> int:
    """Assert the same counts as the slow reader's, and return the verdict."""
    scanner, twin = Scanner(), ScannerTwin()
    spans = scanner.request_json(data)
    assert spans == twin.request_json(data)
    assert scanner.counts() == twin.counts()
    return spans


@given(st.lists(st.tuples(requests, choices), max_size=4))
def test_json_counts_as_protobuf_does(batch: list[tuple[bytes, random.Random]]) -> None:
    """Requests count the same in both encodings, whichever way their JSON is written, and an ID
    that came in one is a duplicate in the other."""
    protobuf, scanner, both = Scanner(), Scanner(), Scanner()
    for request, choice in batch:
        document = in_json(request, choice)
        assert scanner.request_json(document) == protobuf.request(request)
        both.request(request)
        both.request_json(document)
    counts = scanner.counts()
    assert without_bytes(scanner) == without_bytes(protobuf)
    valid = counts["spans"] - counts["invalid"]
    assert both.counts()["duplicates"] == counts["duplicates"] + valid


@given(requests, choices)
def test_the_slow_reader_reads_what_is_written(request: bytes, choice: random.Random) -> None:
    """What the oracle writes it reads as the message that it was."""
    message = ExportTraceServiceRequest.FromString(request)
    assert str(otlp_json.decode(otlp_json.encode(message, choice))) == str(message)


@given(requests, choices, st.integers(0, 2**32), st.integers(0, 2**32 - 1))
def test_the_same_spans_are_rejected_and_kept(
    request: bytes, choice: random.Random, share: int, rounding: int
) -> None:
    """Of a share to be rejected the same spans count, and the same are kept for their rules."""
    protobuf, scanner = Scanner(), Scanner()
    for each in (protobuf, scanner):
        each.watch(ALL_RULES)
    wanted = protobuf.partly(request, False, share, rounding)
    assert scanner.partly(in_json(request, choice), True, share, rounding) == wanted
    assert without_bytes(scanner) == without_bytes(protobuf)
    assert scanner.take() == protobuf.take()


edits = st.tuples(
    st.integers(0, 2**16),
    st.integers(0, 3),
    st.sampled_from([b"", b",", b'"', b"{", b"}", b"[", b"]", b":", b"\\", b"0", b"-", b"e", b"."])
    | st.sampled_from([b"null", b"\\u", b"\\ud83d", b"\x00", b"\xc0\x80", b"\xed\xa0\x80"])
    | st.binary(max_size=3),
)


@settings(max_examples=300)
@given(documents, st.lists(edits, min_size=1, max_size=3))
def test_mutated_documents_get_the_slow_readers_verdict(
    document: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    """A document with bytes changed, left out or put in is judged as the slow reader judges it."""
    mutated = bytearray(document)
    for where, cut, put in changes:
        place = where % (len(mutated) + 1)
        mutated[place : place + cut] = put
    agree(bytes(mutated))


@given(documents, st.data())
def test_truncated_documents_are_malformed(document: bytes, draw: st.DataObject) -> None:
    """No beginning of a document is one, and space around it changes nothing."""
    scanner = Scanner()
    cut = draw.draw(st.integers(0, len(document) - 1))
    assert scanner.request_json(document[:cut]) == -1
    assert (
        scanner.request_json(b" \n" + document + b"\t\r\n") == scanner.request_json(document) >= 0
    )


def span(members: str) -> str:
    return '{"resourceSpans":[{"scopeSpans":[{"spans":[{' + members + "}]}]}]}"


def value(member: str) -> str:
    return span('"attributes":[{"key":"k","value":{' + member + "}}]")


def start(number: str) -> str:
    return span(f'"startTimeUnixNano":{number}')


NAMES = (
    "resourceSpans scopeSpans spans traceId spanId attributes key value stringValue intValue "
    "arrayValue values kind flags links status code events startTimeUnixNano"
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["0" * 32, "Ab" * 8, "1", "-1", "2e0", "STATUS_CODE_ERROR"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES.split(" ")), inner, max_size=4)
    ),
    max_leaves=30,
)
PLACES = [
    "%s",
    '{"resourceSpans":%s}',
    '{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}',
    span('"attributes":[{"value":%s}]'),
    *(
        span(f'"{name}":%s')
        for name in ["traceId", "startTimeUnixNano", "kind", "flags", "status", "links", "unknown"]
    ),
]


@settings(max_examples=300)
@given(st.sampled_from(PLACES), anything)
def test_any_json_gets_the_slow_readers_verdict(place: str, value: object) -> None:
    """Whatever stands wherever, the scan and the slow reader agree on it."""
    agree((place % json.dumps(value)).encode())


def known_names(descriptor: Descriptor, place: str, above: frozenset[str]) -> Iterator[str]:
    """A document with a list of a list in the place of each field of the schema, by each name."""
    for field in descriptor.fields:
        if field.name in otlp_json.NOT_OF_TRACES:
            continue
        for name in (field.json_name, field.name):
            yield place % f'{{"{name}":[[]]}}'
        inner = field.message_type
        if inner is not None and inner.full_name not in above:
            within = "[%s]" if field.is_repeated else "%s"
            deeper = place % f'{{"{field.json_name}":{within}}}'
            yield from known_names(inner, deeper, above | {inner.full_name})


def test_every_name_of_the_schema_is_known() -> None:
    """What no field may hold is malformed wherever the schema has a field."""
    wrong = list(known_names(ExportTraceServiceRequest.DESCRIPTOR, "%s", frozenset()))
    assert len(wrong) > 150
    assert [text for text in wrong if agree(text.encode()) >= 0] == []


SMALL = [0, 1, 19, 20, 100, 308, 309, 400]
numbers = st.builds(
    lambda sign, whole, zeros, fraction, exponent: sign + whole + "0" * zeros + fraction + exponent,
    st.sampled_from(["", "", "", "-", "+"]),
    st.sampled_from(["0", "1", "18446744073709551615", "18446744073709551616", "007", "", "9"])
    | st.sampled_from(["9223372036854775807", "9223372036854775808", "4294967295", "2147483648"])
    | st.integers(0, 2**65).map(str),
    st.sampled_from([0, 0, 0, *SMALL]),
    st.sampled_from(["", "", ".", ".0", ".5", ".25", "." + "0" * 30, "." + "0" * 30 + "1"]),
    st.just("")
    | st.builds(
        "{}{}{}".format,
        st.sampled_from("eE"),
        st.sampled_from(["", "+", "-"]),
        st.sampled_from([*SMALL, "", "00", 2**31, 2**63, 2**64, 10**30]),
    ),
)


@settings(max_examples=500)
@given(
    st.sampled_from(['"startTimeUnixNano":%s', '"kind":%s', '"flags":%s', '"status":{"code":%s}'])
    | st.sampled_from(["int", "double"]).map('"attributes":[{"value":{"%sValue":%%s}}]'.__mod__),
    numbers,
    st.booleans(),
)
def test_numbers_get_the_slow_readers_verdict(member: str, number: str, quoted: bool) -> None:
    """Any number, as such or as text, is in range for a field or not as the slow reader says."""
    agree(span(member % (f'"{number}"' if quoted else number)).encode())


TRACE, SPAN = '"traceId":"%s"' % ("1a" * 16), '"spanId":"%s"' % ("1A" * 8)

TAKEN = {
    "nothing": "{}",
    "nothing, with space": " \r\n\t{ } ",
    "lists of nothing": '{"resourceSpans":[]}',
    "null for a list": '{"resourceSpans":null}',
    "null for a message": span('"status":null'),
    "null for each kind of value": span(
        '"traceId":null,"flags":null,"kind":null,"name":null,"endTimeUnixNano":null'
    ),
    "an unknown name twice": '{"a":1,"a":2}',
    "a known name within an unknown one": '{"a":{"resourceSpans":5,"resourceSpans":6}}',
    "a name of another message": span('"scopeSpans":5'),
    "names by their case": span('"TraceId":5'),
    "a name that is written as an extension": span('"[x.y]":5'),
    "the names of the .proto files": '{"resource_spans":[{"scope_spans":[]}]}',
    "escapes in names and IDs": span('"trace\\u0049d":"%s"' % ("\\u0031a" * 16)),
    "an ID of no length": span('"traceId":""'),
    "an ID of a wrong length": span('"traceId":"abcd"'),
    "an enum by its name": span('"kind":"SPAN_KIND_SERVER"'),
    "an enum's number as text": span('"kind":"2"'),
    "an enum's unknown number": span('"kind":-77'),
    "zeros before a number in text": start('"0000000000000000000000000001"'),
    "the largest number": start("18446744073709551615"),
    "a whole number with an exponent": start("1.5e1"),
    "minus zero": start("-0"),
    "no number at all": value('"doubleValue":"NaN"'),
    "infinity": value('"doubleValue":"-Infinity"'),
    "the largest double": value('"doubleValue":1.7976931348623157e308'),
    "the other alphabet of base64": value('"bytesValue":"-_8"'),
    "base64 with too little padding": value('"bytesValue":"AA="'),
    "a second value that is null": value('"intValue":1,"stringValue":null'),
    "no value": value(""),
    "a surrogate pair": span('"name":"\\uD83D\\ude42"'),
    "a character that is no character": span('"name":"\\uffff\uffff"'),
    "unknown values nested 100 deep": '{"a":' + "[" * 100 + "]" * 100 + "}",
}
MALFORMED = {
    "no bytes": "",
    "space": " ",
    "no object": "[]",
    "null": "null",
    "a byte order mark": "\ufeff{}",
    "another value after it": "{}{}",
    "a comma at the end": '{"a":1,}',
    "a comma at the end of a list": '{"a":[1,]}',
    "no quotation marks": "{a:1}",
    "a comment": "{/**/}",
    "a control character": '{"a":"\n"}',
    "an unknown escape": '{"a":"\\x41"}',
    "a vertical tab": "{\v}",
    "a number with zeros before it": '{"a":01}',
    "a number without digits": '{"a":-}',
    "a number without a fraction": '{"a":1.}',
    "NaN": '{"a":NaN}',
    "half a surrogate pair": '{"a":"\\ud83d"}',
    "the other half": '{"a":"\\ude42"}',
    "two first halves": '{"a":"\\ud83d\\ud83d"}',
    "half a surrogate pair in a name": '{"\\ud83d":1}',
    "a known name twice": span('"name":"a","name":"b"'),
    "a known name twice, once null": span('"name":"a","name":null'),
    "a known name in both forms": span('"traceId":"","trace_id":""'),
    "a list twice": '{"resourceSpans":[],"resource_spans":[]}',
    "two values": value('"intValue":1,"stringValue":""'),
    "null in a list": '{"resourceSpans":[null]}',
    "an object for a list": '{"resourceSpans":{}}',
    "a list for an object": '{"resourceSpans":[[]]}',
    "an ID in base64": span('"traceId":"W49nc3ANnbkqQjZTNXsuXg=="'),
    "half a byte": span('"traceId":"abc"'),
    "an ID as a number": span('"traceId":12'),
    "a parent's ID": span('"parentSpanId":"x0"'),
    "a link's ID": span('"links":[{"traceId":"x0"}]'),
    "an enum by an unknown name": span('"kind":"SPAN_KIND_NEW"'),
    "an enum by no name": span('"kind":""'),
    "an enum by a name of another": span('"kind":"STATUS_CODE_OK"'),
    "an enum out of range": span('"kind":2147483648'),
    "an enum with a fraction": span('"kind":1.5'),
    "an enum that is true": span('"kind":true'),
    "a number that is text": start('"now"'),
    "space in a number": start('" 1"'),
    "no number": start('""'),
    "a plus sign": start('"+1"'),
    "a number too large": start("18446744073709551616"),
    "a number below zero": start('"-1"'),
    "a fraction": start("1.5"),
    "a fraction far down": start('"10000e-5"'),
    "a double too large": value('"doubleValue":1.7976931348623159e308'),
    "a word for a double": value('"doubleValue":"inf"'),
    "a bool as text": value('"boolValue":"true"'),
    "a bool as a number": value('"boolValue":1'),
    "a text as a number": value('"stringValue":1'),
    "base64 of no length": value('"bytesValue":"A"'),
    "base64 of other characters": value('"bytesValue":"AA!A"'),
    "unknown values nested 101 deep": '{"a":' + "[" * 101 + "]" * 101 + "}",
    "nested without end": "[" * 100_000,
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_taken(name: str) -> None:
    assert agree(TAKEN[name].encode()) >= 0


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed(name: str) -> None:
    assert agree(MALFORMED[name].encode()) == -1


@pytest.mark.parametrize(
    "text",
    [
        *[b"\x80", b"\xc3", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf"],
        *[b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xff", b"\xe2\x82", b"\xf0\x9f\x99"],
        *[b"\xc3\xa9", b"\xe0\xa0\x80", b"\xed\x9f\xbf", b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf"],
    ],
)
@pytest.mark.parametrize("before", [0, 9, 31])
def test_strings_are_utf8(text: bytes, before: int) -> None:
    """Wherever in the 16 bytes that are looked at together a character stands."""
    agree(b'{"a":"' + b"a" * before + text + b'"}')


def test_a_malformed_document_counts_nothing_else() -> None:
    scanner, good = Scanner(), span(f"{TRACE},{SPAN}").encode()
    assert scanner.request_json(good + b",") == -1
    assert scanner.counts() == {**ScannerTwin().counts(), "malformed": 1}
    assert scanner.request_json(good) == 1
    assert scanner.counts()["duplicates"] == 0  # its IDs were not remembered either
    assert scanner.request_json(good) == 1
    assert (scanner.counts()["duplicates"], scanner.counts()["invalid"]) == (1, 0)


@pytest.mark.parametrize("levels", [30, 45, 46, 47, 48, 49, 50, 150])
@pytest.mark.parametrize("kind", ["array", "list"])
def test_messages_nest_as_in_protobuf(kind: str, levels: int) -> None:
    """Messages within messages are as deep in JSON as they may be in protobuf."""
    inside, message = "{}", b""
    for _ in range(levels):
        if kind == "array":
            inside = '{"arrayValue":{"values":[' + inside + "]}}"
            message = block(5, block(1, message))
        else:
            inside = '{"kvlistValue":{"values":[{"value":' + inside + "}]}}"
            message = block(6, block(1, block(2, message)))
    document = span(f'"attributes":[{{"value":{inside}}}]').encode()
    assert agree(document) == Scanner().request(at(PATHS["value"], message))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_stamped_counts_as_in_protobuf(layout: Layout) -> None:
    """The batches that blaster sends are taken, to the last rule and duplicate."""
    json_scanner, protobuf = Scanner(), Scanner()
    for encoding, take in (("json", json_scanner.request_json), ("protobuf", protobuf.request)):
        mix = mix_of("flat", layout, encoding)
        for batch in stamped(mix, columns_of(mix, 0, [3, 50], 0)):
            assert take(batch) > 0
    assert without_bytes(json_scanner) == without_bytes(protobuf)
    assert json_scanner.counts()["invalid"] == json_scanner.counts()["duplicates"] == 0


def test_any_buffer_is_taken_and_nothing_else() -> None:
    scanner, data = Scanner(), span("").encode()
    for buffer in (data, bytearray(data), memoryview(b"?" + data)[1:]):
        assert scanner.request_json(buffer) == 1
    with pytest.raises(BufferError):
        scanner.request_json(memoryview(data + data)[::2])
    with pytest.raises(TypeError):
        scanner.request_json("{}")  # type: ignore[arg-type]

"""Captured files: what is read from them, what is refused and where, and what is recorded."""

import json
import re
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from support import cli, peers

from blaster.errors import UsageError
from blaster.payload.capture import file as capture_file
from blaster.payload.capture import otlp_json, otlp_proto, traces
from blaster.payload.capture.batch_capture import BatchCapture
from blaster.payload.capture.capture import Capture, read
from blaster.payload.capture.otlp_json import OtlpJsonReader
from blaster.payload.json_template import json_template
from blaster.payload.shape import TRACE_PLACEHOLDER, placeholder_id, spans_of
from blaster.payload.template import build

CAPTURES = Path(__file__).parent / "captures"
BEGIN = 1_700_000_000_000_000_000
TRACE, OTHER = bytes(range(1, 17)), bytes(range(2, 18))


def request_of(*spans: Span, service: str = "shop") -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.30.0")
    block.resource.attributes.append(attribute("service.name", service))
    scope = block.scope_spans.add()
    scope.scope.name = "a scope"
    scope.spans.extend(spans)
    return request


def attribute(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def span(number: int, parent: int = 0, trace: bytes = TRACE, **more: Any) -> Span:
    return Span(
        **{
            "trace_id": trace,
            "span_id": bytes([number] * 8),
            "parent_span_id": bytes([parent] * 8) if parent else b"",
            "name": f"operation {number}",
            "start_time_unix_nano": BEGIN + 1000 * number,
            "end_time_unix_nano": BEGIN + 9000,
            **more,
        }
    )


def rich() -> ExportTraceServiceRequest:
    """A request with every field that OTLP has."""
    inner = AnyValue()
    inner.kvlist_value.values.append(attribute("key", "value"))
    inner.kvlist_value.values.add(key="empty")
    values = [
        AnyValue(string_value="é\0"),
        AnyValue(string_value=""),
        AnyValue(bool_value=False),
        AnyValue(int_value=-(2**63)),
        AnyValue(double_value=float("-inf")),
        AnyValue(double_value=1.5),
        AnyValue(bytes_value=b"\xff\0"),
        inner,
        AnyValue(),
    ]
    full = span(1, dropped_attributes_count=1, dropped_events_count=2, dropped_links_count=3)
    full.trace_state, full.flags, full.kind = "a=b", 0x101, Span.SPAN_KIND_SERVER
    full.status.code, full.status.message = Status.STATUS_CODE_ERROR, "why"
    full.attributes.extend(KeyValue(key=str(i), value=v) for i, v in enumerate(values))
    list_value = full.attributes.add(key="list").value.array_value
    list_value.values.extend(values)
    full.events.add(time_unix_nano=BEGIN + 5, name="event", dropped_attributes_count=4)
    full.events[0].attributes.append(attribute("exception.type", "E"))
    full.links.add(trace_id=OTHER, span_id=b"8 bytes.", trace_state="c=d", flags=1)
    full.links[0].attributes.append(attribute("why", "because"))
    request = request_of(full, span(2, 1))
    resource = request.resource_spans[0].resource
    resource.dropped_attributes_count = 5
    resource.entity_refs.add(schema_url="s", type="service", id_keys=["service.name"])
    scope = request.resource_spans[0].scope_spans[0]
    scope.schema_url, scope.scope.version, scope.scope.dropped_attributes_count = "u", "1", 6
    scope.scope.attributes.append(attribute("in", "scope"))
    return request


def written(folder: Path, *requests: ExportTraceServiceRequest, form: str = "json") -> Path:
    """A file of these requests: json, proto (all in one message) or framed."""
    path = folder / f"capture.{form}"
    if form == "json":
        path.write_bytes(b"".join(otlp_json.encode(r) + b"\n" for r in requests))
    elif form == "framed":
        path.write_bytes(b"".join(otlp_proto.frame(r.SerializeToString()) for r in requests))
    else:
        path.write_bytes(b"".join(r.SerializeToString() for r in requests))
    return path


FORMS = ["json", "proto", "framed"]


def test_json_keeps_everything() -> None:
    """A request goes into a line of JSON and comes back with every field as it was."""
    line = otlp_json.encode(rich())
    assert OtlpJsonReader().decode(line) == rich()
    first = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert first["traceId"] == TRACE.hex() and first["spanId"] == "01" * 8
    assert first["startTimeUnixNano"] == str(BEGIN + 1000) and first["kind"] == 2
    assert first["links"][0]["spanId"] == b"8 bytes.".hex()


def test_json_as_others_write_it() -> None:
    """Numbers for text and text for numbers, names of enums, nulls and unknown names are taken."""
    text = """{"resourceSpans": [{"new": [1, {"x": null}], "resource": null, "scopeSpans": [
      {"spans": [{"traceId": "0102030405060708090A0B0C0D0E0F10", "spanId": "0101010101010101",
      "parentSpanId": "", "kind": "SPAN_KIND_CLIENT", "status": {"code": "STATUS_CODE_OK"},
      "startTimeUnixNano": 1700000000000000000, "attributes": [{"key": "n",
      "value": {"intValue": 7}}, {"key": "d", "value": {"doubleValue": "NaN"}}]}]}]}]}"""
    (found,) = spans_of(OtlpJsonReader().decode(text.encode()))
    assert (found.kind, found.status.code) == (Span.SPAN_KIND_CLIENT, Status.STATUS_CODE_OK)
    assert found.trace_id == TRACE and found.start_time_unix_nano == BEGIN
    assert found.attributes[0].value.int_value == 7
    assert found.attributes[1].value.double_value != found.attributes[1].value.double_value


@pytest.mark.parametrize("form", FORMS)
def test_a_trace_from_several_requests(tmp_path: Path, form: str) -> None:
    """Spans find each other across requests; relations and times stay, and all else with them."""
    child = span(2, 1)
    child.links.add(trace_id=TRACE, span_id=b"\x01" * 8)
    child.links.add(trace_id=OTHER, span_id=b"\x01" * 8)
    child.events.add(name="e", time_unix_nano=BEGIN + 2500)
    later = request_of(span(1, attributes=[attribute("key", "value")]), service="front")
    capture = read(str(written(tmp_path, request_of(child), later, form=form)))
    (shape,) = capture.shapes
    kept, root = spans_of(shape.request)
    assert (kept.trace_id, root.trace_id) == (TRACE_PLACEHOLDER, TRACE_PLACEHOLDER)
    assert (kept.span_id, root.span_id) == (placeholder_id(0), placeholder_id(1))
    assert (kept.parent_span_id, root.parent_span_id) == (placeholder_id(1), b"")
    assert [link.span_id for link in kept.links] == [placeholder_id(1), b"\x01" * 8]
    assert [link.trace_id for link in kept.links] == [TRACE_PLACEHOLDER, OTHER]
    assert root.attributes == [attribute("key", "value")]
    assert shape.starts.tolist() == [[1000, 0]] and shape.ends.tolist() == [[8000, 8000]]
    assert shape.events.tolist() == [[1500]]
    services = [r.resource.attributes[0].value.string_value for r in shape.request.resource_spans]
    assert services == ["shop", "front"] and capture.notes == []
    assert shape.request.resource_spans[0].schema_url and shape.places == (1, 1, 1)


@pytest.mark.parametrize("form", ["proto", "framed"])
def test_unknown_fields_of_protobuf_stay(tmp_path: Path, form: str) -> None:
    """A field that this version of OTLP does not know is sent on."""
    unknown = b"\xba\x3e\x03new"  # field 999, three bytes
    one = span(1)
    one.MergeFromString(unknown)
    request = request_of(one)
    request.resource_spans[0].MergeFromString(unknown)
    capture = read(str(written(tmp_path, request, form=form)))
    assert capture.shapes[0].request.SerializeToString().count(unknown) == 2


def test_absent_parents_have_one_id(tmp_path: Path) -> None:
    """Parents and linked spans that are not in the file keep an ID of their own, the same for all
    that name it, and no span's."""
    one, two = span(1, 7), span(2, 7)
    two.links.add(trace_id=TRACE, span_id=b"\x07" * 8)
    capture = read(str(written(tmp_path, request_of(one, two, span(3, 8)))))
    first, second, third = spans_of(capture.shapes[0].request)
    assert first.parent_span_id == second.parent_span_id == second.links[0].span_id
    assert third.parent_span_id not in (first.parent_span_id, b"")
    assert int.from_bytes(first.parent_span_id, "big") > 2**32
    assert capture.notes == ["4 parents and linked spans that are not in the file"]


def test_spans_that_are_their_own_ancestors(tmp_path: Path) -> None:
    """Circles among the parents are kept and hurt nothing."""
    capture = read(str(written(tmp_path, request_of(span(1, 2), span(2, 1), span(3, 3)))))
    parents = [s.parent_span_id for s in spans_of(capture.shapes[0].request)]
    assert parents == [placeholder_id(1), placeholder_id(0), placeholder_id(2)]


def test_what_is_mended_is_noted(tmp_path: Path) -> None:
    """Duplicates, backward spans, events without times and mad clocks are noted, not refused."""
    backward = span(1, end_time_unix_nano=BEGIN)
    backward.events.add(name="when?")
    mad = span(1, trace=OTHER, end_time_unix_nano=2 * BEGIN)
    path = written(tmp_path, request_of(backward, span(1)), ExportTraceServiceRequest())
    path.write_bytes(path.read_bytes() + otlp_json.encode(request_of(mad)) + b"\n")
    capture = read(str(path))
    assert sorted(capture.notes) == [
        "1 events without a time, sent with their span's start",
        "1 records without spans left out",
        "1 spans that end before they start, sent without a duration",
        "1 spans whose ID their trace already has left out",
        "1 traces longer than 7 days left out",
    ]
    assert capture.shapes[0].ends.tolist() == [[0]]


def test_the_same_trace_again_is_one_shape(tmp_path: Path) -> None:
    """Traces that are the same but for IDs and times are one shape with a timing for each; what
    varies is told for traces with the same tree, in whatever order their spans came."""
    requests = []
    for number in range(12):
        trace = bytes([number + 1] * 16)
        root = span(1, trace=trace, end_time_unix_nano=BEGIN + 10_000 + number)
        child = span(2, 1, trace=trace, attributes=[attribute("user", str(number % 3))])
        requests.append(request_of(*((root, child) if number % 2 else (child, root))))
    capture = read(str(written(tmp_path, *requests)))
    assert [shape.weight for shape in capture.shapes] == [2] * 6
    assert all(shape.starts.shape == (2, 2) for shape in capture.shapes)
    (pattern,) = capture.patterns
    assert (pattern.traces, pattern.spans, pattern.depth) == (12, 2, 2)
    ((key, values),) = pattern.varying()
    assert key == ("shop", "operation 2", "user") and len(values.distinct) == 3


def test_more_traces_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit, a trace counts for one with the same tree; one of another is left out."""
    monkeypatch.setattr("blaster.payload.capture.capture.MAX_SHAPES", 2)
    requests = [
        request_of(
            span(1, trace=bytes([i + 1] * 16), attributes=[attribute("i", str(i))], name=name)
        )
        for i, name in enumerate("aaaab")
    ]
    capture = read(str(written(tmp_path, *requests)))
    assert [shape.weight for shape in capture.shapes] == [3, 1]
    assert capture.notes == [
        "2 traces for which another of the same tree is sent",
        "1 traces beyond the first 2 left out",
    ]


def test_jaeger(tmp_path: Path) -> None:
    """A Jaeger export becomes what Jaeger was sent: kinds, status, events, links, scopes, types."""
    capture = read(str(CAPTURES / "jaeger.json"))
    assert (capture.format, capture.traces, capture.spans) == ("Jaeger JSON", 1, 3)
    (shape,) = capture.shapes
    assert shape.starts.tolist() == [[0, 1_000_000, 3_000_000]]
    assert shape.ends.tolist() == [[5_000_000, 3_500_000, 4_000_000]]
    assert shape.events.tolist() == [[2_000_000]]
    server, client, charge = spans_of(shape.request)
    assert (server.kind, server.flags, server.trace_state) == (Span.SPAN_KIND_SERVER, 1, "v=1")
    kinds = {a.key: a.value.WhichOneof("value") for a in server.attributes}
    assert kinds == {
        "http.response.status_code": "int_value",
        "sampler.param": "double_value",
        "cached": "bool_value",
        "token": "bytes_value",
        "big": "int_value",
    }
    assert {a.key: a.value.int_value for a in server.attributes}["big"] == 2**53 + 1
    assert server.links[0].trace_id.hex() == "99aa".rjust(32, "0")
    assert client.parent_span_id == placeholder_id(0)
    assert [link.span_id for link in client.links] == [placeholder_id(2)]
    assert client.status == Status(code=Status.STATUS_CODE_ERROR, message="deadlock")
    assert not client.attributes and client.events[0].name == "exception"
    assert client.events[0].attributes == [attribute("exception.type", "Deadlock")]
    assert charge.parent_span_id not in (b"", placeholder_id(0), placeholder_id(1))
    scopes = [(s.scope.name, s.scope.version) for s in shape.request.resource_spans[0].scope_spans]
    assert scopes == [("", ""), ("db", "1.2")]
    process = shape.request.resource_spans[0].resource.attributes
    assert process == [attribute("service.name", "shop"), attribute("host.name", "one")]
    # The same file on one line, as Jaeger's API gives it.
    line = tmp_path / "line"
    line.write_text(json.dumps(json.loads((CAPTURES / "jaeger.json").read_text())))
    assert read(str(line)).shapes[0].request == shape.request


SAVED = [
    # name, format, service, the spans' names, the parents by their numbers
    ("ils.json", "OTLP JSON lines", "", ["op"], [-1]),
    ("snake.json", "OTLP JSON lines", "x", ["Simple"], [-1]),
    ("tempo-batches.json", "OTLP JSON lines", "s", ["x"], [-1]),
    ("base64-ids.json", "OTLP JSON lines", "shop", ["GET /orders", "SELECT"], [-1, 0]),
    ("jaeger-api-v3.json", "OTLP JSON lines", "shop", ["GET /orders", "SELECT"], [-1, 0]),
    ("jaeger-bare.json", "Jaeger JSON", "shop", ["GET /orders", "SELECT"], [-1, 0]),
    ("jaeger-data-object.json", "Jaeger JSON", "shop", ["GET /orders", "SELECT"], [-1, 0]),
    ("jaeger-list.json", "Jaeger JSON", "shop", ["GET /orders", "SELECT"], [-1, 0]),
    ("jaeger-ref-empty-trace.json", "Jaeger JSON", "svc", ["o", "o"], [-1, 0]),
    ("jaeger64in128.json", "Jaeger JSON", "svc", ["o", "o"], [-1, 0]),
    ("group.pb", "OTLP protobuf", "svc", ["op"], [-1]),
]


@pytest.mark.parametrize(("name", "form", "service", "names", "parents"), SAVED)
def test_traces_as_people_have_saved_them(
    name: str, form: str, service: str, names: list[str], parents: list[int]
) -> None:
    """Traces from Jaeger, Tempo and older versions of OTLP are read whole, each as one trace."""
    capture = read(str(CAPTURES / name))
    (shape,) = capture.shapes
    assert (capture.format, capture.traces, capture.notes) == (form, 1, [])
    assert capture.patterns[0].services == (service,)
    spans = list(spans_of(shape.request))
    assert [span.name for span in spans] == names
    wanted = [b"" if parent < 0 else placeholder_id(parent) for parent in parents]
    assert [span.parent_span_id for span in spans] == wanted
    assert not any(span.links for span in spans)


@pytest.mark.parametrize("name", [name for name, *_ in SAVED])
def test_what_is_inspected_is_sent(name: str) -> None:
    """A file that can be read can be sent, in protobuf and in JSON."""
    (shape,) = read(str(CAPTURES / name)).shapes
    built = build([shape], [[]], "gateway")
    assert len(built.variants[0].spans) == shape.spans
    assert json_template(built).variants[0].spans == built.variants[0].spans


def test_wrapped_in_lines_and_in_whole(tmp_path: Path) -> None:
    """Jaeger's API v3 streams an object a line; Tempo's v2 has more than the trace in it."""
    line = (CAPTURES / "jaeger-api-v3.json").read_bytes().strip()
    other = line.replace(b"0102030405060708090a", b"1102030405060708090a")
    lines, tempo = tmp_path / "lines", tmp_path / "tempo"
    lines.write_bytes(line + b"\n" + other + b"\n")
    tempo.write_bytes(b'{"metrics":{},"trace":' + line.removeprefix(b'{"result":'))
    assert read(str(lines)).traces == 2
    assert read(str(tempo)).shapes[0].request == read(str(lines)).shapes[0].request


def test_halves_of_trace_ids_that_two_traces_share_are_not_joined(tmp_path: Path) -> None:
    """Which of two traces a span of 64 bits belongs to nobody knows."""
    half = JAEGER_SPAN.replace('"1"', '"%s"') % ("%s", "")
    ids = ["a" + "1".rjust(31, "0"), "b" + "1".rjust(31, "0"), "1"]
    path = tmp_path / "halves"
    path.write_text(JAEGER % ",".join(half % trace_id for trace_id in ids))
    assert read(str(path)).traces == 3
    path.write_text(JAEGER % ",".join(half % i for i in ids[1:]).replace('"2"', '"3"', 1))
    assert (read(str(path)).traces, read(str(path)).spans) == (1, 2)


SPAN_JSON = (
    '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0102030405060708090a0b0c0d0e0f10",'
    '"spanId":"0101010101010101","startTimeUnixNano":"1"%s}]}]}]}'
)
IN_SPAN = "$.resourceSpans[0].scopeSpans[0].spans[0]"
JAEGER = '{"data":[{"spans":[%s],"processes":{"p":{"serviceName":"s","tags":[]}}}]}'
JAEGER_SPAN = (
    '{"traceID":"1","spanID":"2","operationName":"o","startTime":1,"duration":1,"processID":"p"%s}'
)


def span_json(more: str) -> bytes:
    return (SPAN_JSON % f",{more}").encode()


def jaeger(more: str, span: str = JAEGER_SPAN) -> bytes:
    return (JAEGER % (span % more)).encode()


GOOD = (SPAN_JSON % "").encode() + b"\n"
WANTED = "must be OTLP JSON lines, OTLP protobuf or a Jaeger JSON export"
PROTO = request_of(span(1), span(2, 1)).SerializeToString()
NESTED = '{"arrayValue":{"values":[' * 40 + "{}" + "]}}" * 40

HOSTILE: list[tuple[bytes, str]] = [
    (b"", f": empty: {WANTED}"),
    (b"\n \n", ": has no spans"),
    (b"hello", f": begins with b'hello': {WANTED}"),
    (b"[{}]", ": has no spans; 1 records without spans left out"),
    (b"[5]", ": $[0]: must be object, not int"),
    (b"[" * 100_000, ": $[0]: must be object, not array"),
    (b"\x1f\x8b\x08", ": compressed with gzip: unpack it first"),
    (b"\x28\xb5\x2f\xfd", ": compressed with zstd: unpack it first"),
    (b"{}", ": has no spans; 1 records without spans left out"),
    (b'{"resourceMetrics":[]}\n', ": has no spans; 1 records without spans left out"),
    (b'{"resourceSpans":[', ": not JSON: cut short"),
    (b"{" * 100_000, ": not JSON: object keys must be strings (byte 1)"),
    (b'{"a":' * 100_000, ": nested too deep"),
    (GOOD + b'{"a":' * 100_000, ":2: nested too deep"),
    (GOOD + b'{"resourceSpans":[{"sco', ":2: not JSON: cut short"),
    (GOOD + b"\n\n{]\n", ":4: not JSON: object keys must be strings (byte 1)"),
    (GOOD + b'{"resourceSpans":"\xff"}\n', ":2: not JSON: not UTF-8 text"),
    (GOOD + b'{"resourceSpans":[{"schemaUrl":"\xff"}]}\n', ":2: not JSON: not UTF-8 text"),
    (span_json('"kind":"SPAN_KIND_NONE"'), f":1: {IN_SPAN}.kind: must be an integer from "
     "-2147483648 to 2147483647, not 'SPAN_KIND_NONE'"),
    (span_json('"flags":-1'), f":1: {IN_SPAN}.flags: must be an integer from 0 to 4294967295, "
     "not -1"),
    (span_json('"endTimeUnixNano":"1e9"'), f":1: {IN_SPAN}.endTimeUnixNano: must be an integer "
     "from 0 to 18446744073709551615, not '1e9'"),
    (span_json('"endTimeUnixNano":18446744073709551616'), f":1: {IN_SPAN}.endTimeUnixNano: must "
     "be an integer from 0 to 18446744073709551615, not 18446744073709551616"),
    (span_json('"name":7'), f":1: {IN_SPAN}.name: must be str, not int"),
    (span_json('"parentSpanId":"xyz"'), f":1: {IN_SPAN}.parentSpanId: must be 16 hexadecimal "
     "digits, not 'xyz'"),
    (span_json('"attributes":[{"value":{"intValue":1,"boolValue":true}}]'),
     f":1: {IN_SPAN}.attributes[0].value: more than one value: bool_value, int_value"),
    (span_json('"attributes":[{},{"value":{"bytesValue":"!"}}]'),
     f":1: {IN_SPAN}.attributes[1].value.bytesValue: must be base64, not '!'"),
    (span_json(f'"attributes":[{{"value":{NESTED}}}]'), f":1: {IN_SPAN}.attributes[0].value"
     + ".arrayValue.values[0]" * 31 + ": values within values, more than 30 deep"),
    (GOOD.replace(b"0101010101010101", b"0000000000000000"), ":1: resourceSpans[0]."
     "scopeSpans[0].spans[0]: span ID: must be 8 bytes, not all 0, not 0000000000000000"),
    (GOOD.replace(b'"1"', b'"0"'), ":1: resourceSpans[0].scopeSpans[0].spans[0]: has no start "
     "time"),
    (b'{"data":5}', ": $.data: must be object | array, not int"),
    (b'{"spans":7}', ": $.spans: must be array, not int"),
    (b'[{"spans":[7]}]', ": $[0].spans[0]: must be object, not int"),
    (jaeger("")[8:-1].replace(b'"p"', b'"q"', 1), ": $[0].spans[0].processID: must be one of the "
     "trace's processes, not 'q'"),
    (jaeger("")[9:-2].replace(b'"p"', b'"q"', 1), ": $.spans[0].processID: must be one of the "
     "trace's processes, not 'q'"),
    (GOOD.replace(b"0101010101010101", b"AQEBAQEBAQE="), f":1: {IN_SPAN}.spanId: must be 16 "
     "hexadecimal digits, not 'AQEBAQEBAQE='"),
    (GOOD.replace(b"0102030405060708090a0b0c0d0e0f10", b"AQIDBAUGBwgJCgsMDQ4PEA=="),
     f":1: {IN_SPAN}.spanId: must be base64 as the IDs before it, not '0101010101010101'"),
    (GOOD.replace(b"0101010101010101", b"AQEBAQEBAQEB"), f":1: {IN_SPAN}.spanId: must be 16 "
     "hexadecimal digits, not 'AQEBAQEBAQEB'"),
    (b'{"result":' * 100_000, ": nested too deep"),
    (b'{"data":[]}', ": has no spans; 1 records without spans left out"),
    (jaeger(',"processID":"q"'), ": $.data[0].spans[0].processID: must be one of the trace's "
     "processes, not 'q'"),
    (jaeger(',"startTime":-1'), ": $.data[0].spans[0].startTime: must be microseconds from 0 to "
     "9223372036854774, not -1"),
    (jaeger(',"spanID":"12345678901234567"'), ": $.data[0].spans[0].spanID: must be up to 16 "
     "hexadecimal digits, not '12345678901234567'"),
    (jaeger(',"spanID":"0"'), ": resourceSpans[0].scopeSpans[0].spans[0]: span ID: must be 8 "
     "bytes, not all 0, not 0000000000000000"),
    (jaeger(',"tags":[{"key":"k","type":"int64","value":1e400}]'),
     ": $.data[0].spans[0].tags[0].value: Number out of range"),
    (jaeger("")[:-9], ": not JSON: cut short"),
    (PROTO[:-1], f": byte 0: cut short: {len(PROTO) - 4} of {len(PROTO) - 3} bytes"),
    (PROTO + b"\x0a", f": byte {len(PROTO)}: cut short, or a varint that does not end"),
    (PROTO + b"\x0a\xff\xff\xff\xff\x0f", f": byte {len(PROTO)}: a message of 4,294,967,295 "
     "bytes: must be at most 16,777,216"),
    (PROTO.replace(b"a scope", b"\xff scope"), f": byte {PROTO.index(b'a scope')}: not OTLP: "
     "InstrumentationScope.name is not UTF-8"),
    (PROTO + b"\x0b", f": byte {len(PROTO)}: not OTLP: wire type 3 has no place here"),
    (PROTO.replace(b"a scope", b"\xff scope", 1)[:0] + b"\x0a\x02\x12\x7f",
     ": byte 2: not OTLP: a ResourceSpans with a field that does not fit or does not end"),
    (otlp_proto.frame(PROTO) + b"\0\0", f": byte {len(PROTO) + 4}: cut short: 2 of a length's 4 "
     "bytes"),
    (otlp_proto.frame(PROTO) + struct.pack(">I", 9), f": byte {len(PROTO) + 4}: cut short: 0 of "
     "9 bytes"),
    (struct.pack(">I", 64 << 20), ": byte 0: a message of 67,108,864 bytes: must be at most "
     "16,777,216"),
    (otlp_proto.frame(b""), ": has no spans; 1 records without spans left out"),
    (PROTO.replace(TRACE, bytes(16)), ": byte 0: resourceSpans[0].scopeSpans[0].spans[0]: trace "
     "ID: must be 16 bytes, not all 0, not " + "00" * 16),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), HOSTILE, ids=[m[:70] for _, m in HOSTILE])
def test_hostile_files(tmp_path: Path, data: bytes, message: str) -> None:
    """Each fault is told in one line: the file, the place in it, and what is wrong."""
    path = tmp_path / "hostile"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read(str(path))
    assert str(caught.value).removeprefix(str(path)) == message


def test_what_is_no_file(tmp_path: Path) -> None:
    """Folders, absent files and names that are none are refused as such."""
    for path, why in (
        (str(tmp_path), "not a file"),
        (str(tmp_path / "absent"), "cannot be read: No such file or directory"),
        ("/dev/zero", "not a file"),
        ("a\0b", "cannot be read: not a file name"),
    ):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert str(caught.value).endswith(f": {why}")


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, lines, spans of a file and spans of a trace have limits that name their place."""
    path = written(tmp_path, request_of(span(1), span(2, 1)), request_of(span(3, 1)))
    for module, name, value, message in (
        (capture_file, "MAX_FILE_BYTES", 100, "bytes: must be at most 100: cut it at a record's"),
        (capture_file, "MAX_RECORD_BYTES", 100, "capture.json:1: more than 100 bytes of JSON"),
        (traces, "MAX_FILE_SPANS", 2, "capture.json:2: resourceSpans[0].scopeSpans[0].spans[0]: "
         "the file has more than 2 spans"),
        (traces, "MAX_FILE_RECORDS", 1, "capture.json:2: the file has more than 1 records"),
        (traces, "MAX_SPANS", 2, f"trace {TRACE.hex()} has more than 2 spans"),
    ):  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(module, name, value)
            with pytest.raises(UsageError) as caught:
                read(str(path))
        assert message in str(caught.value)


def seeds() -> list[bytes]:
    jaeger_export = json.dumps(json.loads((CAPTURES / "jaeger.json").read_text())).encode()
    message = rich().SerializeToString()
    return [
        otlp_json.encode(rich()) + b"\n" + otlp_json.encode(request_of(span(3, 1))) + b"\n",
        jaeger_export,
        message,
        otlp_proto.frame(message) + otlp_proto.frame(PROTO),
    ]


SEEDS = seeds()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid file with some of its bytes changed, doubled, moved or cut off."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        width = draw(st.integers(0, 40))
        kind = draw(st.sampled_from(["put", "cut", "double", "swap"]))
        if kind == "put":
            tokens = (
                b"null",
                b"[]",
                b"{}",
                b'""',
                b"-1",
                b"1e999",
                b'"\\ud800"',
                b"9" * 25,
                b"\xff",
            )
            data[at : at + width % 4] = draw(st.sampled_from(tokens) | st.binary(max_size=8))
        elif kind == "cut":
            del data[at : at + width]
        elif kind == "double":
            data[at:at] = data[at : at + width]
        else:
            other = draw(st.integers(0, len(data)))
            data[at : at + width] = data[other : other + width]
    return bytes(data)


def try_to_read(folder: Path, data: bytes) -> Capture | None:
    path = folder / "fuzzed"
    path.write_bytes(data)
    try:
        return read(str(path))
    except UsageError as error:
        text = str(error)
        assert text.isprintable() and text.startswith(str(path)) and len(text) < 2000
        return None


@given(mutated())
def test_mutated_files_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    """A file with any change to it is read or refused in one line; and what is read are shapes
    that hold what Shape promises."""
    capture = try_to_read(tmp_path_factory.getbasetemp(), data)
    for shape in capture.shapes if capture is not None else ():
        spans = list(spans_of(shape.request))
        assert [s.span_id for s in spans] == [placeholder_id(i) for i in range(len(spans))]
        assert {s.trace_id for s in spans} == {TRACE_PLACEHOLDER}
        assert shape.starts.shape == shape.ends.shape and shape.spans == len(spans)
        assert shape.events.shape[1] == sum(len(s.events) for s in spans)
        assert (shape.starts >= 0).all() and (shape.ends >= shape.starts).all()
        assert (shape.events >= 0).all() and shape.weight >= len(shape.starts)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    """Any bytes whatever give a capture or an error of one line."""
    try_to_read(tmp_path_factory.getbasetemp(), data)


def test_inspect(tmp_path: Path) -> None:
    """The table and the JSON say shapes, sizes, spans, slots and what varies."""
    requests = [
        request_of(
            span(1, trace=bytes([i + 1] * 16)),
            span(2, 1, trace=bytes([i + 1] * 16), attributes=[attribute("user", f"u{i}")]),
        )
        for i in range(5)
    ]
    path = written(tmp_path, *requests, request_of(span(3)))
    shown = cli.blaster("templates", "inspect", str(path))
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert lines[0].endswith("OTLP JSON lines, 6 traces, 11 spans; sent as 6 templates")
    assert lines[3].split()[:8] == ["1", "5", "2", "2", "1", "0", "0", "9"]
    assert lines[3].endswith("shop: operation 1")
    assert lines[-1].split() == ["1", "shop", "operation", "2", "user", "5"]
    found = json.loads(cli.blaster("templates", "inspect", str(path), "--json").stdout)
    assert (found["format"], found["templates"], found["notes"]) == ("OTLP JSON lines", 6, [])
    first = found["shapes"][0]
    assert first["varying"] == [
        {"service": "shop", "span": "operation 2", "attribute": "user", "distinct": 5}
    ]
    size = len(requests[0].SerializeToString())
    assert first["bytes"] == {"min": size, "avg": size, "max": size}
    assert (first["slots"], first["services"], first["duration_ms"]) == (9, ["shop"], 0.008)
    refused = cli.blaster("templates", "inspect", str(tmp_path / "absent"))
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["sent.jsonl", "sent.pb"])
def test_recording_reads_back(tmp_path: Path, name: str) -> None:
    """A recording is read back to the span; a half-written record is cut off."""
    path = tmp_path / name
    path.write_text("what was there before")
    recording = BatchCapture(str(path))
    payloads = [request_of(span(i, trace=bytes([i] * 16))) for i in range(1, 9)]
    recording.add((request.SerializeToString(), 1) for request in payloads)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b"half a record")
    recording.close()
    assert path.read_bytes() == whole
    assert "8 spans in 8 requests" in recording.summary()
    capture = read(str(path))
    assert (capture.traces, capture.spans, capture.records, capture.notes) == (8, 8, 8, [])


def test_recording_ends_at_its_limit(tmp_path: Path) -> None:
    """Past the limit nothing more is written, and what is missing is counted and said."""
    path = tmp_path / "sent.pb"
    one = request_of(span(1)).SerializeToString()
    recording = BatchCapture(str(path), most=3 * len(one))
    recording.add([(one, 1)] * 4)
    recording.add([(b"", 1)])
    recording.close()
    assert path.stat().st_size == 2 * (len(one) + 4)
    assert recording.summary().endswith("3 spans that were sent are not in it: the limit of 432 B")


def test_recording_that_cannot_be_written(tmp_path: Path) -> None:
    """Folders, pipes and places without permission are refused before the run."""
    for path in (tmp_path, tmp_path / "absent" / "file", Path("/dev/null")):
        with pytest.raises(UsageError, match=r"^--record '"):
            BatchCapture(str(path))


def traces_of(path: Path) -> Counter[tuple[Any, ...]]:
    """The traces of a captured file, all but their IDs and when they began."""
    collected = traces.Traces.of(capture_file.records(str(path)))
    return Counter(
        (
            trace.request.SerializeToString(deterministic=True),
            *(tuple(times.tolist()) for times in (trace.starts, trace.ends, trace.events)),
        )
        for trace in collected
    )


@pytest.mark.parametrize("layout", ["gateway", "scattered"])
def test_real_traces_there_and_back(tmp_path: Path, collector_binary: Path, layout: str) -> None:
    """Traces of an OpenTelemetry program, as a Collector wrote them, are sent to a Collector with
    fresh IDs and times, and what that one writes is the same but for those."""
    real, back = tmp_path / "real.json", tmp_path / "back.json"
    with peers.collector(collector_binary, file=real) as target:
        program = [sys.executable, CAPTURES / "program.py", target.endpoint]
        subprocess.run(program, check=True, timeout=60)
    original = read(str(real))
    assert (original.traces, original.spans, original.notes) == (6, 30, [])
    assert sorted(p.traces for p in original.patterns) == [1, 1, 4]
    with peers.collector(collector_binary, file=back) as target:
        ran = cli.blaster(
            *("run", "--template", str(real), "--endpoint", target.endpoint, "--rate", "600"),
            *("--duration", "1s", "--workers", "2", "--layout", layout, "--quiet"),
            *("--json", str(tmp_path / "r.json")),
        )
        assert ran.returncode == 0, ran.stderr
    results = cli.results(tmp_path / "r.json")
    assert results["spans"]["accepted"] == 600 and results["configuration"]["layout"] == layout
    assert results["violations"]["injected"] == 20  # one trace in six has an error
    sent, wanted = traces_of(back), traces_of(real)
    assert sent.total() == 120
    if layout == "scattered":
        sent, wanted = in_any_order(sent), in_any_order(wanted)
    assert sent == Counter(dict.fromkeys(wanted, 20))


def in_any_order(found: Counter[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    """Traces by their sizes and times, whatever the order of their spans."""
    merged: Counter[tuple[Any, ...]] = Counter()
    for (request, *times), count in found.items():
        merged[len(request), *(tuple(sorted(row)) for row in times)] += count
    return merged


@pytest.mark.parametrize("name", ["sent.json", "sent.pb"])
def test_record_and_send_again(tmp_path: Path, name: str) -> None:
    """Every span of a run stands in its recording to the span, and is sent again as it was."""
    path, out = tmp_path / name, tmp_path / "r.json"
    common = ["--embedded", "--quiet", "--json", str(out), "--rate", "1000", "--duration", "1s"]
    ran = cli.blaster(
        *("run", *common, "--spans-per-trace", "4", "--workers", "2", "--record", str(path))
    )
    assert ran.returncode == 0, ran.stderr
    sent = cli.results(out)
    assert sent["spans"]["accepted"] == 1000
    (note,) = sent["notes"]
    assert note.startswith(f"recorded {path}: 1,000 spans in {sent['requests']['sent']} requests")
    first = read(str(path))
    assert (first.traces, first.spans, first.records) == (250, 1000, sent["requests"]["sent"])
    assert (first.format == "OTLP JSON lines") == (name == "sent.json") and not first.notes
    again = tmp_path / f"again-{name}"
    ran = cli.blaster("run", *common, "--template", str(path), "--record", str(again))
    assert ran.returncode == 0, ran.stderr
    results = cli.results(out)
    assert results["spans"]["accepted"] == results["sink"]["spans"] == 1000
    # The violations that were recorded, of which the sink sees every one.
    assert results["violations"]["injected"] == sent["violations"]["injected"] == 25
    assert results["violations"]["detected"] == 25
    assert {key[0] for key in traces_of(again)} == {key[0] for key in traces_of(path)}


def test_a_run_of_traces_with_absent_parents_and_circles(tmp_path: Path) -> None:
    """Broken traces are sent as they were, violations and all."""
    circle = [span(1, 2, OTHER), span(2, 1, OTHER)]
    path, out = written(tmp_path, request_of(span(1, 7), span(2, 1), *circle)), tmp_path / "r"
    again = tmp_path / "again.pb"
    ran = cli.blaster(
        *("run", "--template", str(path), "--embedded", "--rate", "400", "--duration", "1s"),
        *("--violation-rate", "0.1", "--record", str(again), "--json", str(out)),
    )
    assert ran.returncode == 0, ran.stderr
    assert "1 parents and linked spans that are not in the file" in ran.stdout
    results = cli.results(out)
    assert results["sink"]["spans"] == 400
    assert results["violations"]["injected"] == results["violations"]["detected"] == 20
    (note,) = read(str(again)).notes
    assert re.fullmatch("10[01] parents and linked spans that are not in the file", note)


def test_recording_of_an_interrupted_run(tmp_path: Path) -> None:
    """After Ctrl-C the recording holds whole records, as many spans as were sent."""
    path, out = tmp_path / "sent.jsonl", tmp_path / "r.json"
    running = cli.start(
        *("run", "--rate", "max", "--duration", "60s", "--embedded", "--record", str(path)),
        *("--json", str(out), "--workers", "2"),
    )
    until = time.monotonic() + 30
    while not path.exists() or path.stat().st_size == 0:
        assert time.monotonic() < until and running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 130, errors
    results = cli.results(out)
    assert results["notes"][0].startswith(f"recorded {path}: {results['spans']['sent']:,} spans")
    lines = path.read_bytes().splitlines()
    assert len(lines) == results["requests"]["sent"] > 0
    assert (
        sum(len(list(spans_of(OtlpJsonReader().decode(line)))) for line in lines)
        == results["spans"]["sent"]
    )


def test_record_limit(tmp_path: Path) -> None:
    """A recording stops at its limit, says so, and the run goes on."""
    path, out = tmp_path / "sent.pb", tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--rate", "1000", "--duration", "1s", "--embedded", "--quiet"),
        *("--record", str(path), "--record-limit", "50kB", "--json", str(out)),
    )
    assert ran.returncode == 0, ran.stderr
    results = cli.results(out)
    assert results["spans"]["accepted"] == 1000
    (note,) = results["notes"]
    kept = read(str(path)).spans
    assert f"{kept:,} spans" in note and path.stat().st_size <= 50_000
    assert note.endswith(
        f"{1000 - kept:,} spans that were sent are not in it: the limit of 50.0 kB"
    )


WRONG_USE = [
    (["--template", "F", "--workload", "flat"], "--workload 'flat': cannot be used with "
     "--template, which says itself what the traces are"),
    (["--template", "F", "--spans-per-trace", "3"], "--spans-per-trace 3: cannot be used with "
     "--template, which says itself what the traces are"),
    (["--template", "F", "--record", "F"], "--record 'F': is --template too"),
    (["--record-limit", "1MB"], "--record-limit '1MB': needs --record"),
    (["--record", "R", "--record-limit", "x"], "--record-limit 'x': must be a whole number of "
     "bytes above 0, such as 512, 64kB, 100MB or 4MiB"),
    (["--record", "absent/R", "--transport", "null"], "--record 'absent/R': cannot be written: No "
     "such file or directory"),
    (["--template", "absent"], "absent: cannot be read: No such file or directory"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), WRONG_USE)
def test_wrong_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    """Options that contradict each other are refused in one line, and no file is touched."""
    written(tmp_path, request_of(span(1))).rename(tmp_path / "F")
    before = (tmp_path / "F").read_bytes()
    monkeypatch.chdir(tmp_path)
    ran = cli.blaster("run", *options)
    # What the run would have sent may stand before it.
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (2, f"blaster: {message}")
    assert (tmp_path / "F").read_bytes() == before and not (tmp_path / "R").exists()

"""The reader of OTLP/JSON that captured files are read with, against protobuf's own."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster.otlp.json_reader import to_protobuf

NAMES = (
    "resourceSpans scopeSpans spans traceId spanId attributes key value stringValue intValue "
    "kind links status code events"
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES.split(" ")), inner, max_size=4)
    ),
    max_leaves=30,
)


@given(values)
def test_any_json_is_converted_or_refused(document: object) -> None:
    """Any JSON becomes a message, or ValueError is raised."""
    try:
        data = to_protobuf(json.dumps(document).encode())
    except ValueError:
        return
    ExportTraceServiceRequest.FromString(data)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
scalars = (
    st.fixed_dictionaries({"stringValue": texts})
    | st.fixed_dictionaries({"boolValue": st.booleans()})
    | st.fixed_dictionaries({"intValue": st.integers(-(2**63), 2**63 - 1).map(str)})
    | st.fixed_dictionaries({"intValue": st.integers(-1000, 1000)})
    | st.fixed_dictionaries({"doubleValue": st.floats(allow_nan=False, allow_infinity=False)})
    | st.just({})
    | st.just({"arrayValue": {"values": [{"stringValue": "x"}]}})
)
pairs = st.lists(st.fixed_dictionaries({"key": texts, "value": scalars}), max_size=3)
times = st.integers(0, 2**64 - 1).map(str) | st.integers(0, 2**53)
spans = st.fixed_dictionaries(
    {
        "traceId": st.binary(min_size=16, max_size=16).map(bytes.hex),
        "spanId": st.binary(min_size=0, max_size=9).map(bytes.hex),
    },
    optional={
        "parentSpanId": st.binary(min_size=8, max_size=8).map(bytes.hex),
        "traceState": texts,
        "name": texts,
        "kind": st.integers(0, 5),
        "startTimeUnixNano": times,
        "endTimeUnixNano": times,
        "attributes": pairs,
        "status": st.fixed_dictionaries({}, optional={"code": st.integers(0, 2), "message": texts}),
        "flags": st.integers(0, 2**32 - 1),
        "events": st.just([{"name": "e", "timeUnixNano": "1"}]),
        "links": st.just([{"traceState": "a=b", "flags": 1, "attributes": [{"key": "k"}]}]),
        "droppedEventsCount": st.integers(0, 2**32 - 1),
    },
)
scopes = st.fixed_dictionaries(
    {"spans": st.lists(spans, max_size=3)},
    optional={
        "scope": st.fixed_dictionaries(
            {}, optional={"name": texts, "version": texts, "attributes": pairs}
        ),
        "schemaUrl": texts,
    },
)
resources = st.fixed_dictionaries(
    {"scopeSpans": st.lists(scopes, max_size=2)},
    optional={
        "resource": st.fixed_dictionaries({}, optional={"attributes": pairs}),
        "schemaUrl": texts,
    },
)


def by_protobuf(document: dict[str, Any]) -> bytes:
    """The bytes that protobuf's own JSON makes of OTLP's; its IDs are in base64."""
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return ParseDict(document, ExportTraceServiceRequest()).SerializeToString()


@given(st.lists(resources, max_size=2))
def test_json_becomes_the_bytes_that_protobufs_own_json_becomes(documents: object) -> None:
    document = {"resourceSpans": documents}
    assert to_protobuf(json.dumps(document).encode()) == by_protobuf(document)


def test_names_in_either_form_are_read_and_unknown_ones_ignored() -> None:
    """As the Collector does, which takes protobuf's own names, too."""
    span = {"traceId": "01" * 16, "spanId": "02" * 8, "name": "s", "endTimeUnixNano": "7"}
    document = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})
    asked = to_protobuf(document.encode())
    for camel in ("resourceSpans", "scopeSpans", "traceId", "spanId", "endTimeUnixNano"):
        snake = re.sub("[A-Z]", lambda c: "_" + c[0].lower(), camel)
        document = document.replace(f'"{camel}":', f'"{snake}":')
    document = document.replace('"name":', '"newName": {"a": [1, {"b": null}]}, "name":')
    assert to_protobuf(document.encode()) == asked

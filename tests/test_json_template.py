"""OTLP's JSON as it is stamped: the kernel against its twin, and against another reader of JSON."""

import base64
import dataclasses
import json
import struct
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.stamping import stamp
from test_capture import rich, written

from blaster import _native
from blaster.payload import flat, workload
from blaster.payload.capture import capture
from blaster.payload.columns import Columns, ColumnSource
from blaster.payload.mix import Mix
from blaster.payload.shape import Digits, Source
from blaster.payload.template import LAYOUTS, Encoding, Layout
from blaster.scenario.scenario import Workload
from tests.support import kernel_twin as twin

pytestmark = pytest.mark.native

ENCODINGS: tuple[Encoding, Encoding] = ("json", "protobuf")
ENDED = 1_800_000_000_000_000_000


@cache
def mix_of(name: str, layout: Layout, encoding: Encoding) -> Mix:
    chosen = Workload(name=name, layout=layout, violation_rate=Fraction(1, 10))
    return workload.mix(chosen, 1, encoding=encoding)


def columns_of(mix: Mix, first: int, counts: list[int], part: int) -> Columns:
    many = len(counts)
    firsts = np.cumsum([first, *counts[:-1]]).astype(np.int64)
    ended, parts = np.full(many, ENDED, np.int64), np.full(many, part, np.int64)
    return ColumnSource(7, mix).make(firsts, np.array(counts, np.int64), ended, parts=parts)


def stamped(mix: Mix, columns: Columns) -> list[bytes]:
    return stamp(mix.template, columns)


def read(batch: bytes) -> ExportTraceServiceRequest:
    """The batch as protobuf's own reader of JSON has it, which wants IDs in base64."""

    def rewritten(item: Any) -> Any:
        if isinstance(item, list):
            return [rewritten(i) for i in item]
        if not isinstance(item, dict):
            return item
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key in ("traceId", "spanId", "parentSpanId")
            else rewritten(value)
            for key, value in item.items()
        }

    text = json.dumps(rewritten(json.loads(batch)))
    return json_format.Parse(text, ExportTraceServiceRequest())


@settings(max_examples=40)
@given(
    st.sampled_from(["flat", "web-shop", "llm-agent"]),
    st.sampled_from(LAYOUTS),
    st.integers(0, 2**40),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.data(),
)
def test_json_says_what_protobuf_says(name, layout, first, counts, data):
    """Workloads in every layout are stamped as their twin does, into JSON that reads as the very
    same request as the protobuf of the same columns, in no more bytes than were promised."""
    mix, other = mix_of(name, layout, "json"), mix_of(name, layout, "protobuf")
    part = data.draw(st.integers(0, mix.parts - 1))
    columns = columns_of(mix, first, counts, part)
    batches = stamped(mix, columns)
    assert batches == twin.stamp(mix.template, columns)
    for batch, binary, count in zip(batches, stamped(other, columns), counts, strict=True):
        wanted = ExportTraceServiceRequest.FromString(binary)
        if not any(c.spans for r in wanted.resource_spans for c in r.scope_spans):
            wanted = ExportTraceServiceRequest()
            assert b"traceId" not in batch and json.loads(batch).keys() == {"resourceSpans"}
        else:
            assert read(batch) == wanted
        assert len(batch) <= mix.batch_bytes(count)


def test_the_encoding_is_otlps_own():
    """IDs in hexadecimal digits, enums as integers, 64-bit integers as strings, lowerCamelCase."""
    mix = mix_of("flat", "sdk", "json")
    (batch,) = stamped(mix, columns_of(mix, 0, [1], 0))
    span = json.loads(batch)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert span["kind"] == 2
    assert len(span["traceId"]) == 32 and len(span["spanId"]) == 16
    assert int(span["startTimeUnixNano"]) < int(span["endTimeUnixNano"]) <= ENDED
    assert span["attributes"][-1]["value"] == {"intValue": "200"}
    assert "parentSpanId" not in span


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_field_is_written(tmp_path: Path, layout: Layout) -> None:
    """A captured trace with every field and value that OTLP has says the same in JSON."""
    shapes = capture.read(str(written(tmp_path, rich()))).shapes
    mixes = [Mix(shapes, Fraction(0), layout, encoding) for encoding in ENCODINGS]
    for part in range(mixes[0].parts):
        columns = columns_of(mixes[0], 3, [2], part)
        (batch,), (binary,) = (stamped(mix, columns) for mix in mixes)
        wanted = ExportTraceServiceRequest.FromString(binary)
        if any(c.spans for r in wanted.resource_spans for c in r.scope_spans):
            assert read(batch) == wanted


@given(st.text(max_size=12), st.text(max_size=5))
def test_any_text_may_stand_before_digits(before: str, after: str) -> None:
    """Digits are found behind whatever has to be escaped."""
    shape = flat.shape(2)
    request = ExportTraceServiceRequest()
    request.CopyFrom(shape.request)
    root = request.resource_spans[0].scope_spans[0].spans[0]
    root.attributes.add(key="drawn").value.string_value = f"{before}00-000{after}"
    source, at = Source("s", 10**6), len(before.encode())
    digits = (Digits(0, "drawn", at, 2, 3, source), Digits(0, "drawn", at + 3, 3, 0, source))
    changed = dataclasses.replace(shape, request=request, digits=digits)
    mixes = [Mix([changed], Fraction(0), "gateway", e) for e in ENCODINGS]
    columns = columns_of(mixes[0], 0, [2], 0)
    (batch,), (binary,) = (stamped(mix, columns) for mix in mixes)
    assert read(batch) == ExportTraceServiceRequest.FromString(binary)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=9))
def test_digits(words: list[int]) -> None:
    """Words become the digits that Python gives them; those that are too long are refused."""
    data = struct.pack(f"={len(words)}Q", *words)
    assert _native.hex_digits(data) == data.hex().encode()
    array = np.frombuffer(data, np.uint64)
    if any(word >= 10**19 for word in words):
        with pytest.raises(ValueError, match="19 decimal digits"):
            _native.decimal_digits(array)
    else:
        assert _native.decimal_digits(array) == "".join(f"{w:019d}" for w in words).encode()

"""Template: the prebuilt protobuf bytes of one trace in each variant, and the slots to patch.

opentelemetry-proto serialises a request once for each variant; its wire format is walked to find
the slots. IDs are constant-width and times are fixed64, so patching never changes a length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from blaster import _native
from blaster.payload.columns import END, SPAN_ID, START, TRACE_HIGH, TRACE_LOW
from blaster.payload.wire_format import LENGTH_DELIMITED, Field, fields, write_varint

# Field numbers of opentelemetry/proto/trace/v1/trace.proto.
_RESOURCE_SPANS = ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER
_SCOPE_SPANS, _SPANS = 2, 2
_TRACE_ID = Span.TRACE_ID_FIELD_NUMBER
_SPAN_ID = Span.SPAN_ID_FIELD_NUMBER
_PARENT = Span.PARENT_SPAN_ID_FIELD_NUMBER
_START = Span.START_TIME_UNIX_NANO_FIELD_NUMBER
_END = Span.END_TIME_UNIX_NANO_FIELD_NUMBER


class Slot(NamedTuple):
    """A fixed-width place in a variant's bytes: ``data[offset : offset + width]`` is taken from
    ``column``, ``shift`` bytes into the trace's row."""

    offset: int
    width: int
    column: int
    shift: int


class Variant(NamedTuple):
    """The bytes of one trace's spans, tags and lengths included, and their slots."""

    data: bytes
    slots: tuple[Slot, ...]


class Frame(NamedTuple):
    """A message opened once a batch: its tag byte, and what stands in it before the next frame."""

    tag: int
    prefix: bytes


class Template(NamedTuple):
    """The frames around a batch (outermost first) and the variants of a trace in it.

    ``strides``: the bytes that a trace takes of each column.
    """

    frames: tuple[Frame, ...]
    variants: tuple[Variant, ...]
    strides: tuple[int, ...]
    spans_per_trace: int

    def compile(self) -> _native.Template:
        """The kernel's form of this template."""
        return _native.Template(self.frames, self.strides, self.variants)

    def batch_bytes(self, traces: int) -> int:
        """The most bytes that a batch of so many traces can take."""
        return self._framed(traces * max(len(variant.data) for variant in self.variants))

    def mean_bytes(self, traces: int, violating: float) -> float:
        """The bytes that such a batch takes on average, with a share of violating traces."""
        clean, *others = (len(variant.data) for variant in self.variants)
        other = sum(others) / len(others) if others else clean
        inner = traces * (clean + violating * (other - clean))
        return inner + self._framed(round(inner)) - round(inner)

    def _framed(self, inner: int) -> int:
        for frame in reversed(self.frames):
            inner += len(frame.prefix)
            inner += 1 + len(write_varint(inner))
        return inner


def placeholder_id(index: int) -> bytes:
    """The span ID by which span ``index`` of a trace is known until it is stamped."""
    return (index + 1).to_bytes(8, "big")


def build(requests: Sequence[ExportTraceServiceRequest]) -> Template:
    """A template from one request for each variant.

    Each request holds one trace in one ResourceSpans and one ScopeSpans, the same but for its
    spans; span i has the ID ``placeholder_id(i)`` and, where it has a parent, the parent's.
    Raises ValueError when a request is otherwise.
    """
    parts = [_split(request.SerializeToString()) for request in requests]
    frames = parts[0][0]
    if any(other != frames for other, _ in parts):
        raise ValueError("the variants differ in their resource or scope")
    variants = tuple(Variant(data, _slots(data)) for _, data in parts)
    spans = {sum(1 for _ in fields(variant.data)) for variant in variants}
    if len(spans) != 1:
        raise ValueError("the variants differ in their number of spans")
    per_trace = spans.pop()
    strides = (8, 8, 8 * per_trace, 8 * per_trace, 8 * per_trace)
    return Template(frames, variants, strides, per_trace)


def _split(data: bytes) -> tuple[tuple[Frame, ...], bytes]:
    """The frames of a request, and the bytes of its spans."""
    frames: list[Frame] = []
    start, end = 0, len(data)
    for number in (_RESOURCE_SPANS, _SCOPE_SPANS):
        inner = [f for f in fields(data, start, end) if f.number == number]
        if len(inner) != 1:
            raise ValueError("a variant's request must hold one ResourceSpans and one ScopeSpans")
        if frames:
            frames[-1] = frames[-1]._replace(prefix=_without(data, start, end, inner[0]))
        frames.append(Frame(number << 3 | LENGTH_DELIMITED, b""))
        start, end = inner[0].start, inner[0].end
    spans = b"".join(data[f.tag : f.end] for f in fields(data, start, end) if f.number == _SPANS)
    others = b"".join(data[f.tag : f.end] for f in fields(data, start, end) if f.number != _SPANS)
    frames[-1] = frames[-1]._replace(prefix=others)
    return tuple(frames), spans


def _without(data: bytes, start: int, end: int, inner: Field) -> bytes:
    return data[start : inner.tag] + data[inner.end : end]


def _slots(data: bytes) -> tuple[Slot, ...]:
    """The slots of a trace's spans, in the order of their offsets."""
    slots = []
    for index, span in enumerate(fields(data)):
        for field in fields(data, span.start, span.end):
            slots += _slots_of(data, index, field)
    return tuple(slots)


def _slots_of(data: bytes, index: int, field: Field) -> list[Slot]:
    value = data[field.start : field.end]
    if field.number == _TRACE_ID:
        _expect(len(value) == 16, f"span {index} has no trace ID of 16 bytes")
        return [
            Slot(field.start, 8, TRACE_HIGH, 0),
            Slot(field.start + 8, 8, TRACE_LOW, 0),
        ]
    if field.number == _SPAN_ID:
        _expect(value == placeholder_id(index), f"span {index} has another ID than its placeholder")
        return [Slot(field.start, 8, SPAN_ID, 8 * index)]
    if field.number == _PARENT:
        parent = int.from_bytes(value, "big") - 1
        _expect(len(value) == 8 and 0 <= parent < index, f"span {index} has no earlier parent")
        return [Slot(field.start, 8, SPAN_ID, 8 * parent)]
    if field.number in (_START, _END):
        return [Slot(field.start, 8, START if field.number == _START else END, 8 * index)]
    return []


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)

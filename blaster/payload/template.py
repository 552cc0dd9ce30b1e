"""Template: the prebuilt protobuf bytes of traces in all their variants, and the slots to patch.

opentelemetry-proto serialises each shape once for each kind of violation and each part that its
layout cuts it into; the wire format is walked to find the slots. IDs are constant-width, times are
fixed64 and drawn numbers have a fixed number of digits, so patching never changes a length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from blaster import _native
from blaster.otlp.wire_format import LENGTH_DELIMITED, Field, fields, write_varint
from blaster.payload.shape import ABSENT, TRACE_PLACEHOLDER, Digits, Shape, Source, spans_of
from blaster.payload.violations import violate

TRACE_HIGH, TRACE_LOW, SPAN_ID, START, END, DIGITS = range(6)
"""The columns, in the order in which slots name them."""

NUMBER_DIGITS = 16
"""The decimal digits of a drawn number in the column DIGITS."""

TIME_DIGITS = 19
"""The decimal digits of a time in a text."""

Layout = Literal["sdk", "gateway", "scattered"]
Encoding = Literal["protobuf", "json"]
LAYOUTS: tuple[Layout, ...] = ("sdk", "gateway", "scattered")

FRAGMENTS = 4
"""How many requests a trace is scattered over."""

MAX_RESOURCES = 64
"""The most resources that the layout ``sdk`` can keep apart."""

MAX_VARIANTS = 65_536

# Field numbers of opentelemetry/proto/trace/v1/trace.proto and common/v1/common.proto.
_RESOURCE_SPANS, _SCOPE_SPANS, _SPANS = 1, 2, 2
_TRACE_ID, _SPAN_ID, _PARENT, _START, _END = 1, 2, 4, 7, 8
_ATTRIBUTES, _EVENTS, _LINKS = 9, 11, 13
_EVENT_TIME, _LINK_TRACE, _LINK_SPAN = 1, 1, 2
_KEY, _VALUE, _STRING = 1, 2, 1


Column = npt.NDArray[Any]


class Slot(NamedTuple):
    """A fixed-width place in a variant's bytes: ``data[offset : offset + width]`` is taken from
    ``column``, ``shift`` bytes into the trace's part of it."""

    offset: int
    width: int
    column: int
    shift: int


class Frame(NamedTuple):
    """A message opened once a batch: its tag byte, and what stands in it before the next frame."""

    tag: int
    prefix: bytes


TextFraming = tuple[bytes, bytes]
"""Of a text: what stands before the traces of a batch, and what behind. Each trace begins with a
comma; that of the first becomes a space."""


class Draw(NamedTuple):
    """A number drawn for a span (``span``), or for the whole trace (-1)."""

    source: Source
    span: int


@dataclass(frozen=True, slots=True)
class Variant:
    """The bytes of a trace, or of the part of it that goes into one request, and their slots.

    ``entries``: what the trace takes of SPAN_ID, START and END: the numbers of spans, and of
    events, counted on from the shape's spans. ``draws``: what it takes of DIGITS. ``spans``: the
    spans that are in these bytes. ``framing``: the template's framing around a batch of it.
    ``text``: whether the slots are for digits and not for binary words.
    """

    data: bytes
    slots: tuple[Slot, ...]
    entries: tuple[int, ...]
    draws: tuple[Draw, ...]
    spans: tuple[int, ...]
    framing: int
    text: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """The bytes that the trace takes of each column, as :meth:`Template.filling` gives it."""
        word, time = (16, TIME_DIGITS) if self.text else (8, 8)
        entries = len(self.entries)
        times = (time * entries, time * entries)
        return (word, word, word * entries, *times, NUMBER_DIGITS * len(self.draws))


class Template(NamedTuple):
    """All variants, and the framings that their batches stand in.

    ``numbers[shape, kind]`` are the numbers of the variants of a shape's parts, for the kinds of
    violation that it was built with; the slow one is that of kind 0.
    """

    framings: tuple[tuple[Frame, ...] | TextFraming, ...]
    variants: tuple[Variant, ...]
    numbers: dict[tuple[int, int], tuple[int, ...]]
    parts: int

    def compile(self) -> _native.Template:
        """The kernel's form of this template."""
        variants = tuple((v.data, v.slots, v.strides, v.framing) for v in self.variants)
        return _native.Template(self.framings, variants)

    def filling(self, arrays: tuple[Column, ...]) -> tuple[Column | bytes, ...]:
        """What the slots are filled with: the columns as they are, or the digits of their words."""
        if not self.text:
            return arrays
        high, low, span_ids, start, end, digits = arrays
        return (
            *map(_native.hex_digits, (high, low, span_ids)),
            *map(_native.decimal_digits, (start, end)),
            digits,
        )

    @property
    def text(self) -> bool:
        """Whether its slots are for digits and not for binary words."""
        return self.variants[0].text

    @property
    def frame_bytes(self) -> int:
        """The most bytes that frames add to a batch."""
        return max(map(_framing_bytes, self.framings))


def _framing_bytes(framing: tuple[Frame, ...] | TextFraming) -> int:
    return sum(6 + len(f.prefix) if isinstance(f, Frame) else len(f) for f in framing)


def build(
    shapes: Sequence[Shape], kinds: Sequence[Sequence[int]], layout: Layout = "sdk"
) -> Template:
    """The template of these shapes, each with the kinds of violation in ``kinds``.

    Raises ValueError when a shape is not as Shape says or the layout does not suit it.
    """
    if layout == "sdk":
        framings = _framings(shapes)
        split = {framing: number for number, framing in enumerate(framings)}
    else:
        framings, split = [()], {}
    parts = {"sdk": len(framings), "gateway": 1, "scattered": FRAGMENTS}[layout]
    variants: list[Variant] = []
    numbers: dict[tuple[int, int], tuple[int, ...]] = {}
    for index, (shape, wanted) in enumerate(zip(shapes, kinds, strict=True)):
        for kind in (0, *wanted):
            request = violate(shape, kind) if kind else shape.request
            first = len(variants)
            numbers[index, kind] = tuple(range(first, first + parts))
            for part in range(parts):
                variants.append(_variant(shape, request, layout, part, split))
    if len(variants) > MAX_VARIANTS:
        raise ValueError(f"{len(variants):,} variants of traces: at most {MAX_VARIANTS:,}")
    return Template(tuple(framings), tuple(variants), numbers, parts)


def _framings(shapes: Sequence[Shape]) -> list[tuple[Frame, ...]]:
    """The different resources and scopes of the shapes, in the order in which they first come."""
    found: dict[tuple[Frame, ...], None] = {}
    for shape in shapes:
        for framing, _ in _by_framing(shape.request):
            found[framing] = None
    if len(found) > MAX_RESOURCES:
        raise ValueError(
            f"{len(found):,} resources and scopes: the layout sdk takes at most {MAX_RESOURCES}; "
            "use gateway"
        )
    return list(found)


def _by_framing(
    request: ExportTraceServiceRequest,
) -> Iterator[tuple[tuple[Frame, ...], list[bytes]]]:
    """The resource and scope of every ScopeSpans, as frames, and its spans."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            outer = type(resource_spans)()
            outer.CopyFrom(resource_spans)
            del outer.scope_spans[:]
            inner = type(scope_spans)()
            inner.CopyFrom(scope_spans)
            del inner.spans[:]
            yield (
                (
                    Frame(_RESOURCE_SPANS << 3 | LENGTH_DELIMITED, outer.SerializeToString()),
                    Frame(_SCOPE_SPANS << 3 | LENGTH_DELIMITED, inner.SerializeToString()),
                ),
                [_tagged(span.SerializeToString()) for span in scope_spans.spans],
            )


def _tagged(span: bytes) -> bytes:
    return bytes([_SPANS << 3 | LENGTH_DELIMITED]) + write_varint(len(span)) + span


def _variant(
    shape: Shape,
    request: ExportTraceServiceRequest,
    layout: Layout,
    part: int,
    split: dict[tuple[Frame, ...], int],
) -> Variant:
    if layout == "sdk":
        data = b"".join(
            span
            for framing, spans in _by_framing(request)
            if split[framing] == part
            for span in spans
        )
        return _Walk(shape, data).variant(list(fields(data)), part)
    if layout == "scattered":
        request = _fragment(request, part)
    data = request.SerializeToString()
    spans = [
        span
        for resource in fields(data)
        for scope in fields(data, resource.start, resource.end)
        if scope.number == _SCOPE_SPANS
        for span in fields(data, scope.start, scope.end)
        if span.number == _SPANS
    ]
    return _Walk(shape, data).variant(spans, 0)


def _fragment(request: ExportTraceServiceRequest, part: int) -> ExportTraceServiceRequest:
    """The spans of a trace that go into this part, in their resources and scopes."""
    kept = ExportTraceServiceRequest()
    index = 0
    for resource_spans in request.resource_spans:
        outer = type(resource_spans)()
        outer.CopyFrom(resource_spans)
        del outer.scope_spans[:]
        for scope_spans in resource_spans.scope_spans:
            inner = type(scope_spans)()
            inner.CopyFrom(scope_spans)
            del inner.spans[:]
            for span in scope_spans.spans:
                if index % FRAGMENTS == part:
                    inner.spans.append(span)
                index += 1
            if inner.spans:
                outer.scope_spans.append(inner)
        if outer.scope_spans:
            kept.resource_spans.append(outer)
    return kept


class _Walk:
    """Finds the slots in a variant's bytes."""

    def __init__(self, shape: Shape, data: bytes) -> None:
        self._shape = shape
        self._data = data
        self._slots: list[Slot] = []
        self._entries: dict[int, int] = {}
        self._draws: dict[Draw, int] = {}
        # The events of the spans before each span, by the shape's own order.
        self._events = [0]
        for span in spans_of(shape.request):
            self._events.append(self._events[-1] + len(span.events))
        self._digits: dict[int, list[Digits]] = {}
        for digits in shape.digits:
            self._digits.setdefault(digits.span, []).append(digits)

    def variant(self, spans: list[Field], framing: int) -> Variant:
        here = []
        for span in spans:
            found = list(fields(self._data, span.start, span.end))
            ids = [f for f in found if f.number == _SPAN_ID]
            _expect(len(ids) == 1, "a span has no ID")
            index = self._index(ids[0])
            here.append(index)
            self._span(index, found)
        slots = tuple(sorted(self._slots))
        return Variant(
            self._data, slots, tuple(self._entries), tuple(self._draws), tuple(here), framing
        )

    def _span(self, index: int, found: list[Field]) -> None:
        events = self._events[index]
        missing = {_TRACE_ID, _START, _END}
        for field in found:
            missing.discard(field.number)
            if field.number == _TRACE_ID:
                _expect(self._trace(field), f"span {index}: its trace ID is not the placeholder")
            elif field.number in (_SPAN_ID, _PARENT):
                self._id(field)
            elif field.number == _START:
                self._time(field, START, index)
            elif field.number == _END:
                self._time(field, END, index)
            elif field.number == _EVENTS:
                for inner in fields(self._data, field.start, field.end):
                    if inner.number == _EVENT_TIME:
                        self._time(inner, START, self._shape.spans + events)
                events += 1
            elif field.number == _LINKS:
                self._link(field)
            elif field.number == _ATTRIBUTES and index in self._digits:
                self._attribute(field, self._digits[index])
        _expect(not missing, f"span {index}: its trace ID or a time is missing")

    def _link(self, field: Field) -> None:
        inner = list(fields(self._data, field.start, field.end))
        if any(f.number == _LINK_TRACE and self._trace(f) for f in inner):
            for f in inner:
                if f.number == _LINK_SPAN:
                    self._id(f)

    def _attribute(self, field: Field, digits: list[Digits]) -> None:
        key, text = b"", None
        for inner in fields(self._data, field.start, field.end):
            if inner.number == _KEY:
                key = self._data[inner.start : inner.end]
            elif inner.number == _VALUE:
                for value in fields(self._data, inner.start, inner.end):
                    if value.number == _STRING:
                        text = value
        for wanted in digits:
            if wanted.key.encode() != key:
                continue
            fits = text is not None and wanted.at + wanted.width <= text.end - text.start
            _expect(fits, f"attribute {wanted.key}: its digits do not fit")
            assert text is not None
            shift = NUMBER_DIGITS - wanted.skip - wanted.width
            _expect(shift >= 0, f"attribute {wanted.key}: more than {NUMBER_DIGITS} digits")
            draw = Draw(wanted.source, -1 if wanted.source.per_trace else wanted.span)
            number = self._draws.setdefault(draw, len(self._draws))
            place = text.start + wanted.at
            self._slots.append(Slot(place, wanted.width, DIGITS, NUMBER_DIGITS * number + shift))

    def _trace(self, field: Field) -> bool:
        if self._data[field.start : field.end] != TRACE_PLACEHOLDER:
            return False
        self._slots.append(Slot(field.start, 8, TRACE_HIGH, 0))
        self._slots.append(Slot(field.start + 8, 8, TRACE_LOW, 0))
        return True

    def _id(self, field: Field) -> None:
        if self._data[field.start : field.start + 1] == ABSENT:
            return
        self._slots.append(Slot(field.start, 8, SPAN_ID, self._row(self._index(field))))

    def _time(self, field: Field, column: int, entry: int) -> None:
        _expect(field.end - field.start == 8, "a time is not fixed64")
        self._slots.append(Slot(field.start, 8, column, self._row(entry)))

    def _row(self, entry: int) -> int:
        return 8 * self._entries.setdefault(entry, len(self._entries))

    def _index(self, field: Field) -> int:
        value = self._data[field.start : field.end]
        index = int.from_bytes(value, "big") - 1
        holds = len(value) == 8 and 0 <= index < self._shape.spans
        _expect(holds, f"the span ID {value.hex()} is no placeholder of the shape's spans")
        return index


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)

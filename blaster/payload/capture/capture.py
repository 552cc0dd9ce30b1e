"""Capture: the shapes in what a real system wrote, and how its traces are alike and differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from blaster.errors import UsageError
from blaster.payload.capture.file import records
from blaster.payload.capture.traces import Trace, Traces
from blaster.payload.shape import Shape, spans_of
from blaster.units import in_line

MAX_SHAPES = 1000
MAX_SHAPE_BYTES = 64 << 20
"""The most traces that are sent as they were, and the most bytes of them."""

MAX_TIMINGS = 1000
"""The most timings of a shape: traces that are the same but for their times."""

MAX_DISTINCT = 1000
"""Distinct values of an attribute are counted up to here."""

MAX_ATTRIBUTES = 2000
"""The attributes of a pattern whose values are counted."""

Key = tuple[str, str, str]
"""A service, a span's name ("" for the resource itself) and an attribute's key."""


@dataclass
class Values:
    """The values that an attribute has in the traces of a pattern.

    ``distinct``: digests, MAX_DISTINCT at most. ``varies``: not all traces have the same.
    """

    distinct: set[bytes] = field(default_factory=set)
    first: bytes = b""
    traces: int = 0
    varies: bool = False


@dataclass
class Pattern:
    """Traces with the same tree: the same services, operations, kinds and statuses below each
    other. Sizes in bytes as protobuf, times in ns, all summed over the traces."""

    root: str
    spans: int
    depth: int
    services: tuple[str, ...]
    events: int
    links: int
    slots: int
    traces: int = 0
    bytes: int = 0
    least_bytes: int = 0
    most_bytes: int = 0
    duration_ns: int = 0
    values: dict[Key, Values] = field(default_factory=dict)

    def varying(self) -> list[tuple[Key, Values]]:
        """The attributes that are not the same in all traces, most values first."""
        found = [(key, v) for key, v in self.values.items() if v.varies or v.traces < self.traces]
        return sorted(found, key=lambda item: (-len(item[1].distinct), item[0]))


@dataclass
class Capture:
    """What a captured file holds. ``notes``: what was left out or mended, in words."""

    path: str
    format: str
    records: int
    traces: int
    spans: int
    shapes: list[Shape]
    patterns: list[Pattern]
    notes: list[str]


@dataclass
class _Kept:
    """A shape in the making: a trace, how often it came, and the times it had."""

    trace: Trace
    timings: list[Trace]
    weight: int = 1


def read(path: str) -> Capture:
    """The shapes of the captured file ``path``. UsageError in one line: file, place and fault."""
    traces = Traces.of(records(path))
    kept: dict[bytes, _Kept] = {}
    patterns: dict[bytes, Pattern] = {}
    first_of: dict[bytes, _Kept] = {}
    size = 0
    for trace in traces:
        data = trace.request.SerializeToString(deterministic=True)
        kind = _signature(trace)
        pattern = patterns.get(kind)
        if pattern is None and len(patterns) < MAX_SHAPES:
            pattern = patterns[kind] = _pattern(trace)
        if pattern is not None:
            _count(pattern, trace, len(data))
        same = kept.get(digest := blake2b(data, digest_size=16).digest())
        if same is not None:
            same.weight += 1
            if len(same.timings) < MAX_TIMINGS:
                same.timings.append(trace)
        elif len(kept) < MAX_SHAPES and size + len(data) <= MAX_SHAPE_BYTES:
            size += len(data)
            kept[digest] = _Kept(trace, [trace])
            first_of.setdefault(kind, kept[digest])
        elif kind in first_of:
            traces.notes["traces for which another of the same tree is sent"] += 1
            first_of[kind].weight += 1
        else:
            traces.notes[f"traces beyond the first {MAX_SHAPES:,} left out"] += 1
    shown = in_line(path)
    if not kept:
        raise UsageError(f"{shown}: has no spans{_because(traces.notes)}")
    return Capture(
        path=path,
        format=str(traces.format),
        records=traces.records,
        traces=len(traces),
        spans=traces.spans,
        shapes=[_shape(one) for one in kept.values()],
        patterns=sorted(patterns.values(), key=lambda p: -p.traces),
        notes=[f"{count:,} {note}" for note, count in traces.notes.items()],
    )


def _because(notes: Counter[str]) -> str:
    return "".join(f"; {count:,} {note}" for note, count in notes.items())


def _shape(kept: _Kept) -> Shape:
    timings = kept.timings
    return Shape(
        request=kept.trace.request,
        weight=kept.weight,
        starts=np.stack([trace.starts for trace in timings]),
        ends=np.stack([trace.ends for trace in timings]),
        events=np.stack([trace.events for trace in timings]),
        places=_places(kept.trace),
        detached=_detached(timings),
    )


def _places(trace: Trace) -> tuple[int | None, int | None, int | None]:
    root = _root(trace)
    return (root, root, root)


def _detached(timings: list[Trace]) -> frozenset[int]:
    """The spans that end after their parents did, in any of the timings, or are their own
    ancestors."""
    depths = _inwards(timings[0])[1]
    return frozenset(
        index
        for index, parent in enumerate(timings[0].parents)
        if not depths[index]
        or (parent >= 0 and any(trace.ends[index] > trace.ends[parent] for trace in timings))
    )


def _root(trace: Trace) -> int:
    """The first span without a parent, or without one in the file."""
    spans = list(spans_of(trace.request))
    without = [index for index, span in enumerate(spans) if not span.parent_span_id]
    return (without or [i for i, parent in enumerate(trace.parents) if parent < 0] or [0])[0]


def _services(trace: Trace) -> list[str]:
    """The service of each span; "" where its resource names none."""
    return [
        _service(resource_spans.resource)
        for resource_spans in trace.request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for _ in scope_spans.spans
    ]


def _service(resource: Resource) -> str:
    names = (a.value.string_value for a in resource.attributes if a.key == "service.name")
    return next(names, "")


def _inwards(trace: Trace) -> tuple[list[int], list[int]]:
    """The spans, every child before its parent, and their depths (1 for a root).

    Spans that are their own ancestors come first, with depth 0.
    """
    children: list[list[int]] = [[] for _ in trace.parents]
    for index, parent in enumerate(trace.parents):
        if parent >= 0:
            children[parent].append(index)
    depths = [0] * len(trace.parents)
    order = [index for index, parent in enumerate(trace.parents) if parent < 0]
    for index in order:
        depths[index] = 1 if trace.parents[index] < 0 else depths[trace.parents[index]] + 1
        order.extend(children[index])
    return [i for i, depth in enumerate(depths) if not depth] + order[::-1], depths


def _signature(trace: Trace) -> bytes:
    """A digest of the tree, the same in whatever order the spans were written."""
    spans, services = list(spans_of(trace.request)), _services(trace)
    below: list[list[bytes]] = [[] for _ in spans]
    roots: list[bytes] = []
    for index in _inwards(trace)[0]:
        span = spans[index]
        label = (services[index], span.name, span.kind, span.status.code, len(span.links))
        events = tuple(event.name for event in span.events)
        digest = blake2b(repr((label, events)).encode(errors="replace"), digest_size=16)
        for child in sorted(below[index]):
            digest.update(child)
        parent = trace.parents[index]
        (roots if parent < 0 else below[parent]).append(digest.digest())
    return blake2b(b"".join(sorted(roots)), digest_size=16).digest()


def _pattern(trace: Trace) -> Pattern:
    spans, services = list(spans_of(trace.request)), _services(trace)
    root = _root(trace)
    parents = sum(parent >= 0 for parent in trace.parents)
    events = sum(len(span.events) for span in spans)
    return Pattern(
        root=": ".join(filter(None, (services[root], spans[root].name))),
        spans=len(spans),
        depth=max(_inwards(trace)[1]),
        services=tuple(sorted(set(services))),
        events=events,
        links=sum(len(span.links) for span in spans),
        # Trace ID, span ID, start and end; of a link the two IDs.
        slots=4 * len(spans) + parents + events + 2 * trace.links,
    )


def _count(pattern: Pattern, trace: Trace, size: int) -> None:
    """Adds one trace to the figures of its pattern."""
    pattern.least_bytes = min(size, pattern.least_bytes) if pattern.traces else size
    pattern.most_bytes = max(size, pattern.most_bytes)
    pattern.traces += 1
    pattern.bytes += size
    pattern.duration_ns += int(trace.ends.max())
    for key, found in _attributes(trace).items():
        values = pattern.values.get(key)
        if values is None:
            if len(pattern.values) == MAX_ATTRIBUTES:
                continue
            values = pattern.values[key] = Values()
        together = b"".join(sorted(found))
        if not values.traces:
            values.first = together
        values.varies |= together != values.first
        values.traces += 1
        if len(values.distinct) < MAX_DISTINCT:
            values.distinct.update(found)


def _attributes(trace: Trace) -> dict[Key, list[bytes]]:
    """Digests of the values of each attribute of a trace, by where it stands."""
    found: dict[Key, list[bytes]] = {}

    def add(service: str, name: str, attributes: Iterable[KeyValue]) -> None:
        for attribute in attributes:
            value = attribute.value.SerializeToString(deterministic=True)
            key = (service, name, attribute.key)
            found.setdefault(key, []).append(blake2b(value, digest_size=8).digest())

    for resource_spans in trace.request.resource_spans:
        service = _service(resource_spans.resource)
        add(service, "", resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                add(service, span.name, _all(span))
    return found


def _all(span: Span) -> Iterable[KeyValue]:
    yield from span.attributes
    for event in span.events:
        yield from event.attributes

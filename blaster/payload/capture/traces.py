"""Traces: the spans of a captured file, put together by their trace IDs wherever they stood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from blaster.errors import UsageError
from blaster.payload.capture.file import Format, Record
from blaster.payload.shape import (
    ABSENT,
    MAX_SPANS,
    TRACE_PLACEHOLDER,
    Int64,
    placeholder_id,
    spans_of,
)

MAX_FILE_SPANS = 1_000_000
"""The most spans in a file: each is kept, as bytes, until the file's end."""

MAX_FILE_RECORDS = 1_000_000
"""The most records in a file, with spans or without."""

MAX_TRACE_NS = 7 * 86_400 * 10**9
"""The longest trace: a clock that was off by years makes longer ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A captured trace with placeholders in the place of its IDs and times, as a Shape has them.

    ``starts``, ``ends`` (of spans) and ``events``: int64 ns from the trace's beginning.
    ``parents``: for each span the number of its parent; -1 where it has none, or one that is not
    in the file. ``links``: how many links lead to the trace's own spans.
    """

    request: ExportTraceServiceRequest
    starts: Int64
    ends: Int64
    events: Int64
    parents: tuple[int, ...]
    links: int


class _Captured(NamedTuple):
    """A span as it was: the numbers of its resource and scope, and its bytes."""

    resource: int
    scope: int
    data: bytes


@dataclass
class Traces:
    """The traces of some records, in the order in which they began in the file. Iterable once all
    is added. ``notes``: what was left out or mended, and how often."""

    format: Format | None = None
    records: int = 0
    spans: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    _by_id: dict[bytes, dict[bytes, _Captured]] = field(default_factory=dict)
    _resources: dict[bytes, int] = field(default_factory=dict)
    _scopes: dict[bytes, int] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Traces:
        """All traces of ``records``. UsageError for invalid IDs and times, and past the limits."""
        traces = cls()
        for record in records:
            traces.add(record)
        return traces

    def __len__(self) -> int:
        return len(self._by_id)

    def add(self, record: Record) -> None:
        """Takes the spans of one record."""
        if self.records == MAX_FILE_RECORDS:
            raise UsageError(f"{record.place}: the file has more than {MAX_FILE_RECORDS:,} records")
        self.format = record.format
        self.records += 1
        if not record.request.resource_spans:
            self.notes["records without spans left out"] += 1
        for i, resource_spans in enumerate(record.request.resource_spans):
            found = []
            for j, scope_spans in enumerate(resource_spans.scope_spans):
                for k, span in enumerate(scope_spans.spans):
                    place = f"{record.place}: resourceSpans[{i}].scopeSpans[{j}].spans[{k}]"
                    _check(span, place)
                    found.append((span.trace_id, span.span_id, j, span.SerializeToString(), place))
                # What is left is the scope alone, whatever fields it has.
                scope_spans.ClearField("spans")
            scopes = [_number(self._scopes, scope) for scope in resource_spans.scope_spans]
            resource_spans.ClearField("scope_spans")
            resource = _number(self._resources, resource_spans)
            for trace_id, span_id, j, data, place in found:
                self._keep(trace_id, span_id, _Captured(resource, scopes[j], data), place)

    def _keep(self, trace_id: bytes, span_id: bytes, span: _Captured, place: str) -> None:
        spans = self._by_id.setdefault(trace_id, {})
        if span_id in spans:
            self.notes["spans whose ID their trace already has left out"] += 1
            return
        if len(spans) == MAX_SPANS:
            raise UsageError(f"{place}: trace {trace_id.hex()} has more than {MAX_SPANS:,} spans")
        if self.spans == MAX_FILE_SPANS:
            raise UsageError(f"{place}: the file has more than {MAX_FILE_SPANS:,} spans")
        self.spans += 1
        spans[span_id] = span

    def __iter__(self) -> Iterator[Trace]:
        resources, scopes = list(self._resources), list(self._scopes)
        for trace_id, spans in self._by_id.items():
            request = _request(spans.values(), resources, scopes)
            trace = self._trace(trace_id, request)
            if trace is not None:
                yield trace

    def _trace(self, trace_id: bytes, request: ExportTraceServiceRequest) -> Trace | None:
        spans = list(spans_of(request))
        times = [span.start_time_unix_nano for span in spans]
        for span in spans:
            if span.end_time_unix_nano < span.start_time_unix_nano:
                self.notes["spans that end before they start, sent without a duration"] += 1
                span.end_time_unix_nano = span.start_time_unix_nano
            for event in span.events:
                if not event.time_unix_nano:
                    self.notes["events without a time, sent with their span's start"] += 1
                    event.time_unix_nano = span.start_time_unix_nano
                times.append(event.time_unix_nano)
        begin = min(times)
        last = max(*times, *(span.end_time_unix_nano for span in spans))
        if last - begin > MAX_TRACE_NS:
            self.notes["traces longer than 7 days left out"] += 1
            return None
        starts = [span.start_time_unix_nano - begin for span in spans]
        ends = [span.end_time_unix_nano - begin for span in spans]
        events = [event.time_unix_nano - begin for span in spans for event in span.events]
        numbers = {span.span_id: index for index, span in enumerate(spans)}
        parents = tuple(numbers.get(span.parent_span_id, -1) for span in spans)
        links = 0
        for index, span in enumerate(spans):
            span.trace_id = TRACE_PLACEHOLDER
            span.span_id = placeholder_id(index)
            if any(span.parent_span_id):
                span.parent_span_id = self._stand_in(span.parent_span_id, numbers)
            else:
                span.ClearField("parent_span_id")
            for link in span.links:
                if link.trace_id == trace_id:
                    links += 1
                    link.trace_id = TRACE_PLACEHOLDER
                    link.span_id = self._stand_in(link.span_id, numbers)
                elif link.trace_id == TRACE_PLACEHOLDER:
                    link.trace_id = b"\xfe" * 16
            for event in span.events:
                event.time_unix_nano = 1
            span.start_time_unix_nano = span.end_time_unix_nano = 1
        return Trace(request, _row(starts), _row(ends), _row(events), parents, links)

    def _stand_in(self, span_id: bytes, numbers: dict[bytes, int]) -> bytes:
        """The placeholder of a span of the trace; for one that is not in the file, an ID that is
        none, the same wherever it is meant."""
        if span_id in numbers:
            return placeholder_id(numbers[span_id])
        self.notes["parents and linked spans that are not in the file"] += 1
        return absent_id(span_id)


def absent_id(span_id: bytes) -> bytes:
    """The ID that stands for a span that is not in the file."""
    return ABSENT + blake2b(span_id, digest_size=7).digest()


def _row(times: list[int]) -> Int64:
    return np.array(times, np.int64)


def _number(numbers: dict[bytes, int], message: ResourceSpans | ScopeSpans) -> int:
    return numbers.setdefault(message.SerializeToString(deterministic=True), len(numbers))


def _request(
    spans: Iterable[_Captured], resources: list[bytes], scopes: list[bytes]
) -> ExportTraceServiceRequest:
    """The spans under their resources and scopes, each of which comes once."""
    request = ExportTraceServiceRequest()
    blocks: dict[int, ResourceSpans] = {}
    groups: dict[tuple[int, int], ScopeSpans] = {}
    for span in spans:
        group = groups.get((span.resource, span.scope))
        if group is None:
            block = blocks.get(span.resource)
            if block is None:
                block = blocks[span.resource] = request.resource_spans.add()
                block.ParseFromString(resources[span.resource])
            group = groups[span.resource, span.scope] = block.scope_spans.add()
            group.ParseFromString(scopes[span.scope])
        group.spans.add().ParseFromString(span.data)
    return request


def _check(span: Span, place: str) -> None:
    _check_id(span.trace_id, 16, f"{place}: trace ID")
    _check_id(span.span_id, 8, f"{place}: span ID")
    if any(span.parent_span_id):
        _check_id(span.parent_span_id, 8, f"{place}: parent span ID")
    for link in span.links:
        _check_id(link.trace_id, 16, f"{place}: a link's trace ID")
        _check_id(link.span_id, 8, f"{place}: a link's span ID")
    if not span.start_time_unix_nano:
        raise UsageError(f"{place}: has no start time")


def _check_id(data: bytes, width: int, what: str) -> None:
    if len(data) != width or not any(data):
        raise UsageError(
            f"{what}: must be {width} bytes, not all 0, not {data[:20].hex() or 'none'}"
        )

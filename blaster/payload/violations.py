"""The violations that are injected, and which trace carries which.

Trace n violates when the share of violations among the first n + 1 traces calls for one more:
floor((n + 1)·rate) > floor(n·rate). The share is so met exactly over any run, evenly mixed, and
known for every trace without counting. The violating traces take the kinds in turn.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from blaster.otlp.rules import RULES, SLOW_NANOSECONDS, violations_of
from blaster.payload.shape import ABSENT, Int64, Shape, spans_of

SLOW, ERROR, MISSING_AUTH = 1, 2, 3
"""The kinds, as numbers; 0 is a trace that violates nothing. Kind k breaks the rule RULES[k - 1]
and no other."""

KINDS = ("slow", "error", "missing_auth")
"""Their names in workload files."""

MAX_DENOMINATOR = 1_000_000

DURATION = "duration_ms"

SLOW_EXTRA_NS = 600_000_000
"""What a slow span takes more than it would: it is well past the rule's 500 ms."""


class Quota:
    """Which traces violate, for a rate (the share of traces) of 0 to 1: ``share`` in ``of``."""

    def __init__(self, rate: Fraction) -> None:
        rate = rate.limit_denominator(MAX_DENOMINATOR)
        self.share, self.of = rate.numerator, rate.denominator

    def before(self, traces: Int64) -> Int64:
        """How many of the first so many traces violate (traces below 2^43)."""
        count: Int64 = traces * self.share // self.of
        return count

    def split(self, number: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
        """How many traces before each of these numbers violate, and whether that one does."""
        due = number * self.share
        before: Int64 = due // self.of
        due -= before * self.of
        return before, due >= self.of - self.share


def of_kind(violations: Int64, kind: int) -> Int64:
    """How many of the first so many violations are of this kind."""
    count: Int64 = (violations + (len(RULES) - kind)) // len(RULES)
    return count


def violate(shape: Shape, kind: int) -> ExportTraceServiceRequest:
    """The shape's request with a violation of this kind in its place. A slow one is in the times,
    and in the attribute duration_ms, which says how much longer it takes at least: some rule
    languages see no others than attributes."""
    request = ExportTraceServiceRequest()
    request.CopyFrom(shape.request)
    place = shape.places[kind - 1]
    if place is None:
        return request
    span = list(spans_of(request))[place]
    if kind == SLOW:
        if all(attribute.key != DURATION for attribute in span.attributes):
            took = AnyValue(int_value=SLOW_EXTRA_NS // 1_000_000)
            span.attributes.append(KeyValue(key=DURATION, value=took))
    elif kind == ERROR:
        fail(span)
    else:
        kept = [a for a in span.attributes if a.key != "auth.token"]
        if all(a.key != "http.route" for a in kept):
            kept.append(KeyValue(key="http.route", value=AnyValue(string_value="/")))
        del span.attributes[:]
        span.attributes.extend(kept)
    return request


def fail(span: Span) -> None:
    """Makes a span one that ended in an error, by the semantic conventions."""
    span.status.code = Status.STATUS_CODE_ERROR
    error_type = "_OTHER"
    for attribute in span.attributes:
        if attribute.key in ("http.status_code", "http.response.status_code"):
            attribute.value.int_value = 500
            error_type = "500"
    if all(attribute.key != "error.type" for attribute in span.attributes):
        span.attributes.append(KeyValue(key="error.type", value=AnyValue(string_value=error_type)))


def parents_of(request: ExportTraceServiceRequest) -> list[int | None]:
    """The number of each span's parent, by the placeholders; None also for one that is absent."""
    return [
        None
        if not span.parent_span_id or span.parent_span_id.startswith(ABSENT)
        else int.from_bytes(span.parent_span_id, "big") - 1
        for span in spans_of(request)
    ]


def slowed(shape: Shape, rows: npt.NDArray[np.intp]) -> Int64:
    """The ends of the spans in these rows when the span in the slow place takes longer."""
    ends = shape.ends[rows]
    parents = parents_of(shape.request)
    span = shape.places[SLOW - 1]
    if span is None:
        return ends
    ends[:, span] += SLOW_EXTRA_NS
    parent = parents[span]
    while parent is not None and span not in shape.detached:
        np.maximum(ends[:, parent], ends[:, span], out=ends[:, parent])
        span, parent = parent, parents[parent]
    return ends


def broken_by(request: ExportTraceServiceRequest) -> npt.NDArray[np.bool_]:
    """Which rules each span breaks (spans x rules), whatever its times."""
    found = [(False, *violations_of(span)[1:]) for span in spans_of(request)]
    return np.array(found, np.bool_).reshape(-1, len(RULES))


def slow(starts: Int64, ends: Int64) -> npt.NDArray[np.bool_]:
    """Which spans take longer than the rule allows."""
    taken: npt.NDArray[np.bool_] = ends - starts > SLOW_NANOSECONDS
    return taken

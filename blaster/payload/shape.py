"""Shape: one trace as it is to be sent over and over, with fresh IDs and times.

A workload is a finite set of shapes. They come from a topology (:mod:`blaster.payload.drawing`) or
from what a real system wrote; whoever makes them makes all that the rest needs to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Int64 = npt.NDArray[np.int64]

TRACE_PLACEHOLDER = b"\xff" * 16
"""The trace ID of every span, and of a link to a span of the same trace, until it is stamped."""

ABSENT = b"\xfe"
"""The first byte of the ID of a span that is not in its trace, though others name it. It is no
placeholder's."""

MAX_SPANS = 10_000
"""The most spans in a shape."""


def placeholder_id(index: int) -> bytes:
    """The span ID by which span ``index`` of a trace is known until it is stamped."""
    return (index + 1).to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the values of an attribute come from: one of ``distinct`` numbers, all as likely
    (``zipf`` 0) or number r (from 0) as likely as (r + 1) ** -zipf.

    ``per_trace``: every attribute of a trace with this source has the same value.
    """

    name: str
    distinct: int
    zipf: float = 0.0
    per_trace: bool = False


@dataclass(frozen=True, slots=True)
class Digits:
    """Digits of a drawn number in the text of an attribute of span ``span``.

    ``key``: the attribute, a string. Its UTF-8 bytes ``at`` to ``at + width`` become the decimal
    digits of the number worth 10 ** (skip + width - 1) down to 10 ** skip.
    """

    span: int
    key: str
    at: int
    width: int
    skip: int
    source: Source


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """A trace with placeholders in the place of its IDs and times.

    ``request`` holds one trace in any number of ResourceSpans and ScopeSpans. Its spans are
    numbered in the order in which they stand there (:func:`spans_of`). Span i has the trace ID
    TRACE_PLACEHOLDER, the span ID ``placeholder_id(i)``, start and end times that are not 0, and,
    where it has a parent, that span's placeholder; the parent need not stand before it. A link
    with TRACE_PLACEHOLDER has the placeholder of a span too; any other link is sent as it is.
    Parents and linked spans that are not in the trace have IDs that begin with ABSENT and are sent
    as they are. Events have times that are not 0. Spans that are their own ancestors are detached.

    ``weight``: how often the shape is sent, beside the other shapes' weights; from 1 on.

    Times are nanoseconds from the trace's beginning, each array one row for each timing that the
    shape takes in turn (one row or more): ``starts`` and ``ends`` (int64, rows x spans, 0 ≤ start
    ≤ end), ``events`` (int64, rows x events; events in the order in which they stand).

    ``digits``: the places that take drawn numbers.

    ``places``: for each kind of violation (slow, error, missing auth) the span to violate with;
    None: the shape has none that can. A span made slow takes its ancestors along, save where it
    is among ``detached``, the spans that need not end before their parents do.
    """

    request: ExportTraceServiceRequest
    weight: int
    starts: Int64
    ends: Int64
    events: Int64
    digits: tuple[Digits, ...] = ()
    places: tuple[int | None, int | None, int | None] = (0, 0, 0)
    detached: frozenset[int] = frozenset()

    @property
    def spans(self) -> int:
        """Spans in the trace."""
        return int(self.starts.shape[1])


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """The spans of a request in the order in which they stand."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            yield from scope_spans.spans

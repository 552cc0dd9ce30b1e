"""Sampled read-back: traces of the run are fetched by ID and compared span by span."""

from __future__ import annotations

from collections.abc import Callable

from blaster.backends.client import RequestFailed
from blaster.backends.findings import FunnelStage, ReadBack, Sent, SentTrace, Verification
from blaster.backends.waiting import Wait
from blaster.payload.span import Span

MAX_DIFFERENCES = 10

Fetch = Callable[[bytes], list[Span]]
"""Returns the spans of the trace with this ID; none if it is not found. Raises RequestFailed."""


def read_back(
    name: str, fetch: Fetch, sent: Sent, wait: Wait, verification: Verification
) -> FunnelStage | None:
    """Fetch the sample until it is complete or the wait is over; None without a sample.

    Fills in ``verification.read_back``, and ``time_to_visible_s`` if it is not known yet.
    """
    if not sent.sample:
        return None
    found: dict[bytes, list[Span]] = {}
    complete: set[bytes] = set()

    def look() -> int:
        for trace in sent.sample:
            if trace.trace_id in complete:
                continue
            spans = [span for span in fetch(trace.trace_id) if span.trace_id == trace.trace_id]
            found[trace.trace_id] = spans
            if {span.span_id for span in spans} >= trace.spans.keys():
                complete.add(trace.trace_id)
            if wait.stopped():
                break
        return sum(
            len({span.span_id for span in found.get(trace.trace_id, ())} & trace.spans.keys())
            for trace in sent.sample
        )

    wanted = sum(len(trace.spans) for trace in sent.sample)
    stage = FunnelStage(f"found in {name}", None, None, "", "traces", len(sent.sample))
    try:
        seen = wait.until(look, wanted)
    except RequestFailed as error:
        verification.problems.append(str(error))
        stage.reason = str(error)
        return stage
    differences = [
        line
        for trace in sent.sample
        if found.get(trace.trace_id)
        for line in compared(trace, found[trace.trace_id])
    ]
    if verification.time_to_visible_s is None:
        verification.time_to_visible_s = round(seen.after_s, 3)
    verification.read_back = ReadBack(
        traces=len(sent.sample),
        found=sum(1 for spans in found.values() if spans),
        complete=len(complete),
        spans=wanted,
        spans_found=seen.count,
        differences=differences[:MAX_DIFFERENCES],
    )
    stage.spans = len(complete)
    stage.lost = len(sent.sample) - len(complete)
    if stage.lost:
        part = verification.read_back.found - len(complete)
        stage.reason = f"{len(sent.sample) - verification.read_back.found:,} not found"
        stage.reason += f", {part:,} only in part" if part else ""
    if differences:
        verification.problems.append(
            f"{len(differences):,} differences in the traces read back: {differences[0]}"
        )
    return stage


def compared(trace: SentTrace, found: list[Span]) -> list[str]:
    """The differences from the spans that were sent, a line each. Additional attributes are not
    counted, since stores add their own; additional spans are, if all of the trace's are known."""
    lines = []
    seen: dict[bytes, Span] = {}
    for span in found:
        where = f"trace {trace.trace_id.hex()} span {span.span_id.hex()}"
        if span.span_id in seen:
            lines.append(f"{where}: is stored twice")
            continue
        seen[span.span_id] = span
        wanted = trace.spans.get(span.span_id)
        if wanted is None:
            if trace.whole:
                lines.append(f"{where}: was not sent")
            continue
        lines += [f"{where}: {what}" for what in _differences(wanted, span)]
    return lines


def _differences(sent: Span, found: Span) -> list[str]:
    lines = []
    for what in ("name", "start_ns", "end_ns", "status"):
        one, other = getattr(sent, what), getattr(found, what)
        if one != other:
            lines.append(f"{what} is {str(other)[:80]!r}, was {str(one)[:80]!r}")
    if sent.parent_id != found.parent_id:
        lines.append(f"parent is {found.parent_id.hex()!r}, was {sent.parent_id.hex()!r}")
    for key, value in sent.attributes.items():
        if key not in found.attributes:
            lines.append(f"attribute {key} is missing")
        elif value is not None and found.attributes[key] != value:
            lines.append(
                f"attribute {key} is {str(found.attributes[key])[:80]!r}, was {value[:80]!r}"
            )
    return lines

"""A Jaeger JSON export, as Jaeger's page and its HTTP API give traces.

``{"data": [{"traceID", "spans": [...], "processes": {...}}]}``, times in microseconds; also one
trace or a list of traces by itself. A span becomes an OTLP span as Jaeger's own translation to OTLP
has it: the first CHILD_OF reference in the same trace is the parent, other references are links,
logs are events, the process is the resource; the tags span.kind, otel.status_code,
otel.status_description, error, w3c.tracestate and otel.scope.name become the fields of OTLP that
they stand for. Warnings are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from blaster.otlp.json_reader import base64_bytes
from blaster.otlp.malformed import Malformed, decoded, each
from blaster.units import quoted

_NS_PER_US = 1000
_MAX_US = 2**63 // _NS_PER_US


class _Struct(msgspec.Struct, rename="camel", gc=False):
    """Whatever is left out or null is None."""


class _Tag(_Struct):
    key: str
    type: str | None = None
    value: str | bool | int | float | None = None


class _Log(_Struct):
    timestamp: int
    fields: tuple[_Tag, ...] | None = None


class _Reference(_Struct):
    ref_type: str
    span_id: str = msgspec.field(name="spanID")
    trace_id: str | None = msgspec.field(name="traceID", default=None)


class _Span(_Struct):
    trace_id: str = msgspec.field(name="traceID")
    span_id: str = msgspec.field(name="spanID")
    operation_name: str
    start_time: int
    duration: int
    process_id: str | None = msgspec.field(name="processID", default=None)
    process: _Process | None = None
    parent_span_id: str | None = msgspec.field(name="parentSpanID", default=None)
    flags: int | None = None
    references: tuple[_Reference, ...] | None = None
    tags: tuple[_Tag, ...] | None = None
    logs: tuple[_Log, ...] | None = None


class _Process(_Struct):
    service_name: str
    tags: tuple[_Tag, ...] | None = None


class _Trace(_Struct):
    spans: tuple[_Span, ...] | None = None
    processes: dict[str, _Process] | None = None


class _Export(_Struct):
    data: tuple[_Trace, ...] | _Trace


_EXPORT: msgspec.json.Decoder[_Export] = msgspec.json.Decoder(_Export)
_TRACE: msgspec.json.Decoder[_Trace] = msgspec.json.Decoder(_Trace)
_TRACES: msgspec.json.Decoder[tuple[_Trace, ...]] = msgspec.json.Decoder(tuple[_Trace, ...])


class Layout(Enum):
    """What a Jaeger export holds: ``data``, one trace, or a list of traces."""

    EXPORT = 1
    TRACE = 2
    TRACES = 3


_KINDS = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "producer": Span.SPAN_KIND_PRODUCER,
    "consumer": Span.SPAN_KIND_CONSUMER,
}
_STATUS = {"OK": Status.STATUS_CODE_OK, "ERROR": Status.STATUS_CODE_ERROR}

_SCOPE_NAMES = ("otel.scope.name", "otel.library.name")
_SCOPE_VERSIONS = ("otel.scope.version", "otel.library.version")
_ELSEWHERE = {
    *_SCOPE_NAMES,
    *_SCOPE_VERSIONS,
    "span.kind",
    "otel.status_code",
    "otel.status_description",
    "w3c.tracestate",
    "internal.span.format",
}


def decode(data: bytes, layout: Layout = Layout.EXPORT) -> ExportTraceServiceRequest:
    """Return all traces of an export as one request. Raises Malformed, with the JSON path."""
    path, traces = _traces(data, layout)
    full_ids = _full_ids(traces)
    request = ExportTraceServiceRequest()
    try:
        for index, trace in enumerate(traces):
            try:
                request.resource_spans.extend(_resource_spans(trace, full_ids))
            except Malformed as error:
                raise error.within(path.format(index)) from None
    except UnicodeError:
        raise Malformed("text with half a surrogate pair") from None
    return request


def _traces(data: bytes, layout: Layout) -> tuple[str, tuple[_Trace, ...]]:
    """The traces, and the JSON path of the trace with number {}."""
    if layout is Layout.TRACE:
        return "", (decoded(_TRACE, data),)
    if layout is Layout.TRACES:
        return "[{}]", decoded(_TRACES, data)
    export = decoded(_EXPORT, data).data
    return (".data", (export,)) if isinstance(export, _Trace) else (".data[{}]", export)


def _full_ids(traces: Iterable[_Trace]) -> dict[bytes, bytes]:
    """The IDs of 128 bits by their lower halves: a service that knows 64 bits only has a trace's
    lower half. Those of which two begin with the same half are left out."""
    found: dict[bytes, set[bytes]] = {}
    for trace in traces:
        for span in trace.spans or ():
            if len(span.trace_id) > 16:
                with suppress(Malformed):  # which the conversion tells with its place
                    full = _id("traceID", span.trace_id, 16)
                    found.setdefault(full[8:], set()).add(full)
    return {half: full.pop() for half, full in found.items() if len(full) == 1}


def _resource_spans(trace: _Trace, full_ids: Mapping[bytes, bytes]) -> list[ResourceSpans]:
    """One block for each process, one ScopeSpans in it for each scope."""
    blocks: dict[bytes, ResourceSpans] = {}
    scopes: dict[tuple[bytes, str, str], ScopeSpans] = {}
    processes = trace.processes or {}
    resources = {}
    for name, process in processes.items():
        try:
            resources[name] = _resource(process)
        except Malformed as error:
            raise error.within(f".processes[{quoted(name)}]") from None

    def add(item: _Span) -> None:
        if item.process is not None:
            resource = _resource(item.process)
        elif item.process_id in resources:
            resource = resources[item.process_id]
        else:
            raise Malformed(
                f"must be one of the trace's processes, not {quoted(item.process_id)}", ".processID"
            )
        key = resource.SerializeToString(deterministic=True)
        block = blocks.setdefault(key, ResourceSpans(resource=resource))
        tags = {tag.key: tag.value for tag in item.tags or ()}
        name, version = (_first(tags, keys) for keys in (_SCOPE_NAMES, _SCOPE_VERSIONS))
        scope = scopes.get((key, name, version))
        if scope is None:
            scope = scopes[key, name, version] = block.scope_spans.add()
            if name or version:
                scope.scope.CopyFrom(InstrumentationScope(name=name, version=version))
        scope.spans.append(_span(item, tags, full_ids))

    for _ in each(trace.spans, "spans", add):
        pass
    return list(blocks.values())


def _first(tags: dict[str, Any], keys: tuple[str, ...]) -> str:
    return next((str(tags[key]) for key in keys if tags.get(key)), "")


def _resource(process: _Process) -> Resource:
    name = KeyValue(key="service.name", value=AnyValue(string_value=process.service_name))
    return Resource(attributes=[name, *each(process.tags, "tags", _attribute)])


def _span(item: _Span, tags: dict[str, Any], full_ids: Mapping[bytes, bytes]) -> Span:
    trace_id = _trace_id(item.trace_id, full_ids)
    span_id = _id("spanID", item.span_id, 8)
    parent = _id("parentSpanID", item.parent_span_id, 8) if item.parent_span_id else b""
    links = []
    references = each(item.references, "references", lambda r: _reference(r, trace_id, full_ids))
    for kind, link in references:
        if kind == "CHILD_OF" and link.trace_id == trace_id and parent in (b"", link.span_id):
            parent = link.span_id
        else:
            links.append(link)
    start = _time("startTime", item.start_time)
    kept = [tag for tag in item.tags or () if not _is_elsewhere(tag, tags)]
    flags = item.flags or 0
    if not 0 <= flags < 2**32:
        raise Malformed(f"must be from 0 to {2**32 - 1}, not {quoted(flags)}", ".flags")
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent,
        trace_state=str(tags.get("w3c.tracestate") or ""),
        flags=flags,
        name=item.operation_name,
        kind=_KINDS.get(str(tags.get("span.kind")), Span.SPAN_KIND_UNSPECIFIED),
        start_time_unix_nano=start,
        end_time_unix_nano=start + _time("duration", item.duration),
        attributes=each(kept, "tags", _attribute),
        events=each(item.logs, "logs", _event),
        links=links,
        status=_status(tags),
    )


def _is_elsewhere(tag: _Tag, tags: dict[str, Any]) -> bool:
    """Whether the tag says what OTLP keeps in a field of its own."""
    if tag.key == "error":
        return tag.value in (True, "true") and tags.get("otel.status_code") in (None, "ERROR")
    return tag.key in _ELSEWHERE


def _status(tags: dict[str, Any]) -> Status | None:
    code = _STATUS.get(str(tags.get("otel.status_code")))
    if code is None and tags.get("error") in (True, "true"):
        code = Status.STATUS_CODE_ERROR
    if code is None:
        return None
    return Status(code=code, message=str(tags.get("otel.status_description") or ""))


def _event(log: _Log) -> Span.Event:
    fields = log.fields or ()
    named = [field for field in fields if field.key == "event" and isinstance(field.value, str)]
    others = [field for field in fields if field not in named[:1]]
    return Span.Event(
        time_unix_nano=_time("timestamp", log.timestamp),
        name=str(named[0].value) if named else "",
        attributes=each(others, "fields", _attribute),
    )


def _reference(
    item: _Reference, own: bytes, full_ids: Mapping[bytes, bytes]
) -> tuple[str, Span.Link]:
    """The type of the reference and a link to its span; without a trace ID it is to ``own``."""
    trace_id = _trace_id(item.trace_id, full_ids) if item.trace_id else own
    return item.ref_type, Span.Link(trace_id=trace_id, span_id=_id("spanID", item.span_id, 8))


def _attribute(tag: _Tag) -> KeyValue:
    value = tag.value
    if value is None:
        return KeyValue(key=tag.key, value=AnyValue())
    if tag.type == "binary" and isinstance(value, str):
        return KeyValue(key=tag.key, value=AnyValue(bytes_value=base64_bytes("value", value)))
    if tag.type == "int64" and isinstance(value, str):
        # Pages of Jaeger write integers that JavaScript cannot hold as text.
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise Malformed(f"must be an integer, not {quoted(value)}", ".value")
        value = int(value)
    if tag.type == "float64" and not isinstance(value, (bool, str)):
        value = float(value)
    if isinstance(value, bool):
        return KeyValue(key=tag.key, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Malformed(f"must be an integer of 64 bits, not {quoted(value)}", ".value")
        return KeyValue(key=tag.key, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=tag.key, value=AnyValue(double_value=value))
    return KeyValue(key=tag.key, value=AnyValue(string_value=value))


def _time(name: str, microseconds: int) -> int:
    if not 0 <= microseconds < _MAX_US:
        raise Malformed(
            f"must be microseconds from 0 to {_MAX_US - 1}, not {quoted(microseconds)}", f".{name}"
        )
    return microseconds * _NS_PER_US


def _trace_id(text: str, full_ids: Mapping[bytes, bytes]) -> bytes:
    trace_id = _id("traceID", text, 16)
    return trace_id if any(trace_id[:8]) else full_ids.get(trace_id[8:], trace_id)


def _id(name: str, text: str, width: int) -> bytes:
    """An ID that Jaeger may have written without its leading zeros."""
    if 0 < len(text) <= 2 * width and text.isalnum() and text.isascii():
        try:
            return bytes.fromhex(text.rjust(2 * width, "0"))
        except ValueError:
            pass
    raise Malformed(f"must be up to {2 * width} hexadecimal digits, not {quoted(text)}", f".{name}")

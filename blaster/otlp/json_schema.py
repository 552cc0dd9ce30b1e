"""The JSON of ExportTraceServiceRequest, as OTLP has it.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding: protobuf's JSON, but for the IDs,
which are hexadecimal. Whatever is left out or null is None. Integers of 64 bits may be strings or
numbers, enums numbers or names.
"""

from __future__ import annotations

import msgspec

Integer = int | float | str | None


class Message(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """A message of OTLP."""


class AnyValue(Message):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Integer = None
    double_value: float | str | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None
    bytes_value: str | None = None


class ArrayValue(Message):
    values: tuple[AnyValue, ...] | None = None


class KeyValue(Message):
    key: str | None = None
    value: AnyValue | None = None


class KeyValueList(Message):
    values: tuple[KeyValue, ...] | None = None


class EntityRef(Message):
    schema_url: str | None = None
    type: str | None = None
    id_keys: tuple[str, ...] | None = None
    description_keys: tuple[str, ...] | None = None


class Resource(Message):
    attributes: tuple[KeyValue, ...] | None = None
    dropped_attributes_count: Integer = None
    entity_refs: tuple[EntityRef, ...] | None = None


class InstrumentationScope(Message):
    name: str | None = None
    version: str | None = None
    attributes: tuple[KeyValue, ...] | None = None
    dropped_attributes_count: Integer = None


class Event(Message):
    time_unix_nano: Integer = None
    name: str | None = None
    attributes: tuple[KeyValue, ...] | None = None
    dropped_attributes_count: Integer = None


class Link(Message):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    attributes: tuple[KeyValue, ...] | None = None
    dropped_attributes_count: Integer = None
    flags: Integer = None


class Status(Message):
    message: str | None = None
    code: Integer = None


class Span(Message):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    parent_span_id: str | None = None
    name: str | None = None
    kind: Integer = None
    start_time_unix_nano: Integer = None
    end_time_unix_nano: Integer = None
    attributes: tuple[KeyValue, ...] | None = None
    dropped_attributes_count: Integer = None
    events: tuple[Event, ...] | None = None
    dropped_events_count: Integer = None
    links: tuple[Link, ...] | None = None
    dropped_links_count: Integer = None
    status: Status | None = None
    flags: Integer = None


class ScopeSpans(Message):
    scope: InstrumentationScope | None = None
    spans: tuple[Span, ...] | None = None
    schema_url: str | None = None


class ResourceSpans(Message):
    resource: Resource | None = None
    scope_spans: tuple[ScopeSpans, ...] | None = None
    schema_url: str | None = None


class Request(Message):
    resource_spans: tuple[ResourceSpans, ...] | None = None

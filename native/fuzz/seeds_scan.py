"""Writes seed requests for fuzz_scan into the directory given, one a file."""

import sys
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def full_request() -> ExportTraceServiceRequest:
    """One span that uses every field of the schema."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add(schema_url="s")
    resource_spans.resource.dropped_attributes_count = 1
    resource_spans.resource.attributes.add(key="service.name").value.string_value = "seed"
    scope_spans = resource_spans.scope_spans.add(schema_url="s")
    scope_spans.scope.name = "scope"
    scope_spans.scope.attributes.add(key="k").value.bool_value = True
    span = scope_spans.spans.add(
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        parent_span_id=bytes(range(8)),
        trace_state="a=b",
        flags=257,
        name="GET /",
        kind=2,
        start_time_unix_nano=10**18,
        end_time_unix_nano=10**18 + 6 * 10**8,
        dropped_attributes_count=1,
        dropped_events_count=1,
        dropped_links_count=1,
    )
    span.attributes.add(key="http.route").value.string_value = "/"
    span.attributes.add(key="auth.token").value.int_value = 1
    span.attributes.add(key="d").value.double_value = 1.5
    span.attributes.add(key="b").value.bytes_value = b"\xff"
    array = span.attributes.add(key="a").value.array_value
    array.values.add().kvlist_value.values.add(key="k").value.int_value = -1
    event = span.events.add(time_unix_nano=1, name="e", dropped_attributes_count=1)
    event.attributes.add(key="k").value.string_value = "v" * 200
    link = span.links.add(trace_id=bytes(16), span_id=bytes(8), trace_state="a=b", flags=1)
    link.attributes.add(key="k").value.string_value = "v"
    span.status.code = 2
    span.status.message = "m"
    return request


def main() -> None:
    directory = Path(sys.argv[1])
    full = full_request()
    bare = ExportTraceServiceRequest()
    spans = bare.resource_spans.add().scope_spans.add().spans
    for i in range(3):
        spans.add(trace_id=bytes([1] * 16), span_id=bytes([i] * 8))
    seeds = {
        "full": full.SerializeToString(),
        "bare": bare.SerializeToString(),
        "twice": full.SerializeToString() * 2,
        "unknown": b"\xa0\x06\x01" + b"\xa3\x06\xa0\x06\x01\xa4\x06" + full.SerializeToString(),
    }
    for name, seed in seeds.items():
        (directory / name).write_bytes(seed)


if __name__ == "__main__":
    main()

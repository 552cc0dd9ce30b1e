"""The readers that are fuzzed: each takes any bytes, and raises for a fault of the reader only."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support import cli

from blaster.errors import BlasterError, UsageError
from blaster.otlp.json_reader import to_protobuf
from blaster.otlp.malformed import Malformed
from blaster.payload.capture import capture
from blaster.report.command import ReportOptions, report
from blaster.transport.http_answer import read_answer, retry_after
from blaster.transport.http_response import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    BadResponse,
    ResponseReader,
)
from blaster.verdict import usl

SPANS = 10


@dataclass(frozen=True)
class Target:
    """``run`` takes mutations of ``seeds()``; ``dictionary``: what its inputs are made of."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    dictionary: tuple[bytes, ...] = ()


# ---- the answers of an HTTP/1.1 server ----


def http_response(data: bytes) -> None:
    """Any bytes end in responses, in BadResponse or in the wish for more, within bounds."""
    reader = ResponseReader()
    step = 1 + len(data) % 7
    with contextlib.suppress(BadResponse):
        for at in range(0, len(data), step):
            _answered(reader.feed(data[at : at + step]))
            assert len(reader._data) <= MAX_HEAD_BYTES + step, "the head has no bound"
            assert len(reader._body) <= MAX_BODY_BYTES + step, "the body has no bound"
        _answered(reader.end())


def _answered(response: Any) -> None:
    if response is not None:
        for encoding in ("protobuf", "json"):
            answer = read_answer(response, SPANS, encoding)
            assert 0 <= answer.rejected <= SPANS, answer
        assert retry_after(response) >= -1


def _http_seeds() -> list[bytes]:
    partial = b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"why not"}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return [
        head % len(partial) + partial,
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 9\r\n\r\n"
        b"\x0a\x07\x08\x03\x12\x03why",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: 1\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 429 Slow\r\nRetry-After: Fri, 31 Dec 2027 23:59:59 GMT\r\n"
        b"Content-Type: application/json\r\nContent-Length: 26\r\n\r\n"
        b'{"code":8,"message":"odd"}',
        b"HTTP/1.0 204 None\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nLocation: http://x/\r\n\r\nto the end",
    ]


# ---- OTLP/JSON: the sink's requests and captured files ----


def otlp_json(data: bytes) -> None:
    """Any bytes become a request that protobuf reads, or Malformed; as a file, UsageError."""
    with contextlib.suppress(Malformed):
        try:
            ExportTraceServiceRequest.FromString(to_protobuf(data))
        except DecodeError as error:
            raise AssertionError("protobuf does not read what was made") from error
    FILE.write_bytes(data)
    with contextlib.suppress(UsageError):
        capture.read(str(FILE))


def _otlp_seeds() -> list[bytes]:
    value = {
        "arrayValue": {"values": [{"kvlistValue": {"values": [{"key": "a", "value": {}}]}}]},
    }
    attributes = [
        {"key": "s", "value": {"stringValue": "x"}},
        {"key": "i", "value": {"intValue": "5"}},
        {"key": "d", "value": {"doubleValue": 0.5}},
        {"key": "b", "value": {"bytesValue": "AAE="}},
        {"key": "a", "value": value},
    ]
    span = {
        **{"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "2", "parentSpanId": ""},
        **{"name": "n", "kind": 2, "startTimeUnixNano": "1", "endTimeUnixNano": "9"},
        **{"attributes": attributes, "status": {"code": 2, "message": "m"}, "flags": 256},
        "events": [{"name": "e", "timeUnixNano": "1", "attributes": attributes}],
        "links": [{"traceId": "0" * 31 + "3", "spanId": "0" * 15 + "4", "traceState": "a=b"}],
    }
    scope = {"name": "s", "version": "1", "attributes": attributes}
    resource = {
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "x"}}]},
        "scopeSpans": [{"scope": scope, "spans": [span, {**span, "spanId": "0" * 15 + "5"}]}],
        "schemaUrl": "u",
    }
    jaeger_span = {
        **{"traceID": "1", "spanID": "2", "operationName": "o", "processID": "p"},
        **{"startTime": 1, "duration": 5, "references": [{"refType": "CHILD_OF", "traceID": "1"}]},
        "tags": [{"key": "error", "type": "bool", "value": True}],
        "logs": [{"timestamp": 2, "fields": [{"key": "k", "type": "string", "value": "v"}]}],
    }
    trace = {"traceID": "1", "spans": [jaeger_span], "processes": {"p": {"serviceName": "s"}}}
    documents = [{"resourceSpans": [resource]}, {"resourceSpans": []}, {"data": [trace]}]
    return [json.dumps(document).encode() for document in documents]


# ---- results files ----


def results_file(data: bytes) -> None:
    """``blaster report`` shows and converts the file, or refuses it in one line."""
    FILE.write_bytes(data)
    every = {"json": "j", "csv": "c", "html": "h", "markdown": "m", "junit": "x"}
    outputs = {name: str(FILE.with_suffix(f".{end}")) for name, end in every.items()}
    some = {name: outputs[name] for name in ("json", "csv")}
    for options in (
        *(ReportOptions([str(FILE)]), ReportOptions([str(FILE)], **outputs, quiet=True)),
        *(ReportOptions([str(FILE)], **some, quiet=True), ReportOptions([str(GOOD), str(FILE)])),
    ):
        shown, message = io.StringIO(), ""
        try:
            with contextlib.redirect_stdout(shown):
                report(options)
        except BlasterError as error:
            message = str(error)
        assert message.isprintable(), message
        text = shown.getvalue()
        assert all(c.isprintable() or c == "\n" for c in text), text


def _results_seeds() -> list[bytes]:
    runs = (
        ("--embedded", "--stages", "200@600ms,100..400@600ms", "--fault", "status=INTERNAL@20%"),
        ("--transport", "null", "--duration", "300ms", "--workload", "web-shop"),
    )
    seeds = []
    for options in runs:
        cli.blaster("run", *options, "--quiet", "--json", str(GOOD))
        seeds.append(GOOD.read_bytes())
    return [*seeds, json.dumps(_findings()).encode()]


def _findings() -> dict[str, Any]:
    """The results of a capacity search."""
    trial = {
        **{"phase": "search", "load_spans_per_s": 1000.0, "accepted_spans_per_s": 990.0},
        **{"scheduled": 100, "accepted": 99, "late": 0, "rejected": 0, "failed": 1, "unknown": 0},
        **{"not_offered": 0, "loss_ratio": 0.01, "p50_ms": 1.0, "p99_ms": None, "grace_ms": 1.0},
        **{"duration_s": 1.0, "concurrency": 1.0, "target_cpu_percent": None, "reason": "r"},
        **{"generator_cpu_percent": 5.0, "broken": [], "limited_by": "target"},
    }
    law = usl.fit([1.0, 2.0, 4.0, 8.0], [990.0, 1900.0, 3400.0, 5500.0])
    found = {"schema": 1, "ndr": 900.0, "limited_by": "target", "trials": [trial] * 5}
    return {**found, "usl": msgspec.to_builtins(law)}


FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-")
FILE, GOOD = Path(FOLDER.name, "fuzzed.json"), Path(FOLDER.name, "good.json")

TARGETS = {
    "http_response": Target(
        http_response,
        _http_seeds,
        (b"Content-Length: ", b"Transfer-Encoding: chunked", b"HTTP/1.1 ", b"Retry-After: "),
    ),
    "otlp_json": Target(otlp_json, _otlp_seeds, (b"resourceSpans", b"traceId", b"result")),
    "results_file": Target(results_file, _results_seeds),
}

"""The sink's stand-in for BeTrace: its API, and violations out of the bytes that came."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support import peers, sinks
from support.stamping import stamp

from blaster._native import Scanner
from blaster.errors import UsageError
from blaster.otlp.rules import RULES
from blaster.payload import flat
from blaster.payload.columns import ColumnSource
from blaster.payload.mix import Mix
from blaster.payload.span import decode
from blaster.sink.betrace import NEW, OLD, check_quirks
from blaster.sink.ingest import MOST_BYTES, Refused, request_of
from blaster.sink.kept import KEPT, take_all
from blaster.sink.process import EmbeddedSink

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
EXPRESSIONS = (
    "span.duration > 500",
    'span.status == "error"',
    'span.attributes["http.route"] and not span.attributes["auth.token"]',
)
NEWER = (
    'when { api.request } never { api.request.where("duration_ms" > 500) }',
    'when { api.request } never { api.request.where("http.status_code" == 500) }',
    'when { api.request.where("http.route" contains "/") } '
    'always { api.request.where("auth.token" != "") }',
)


def request(*broken: tuple[int, int, int], first: int = 1) -> bytes:
    """Span n, in a trace of its own, breaks the rules that its three flags say."""
    message = ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for number, (slow, error, missing) in enumerate(broken, first):
        span = spans.add(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"))
        span.start_time_unix_nano = 10**18
        span.end_time_unix_nano = 10**18 + (600_000_000 if slow else 1)
        span.status.code = 2 if error else 0
        if missing:
            span.attributes.add(key="http.route").value.string_value = "/"
    return message.SerializeToString()


MIXED = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0), (1, 1, 0))


def ask(sink: EmbeddedSink, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", sink.api_port, timeout=10)
    with contextlib.closing(connection):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, None if body is None else data)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def export(sink: EmbeddedSink, data: bytes) -> None:
    with grpc.insecure_channel(sink.endpoint.removeprefix("http://")) as channel:
        channel.unary_unary(EXPORT)(data, timeout=20)


def rule(name: str, expression: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "expression": expression, "enabled": True, "severity": "HIGH", **more}


def create_all(sink: EmbeddedSink, expressions: tuple[str, ...] = EXPRESSIONS) -> None:
    for name, expression in zip(RULES, expressions, strict=True):
        status, _ = ask(sink, "POST", "/v1/rules", rule(name, expression, tags=["load-test"]))
        assert status == 200


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedSink]:
    with EmbeddedSink() as sink:
        yield sink


@pytest.mark.native
def test_the_scanner_keeps_the_spans_that_break_a_watched_rule() -> None:
    """Which spans, with IDs, times and rules; nothing of a malformed request; as many as fit."""
    scanner = Scanner()
    scanner.request(request(*MIXED))
    assert len(take_all(scanner)[0]) == 0  # nobody watched
    scanner.watch(0b011)
    scanner.request(request(*MIXED))
    assert scanner.request(request(*MIXED) + b"\x0a") == -1
    kept, missed = take_all(scanner)
    assert missed == 0
    assert kept["rules"].tolist() == [0b001, 0b010, 0b011]
    assert [int.from_bytes(k["trace_id"].tobytes(), "big") for k in kept] == [1, 2, 5]
    assert [int.from_bytes(k["span_id"].tobytes(), "big") for k in kept] == [1, 2, 5]
    assert (kept["start"] == np.uint64(10**18)).all()
    assert kept["end"].tolist() == [10**18 + 600_000_000, 10**18 + 1, 10**18 + 600_000_000]
    slow = request(*[(1, 0, 0)] * 1000)
    for _ in range(70):
        scanner.request(slow)
    kept, missed = take_all(scanner)
    assert len(kept) == 65536 and missed == 70_000 - 65536
    scanner.request(slow)
    assert len(take_all(scanner)[0]) == 1000
    assert scanner.counts()["violations"][0] == 2 + 2 + 71_000
    assert KEPT.itemsize == 48


@pytest.mark.parametrize("receiver", ["wire", "grpc"])
@pytest.mark.parametrize("expressions", [EXPRESSIONS, NEWER], ids=["older", "newer"])
def test_violations_are_found_in_what_is_sent(receiver: str, expressions: tuple[str, ...]) -> None:
    """By both receivers and in both dialects; a rule counts from its creation to its removal."""
    with sinks.started(receiver=receiver) as sink:
        export(sink, request(*MIXED, first=100))
        create_all(sink, expressions)
        export(sink, request(*MIXED))
        for name, traces in zip(RULES, ({1, 5}, {2, 5}, {3}), strict=True):
            status, said = ask(sink, "GET", f"/v1/violations?rule_id={name}&limit=10")
            assert status == 200 and said["totalCount"] == len(traces)
            assert {int(v["traceId"], 16) for v in said["violations"]} == traces
            assert {v["ruleId"] for v in said["violations"]} == {name}
        assert ask(sink, "DELETE", f"/v1/rules/{RULES[0]}")[0] == 200
        export(sink, request(*MIXED, first=10))
        assert ask(sink, "GET", f"/v1/violations?rule_id={RULES[0]}")[1]["totalCount"] == 2
        assert ask(sink, "GET", f"/v1/violations?rule_id={RULES[1]}")[1]["totalCount"] == 4
        one = ask(sink, "GET", f"/v1/violations?trace_id={2:032x}")[1]["violations"]
        assert len(one) == 1 and len(one[0]["spanId"]) == 16


def test_rules_come_and_go(shared: EmbeddedSink) -> None:
    """Names are IDs; a name is taken by a rule and by a failed creation, until it is deleted."""
    create_all(shared)
    status, said = ask(shared, "GET", "/v1/rules")
    assert status == 200 and said["totalCount"] == 3
    assert [(r["id"], r["enabled"]) for r in said["rules"]] == [(name, True) for name in RULES]
    assert "createdAt" in said["rules"][0]
    assert ask(shared, "POST", "/v1/rules", rule(RULES[0], EXPRESSIONS[0]))[0] == 409
    assert ask(shared, "GET", f"/v1/rules/{RULES[0]}")[1]["expression"] == EXPRESSIONS[0]
    for name in RULES:
        assert ask(shared, "DELETE", f"/v1/rules/{name}") == (200, {"success": True})
    assert ask(shared, "DELETE", f"/v1/rules/{RULES[0]}")[0] == 404
    assert ask(shared, "POST", "/v1/rules", rule("odd", "duration over 9000"))[0] == 400
    assert ask(shared, "GET", "/v1/rules")[1]["totalCount"] == 0
    assert ask(shared, "POST", "/v1/rules", rule("odd", EXPRESSIONS[0]))[0] == 409
    assert ask(shared, "DELETE", "/v1/rules/odd")[0] == 200
    assert ask(shared, "POST", "/v1/rules", rule("odd", "span.name == 'x'"))[0] == 200
    assert ask(shared, "DELETE", "/v1/rules/odd")[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000),
        *({}, {"name": "x"}, {"name": "", "expression": "e"}, {"name": 3, "expression": "e"}),
        {"name": "a/b", "expression": "e"},
        {"name": "x", "expression": "span.duration > 500", "tags": 7},
    ],
)
def test_what_is_no_rule_is_refused(shared: EmbeddedSink, body: Any) -> None:
    status, said = ask(shared, "POST", "/v1/rules", body)
    assert status == 400 and said["message"]


def test_quirks() -> None:
    """Keys in snake_case, everything twice, only one dialect, never ready: each on request."""
    with sinks.started(betrace=["snake", "twice", "old-dialect"]) as it:
        assert ask(it, "POST", "/v1/rules", rule(RULES[0], NEWER[0]))[0] == 400
        assert ask(it, "DELETE", f"/v1/rules/{RULES[0]}")[0] == 200
        create_all(it)
        assert "created_at" in ask(it, "GET", "/v1/rules")[1]["rules"][0]
        export(it, request(*[(1, 0, 0)] * 80))
        said = ask(it, "GET", f"/v1/violations?rule_id={RULES[0]}")[1]
        assert said["total_count"] == len(said["violations"]) == 100  # unless a limit is given
        said = ask(it, "GET", f"/v1/violations?rule_id={RULES[0]}&limit=1000")[1]
        assert said["total_count"] == 160
        assert len({v["id"] for v in said["violations"]}) == 160
        assert len({v["trace_id"] for v in said["violations"]}) == 80
    with sinks.started(betrace=["never-ready", "new-dialect"]) as it:
        assert ask(it, "GET", "/v1/health")[0] == ask(it, "GET", "/health")[0] == 503
        assert ask(it, "POST", "/v1/rules", rule(RULES[0], EXPRESSIONS[0]))[0] == 400
    with pytest.raises(UsageError, match=r"--betrace 'shy': must be snake, twice"):
        check_quirks("--betrace", ["shy"])


def test_violations_by_time(shared: EmbeddedSink) -> None:
    """By RFC 3339 and by seconds since 1970; what is neither is refused."""
    create_all(shared)
    export(shared, request((0, 1, 0), first=77))
    path = f"/v1/violations?rule_id={RULES[1]}&trace_id={77:032x}"
    (found,) = ask(shared, "GET", path)[1]["violations"]
    for window, count in (
        (f"start_time={found['timestamp']}", 1),
        ("start_time=2001-01-01T00:00:00Z&end_time=2001-01-02T00:00:00Z", 0),
        ("start_time=1&end_time=2", 0),
        ("start_time=1", 1),
    ):
        said = ask(shared, "GET", f"{path}&{window}")[1]
        assert said["totalCount"] == count, window
    for window in ("start_time=yesterday", "end_time=1e999", "limit=many"):
        assert ask(shared, "GET", f"{path}&{window}")[0] == 400
    for name in RULES:
        ask(shared, "DELETE", f"/v1/rules/{name}")


def span(number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "parentSpanId": "",
        "name": "n",
        "startTime": 10**18,
        "endTime": 10**18 + 5,
        "durationMs": 0,
        "attributes": {},
        "status": "ok",
        **more,
    }


def test_its_own_ingest_counts_and_detects() -> None:
    """POST /v1/spans is counted, checked and judged as what comes by OTLP."""
    with EmbeddedSink() as sink:
        create_all(sink)
        spans = [
            span(1, endTime=10**18 + 700_000_000),
            span(2, status="error"),
            span(3, attributes={"http.route": "/"}),
            span(4, attributes={"http.route": "/", "auth.token": "t"}),
        ]
        status, said = ask(sink, "POST", "/v1/spans", {"spans": spans})
        assert (status, said) == (200, {"accepted": 4, "rejected": 0, "errors": []})
        export(sink, request((1, 0, 0), first=9))
        counts = sink.counts()
        assert counts.spans == 5 and counts.requests == 2
        assert counts.violations_by_rule == dict(zip(RULES, (2, 1, 1), strict=True))
        found = ask(sink, "GET", f"/v1/violations?rule_id={RULES[0]}")[1]["violations"]
        assert {int(v["traceId"], 16) for v in found} == {1, 9}
        connection = http.client.HTTPConnection("127.0.0.1", sink.api_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            page = connection.getresponse().read().decode()
    metrics = peers.prometheus_sums(page)
    assert metrics["betrace_spans_ingested"] == 5
    assert metrics["betrace_violations"] == 4
    assert metrics["betrace_rules_active"] == 3
    assert f'betrace_rule_evaluation_total{{rule_id="{RULES[0]}",result="hit"}} 2' in page
    assert f'betrace_rule_evaluation_total{{rule_id="{RULES[0]}",result="miss"}} 3' in page


@pytest.mark.parametrize("body", [None, [], {"spans": 3}, {"spans": [3]}, {"spans": [{}]}])
def test_what_holds_no_spans_is_refused(body: Any) -> None:
    with pytest.raises(Refused):
        request_of(body)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("traceId", "xyz"),
        ("traceId", ""),
        ("spanId", "01"),
        ("name", ""),
        ("name", 7),
        ("startTime", -1),
        ("startTime", "soon"),
        ("endTime", 2**64),
        ("attributes", {"a": 1}),
        ("attributes", {str(i): "" for i in range(129)}),
        ("parentSpanId", 9),
    ],
)
def test_one_wrong_span_spoils_all(key: str, value: Any) -> None:
    with pytest.raises(Refused) as refused:
        request_of({"spans": [span(), span(**{key: value})]})
    assert refused.value.status == 400


def test_ten_thousand_spans_are_the_most() -> None:
    assert request_of({"spans": [span()] * 10_000})[1] == 10_000
    with pytest.raises(Refused, match="batch too large: 10001"):
        request_of({"spans": [span()] * 10_001})


def test_a_body_too_long_is_refused_unread(shared: EmbeddedSink) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared.api_port, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/spans")
        connection.putheader("Content-Length", str(MOST_BYTES + 1))
        connection.endheaders()
        assert connection.getresponse().status == 400


def test_violations_are_exported_as_spans() -> None:
    """Each violation goes to the OTLP endpoint as a span in the trace that it is about."""
    with (
        peers.counting_receiver() as tempo,
        sinks.started(violations_endpoint=tempo.endpoint) as sink,
    ):
        create_all(sink)
        export(sink, request(*MIXED))
        tempo.wait_for("spans", 5)
        spans = tempo.spans()
    assert {s.name for s in spans} == {"betrace.violation"}
    of = {
        (s.trace_id[-1], {a.key: a.value.string_value for a in s.attributes}[key])
        for s in spans
        for key in ("betrace.violation.rule_id",)
    }
    assert of == {(1, RULES[0]), (5, RULES[0]), (2, RULES[1]), (5, RULES[1]), (3, RULES[2])}
    attributes = {a.key: a.value.string_value for a in spans[0].attributes}
    assert attributes.keys() == {
        f"betrace.violation.{key}" for key in ("id", "rule_id", "rule_name", "severity", "trace_id")
    }
    assert attributes["betrace.violation.trace_id"] == spans[0].trace_id.hex()
    assert spans[0].parent_span_id


def test_the_spans_of_flat_carry_what_both_dialects_need() -> None:
    """The newer dialect knows spans by their name, api.request, and sees nothing but attributes."""
    mix = Mix([flat.shape()], Fraction(1))
    first, counts, ended = (np.array([n], np.int64) for n in (0, 3, 10**18))
    columns = ColumnSource(1, mix).make(first, counts, ended)
    (data,) = stamp(mix.template, columns)
    slow, error, missing = decode(data)
    assert {span.name for span in (slow, error, missing)} == {"api.request"}
    assert 500 < int(slow.attributes["duration_ms"] or 0) <= (slow.end_ns - slow.start_ns) / 1e6
    assert error.attributes["http.status_code"] == "500" and error.status == 2
    assert "auth.token" not in missing.attributes and "/" in (
        missing.attributes["http.route"] or ""
    )
    assert "duration_ms" not in error.attributes | missing.attributes


def test_the_expressions_are_those_that_are_understood() -> None:
    assert ["".join(e.split()) for e in EXPRESSIONS] == list(OLD)
    assert ["".join(e.split()) for e in NEWER] == list(NEW)

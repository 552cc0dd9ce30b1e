"""Tempo, Jaeger and the Collector as they were seen to answer, and every way to go wrong."""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.fake_backend import Reply, fake_backend

from blaster.backends import otlp
from blaster.backends.client import Client, parse_base
from blaster.backends.collector import Collector
from blaster.backends.findings import Flow, Sent, SentTrace
from blaster.backends.jaeger import Jaeger
from blaster.backends.metrics import parse
from blaster.backends.policy import SamplingPolicy, parse_policy
from blaster.backends.readback import compared
from blaster.backends.tempo import Tempo
from blaster.backends.waiting import Wait
from blaster.otlp.rules import RULES
from blaster.payload.span import Span

START = 1_700_000_000_000_000_000


def span(trace: int, number: int, **more: Any) -> Span:
    values: dict[str, Any] = {
        "trace_id": trace.to_bytes(16, "big"),
        "span_id": number.to_bytes(8, "big"),
        "parent_id": b"" if number == 1 else (1).to_bytes(8, "big"),
        "name": "GET /",
        "start_ns": START,
        "end_ns": START + 5,
        "status": 0,
        "attributes": {"http.route": "/", "http.status_code": "200", "ok": "true"},
    }
    return Span(**{**values, **more})


def sent_of(traces: int = 3, spans: int = 2, accepted: int = 100) -> Sent:
    """Traces 1, 2, … of so many spans each are the sample."""
    sample = [
        SentTrace(
            n.to_bytes(16, "big"),
            {s.span_id: s for s in (span(n, i + 1) for i in range(spans))},
        )
        for n in range(1, traces + 1)
    ]
    violating = {rule: {bytes([0] * 14 + [7, n])} for n, rule in enumerate(RULES)}
    now = time.time()
    counts = dict.fromkeys(RULES, 1)
    return Sent(accepted, 0, now - 1, now, counts, violating, ("blaster",), sample)


def as_json(found: Span, *, ids: str, snake: bool = False) -> dict[str, Any]:
    def shown(value: bytes) -> str:
        return base64.b64encode(value).decode() if ids == "base64" else value.hex()

    keys = ["traceId", "spanId", "parentSpanId", "startTimeUnixNano", "endTimeUnixNano"]
    if snake:
        keys = ["trace_id", "span_id", "parent_span_id", "start_time_unix_nano"]
        keys += ["end_time_unix_nano"]
    values = [shown(found.trace_id), shown(found.span_id), shown(found.parent_id)]
    values += [str(found.start_ns), str(found.end_ns)]
    typed: dict[str, Any] = {
        "http.route": {"stringValue": "/"},
        "http.status_code": {"intValue": "200"},
        "ok": {"boolValue": True},
        "added.by.the.store": {"arrayValue": {}},
    }
    return {
        **dict(zip(keys, values, strict=True)),
        "name": found.name,
        "status": {},
        "attributes": [{"key": key, "value": value} for key, value in typed.items()],
    }


def traces(ids: str, shape: str, spans: int = 2) -> Callable[[str], Any]:
    """A store's answer for a trace ID, in one of the shapes there are."""

    def answer(trace_id: str) -> Any:
        number = int(trace_id, 16)
        items = [as_json(span(number, n + 1), ids=ids) for n in range(spans)]
        if shape == "v1":
            scopes = [{"instrumentationLibrarySpans": [{"spans": items}]}]
            return {"batches": scopes}
        if shape == "jaeger":
            return {"result": {"resourceSpans": [{"scopeSpans": [{"spans": items}]}]}}
        return {"trace": {"resourceSpans": [{"scopeSpans": [{"spans": items}]}]}}

    return answer


Answer = Callable[[str, str, dict[str, str], Any], Any]


class RecordedTempo:
    """Tempo's API; ``v2``: whether it has the second version of traces by ID."""

    def __init__(self, *, v2: bool = True, stored: int = 100, discarded: int = 0) -> None:
        self.v2, self.stored, self.discarded = v2, stored, discarded
        self.received = 0
        self.give = traces("base64", "v2" if v2 else "v1")
        self.counts = True

    def __call__(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path in ("/ready", "/metrics"):
            return (
                f'tempo_distributor_spans_received_total{{tenant="a"}} {self.received}\n'
                f'tempo_discarded_spans_total{{reason="trace_too_large",tenant="a"}} '
                f"{self.discarded if self.received else 0}\n"
            )
        if path == "/api/metrics/query":
            self.received = 100
            if not self.counts:
                return Reply(500, "error querying: empty ring")
            assert query["q"] == '{resource.service.name="blaster"} | count_over_time()'
            return {"series": [{"labels": [], "value": self.stored}], "metrics": {}}
        for prefix in ("/api/v2/traces/", "/api/traces/"):
            if path.startswith(prefix):
                return self.give(path[-32:]) if self.v2 == ("v2" in prefix) else None
        if path == "/api/search":
            rule = next(n for n, name in enumerate(RULES) if name in query["q"])
            return {"traces": [{"traceID": f"{0x700 + rule:x}"}, {"traceID": "abc"}]}
        return None


def client(url: str, timeout_s: float = 0.5) -> Client:
    return Client(parse_base("--verify", url, 80), timeout_s=timeout_s)


def verify(
    make: Callable[[Client], Any], answer: Any, sent: Sent, limit_s: float = 0.6, **before: Any
) -> tuple[Any, dict[str, Any]]:
    """The adapter's Verification and its stages by name."""
    with fake_backend(answer) as fake:
        backend = make(client(fake.url, 0.3))
        wait = Wait(limit_s, lambda: False)
        backend.prepare(wait)
        for name, value in before.items():
            setattr(answer, name, value)
        wait.accepted_at = time.monotonic()
        flow = Flow(sent.accepted, sent.accepted)
        backend.verify(sent, flow, wait)
        if isinstance(backend, Tempo):
            backend.verify_violations(sent, flow, wait)
        backend.close()
    return backend.verification, {stage.stage: stage for stage in flow.stages}


@pytest.mark.parametrize("v2", [True, False])
def test_tempo(v2: bool) -> None:
    """Counts, traces in either version of the API, and violations by search."""
    said, stages = verify(Tempo, RecordedTempo(v2=v2), sent_of(), received=100)
    assert said.problems == []
    assert {name: (s.spans, s.lost) for name, s in stages.items()} == {
        "received by Tempo": (100, 0),
        "stored in Tempo": (100, 0),
        "found in Tempo": (3, 0),
        "violations in Tempo": (3, 0),
    }
    assert (said.read_back.spans_found, said.read_back.differences) == (6, [])


def test_tempo_discards_silently() -> None:
    """Spans received and not stored are lost there, for the reason that its counter gives."""
    tempo = RecordedTempo(stored=60, discarded=40)
    _said, stages = verify(Tempo, tempo, sent_of(), received=100)
    stored = stages["stored in Tempo"]
    assert (stored.spans, stored.lost) == (60, 40)
    assert stored.reason == "40 discarded: trace_too_large"


def test_tempo_without_counts_over_time() -> None:
    """No local blocks is no fault: the traces read back stand for all."""
    tempo = RecordedTempo()
    tempo.counts = False
    said, stages = verify(Tempo, tempo, sent_of(), received=100)
    assert said.problems == [] and "stored in Tempo" not in stages
    assert stages["found in Tempo"].spans == 3
    assert any("empty ring" in note for note in said.notes)


def test_a_trace_in_part_and_a_trace_that_differs() -> None:
    tempo = RecordedTempo()
    whole = tempo.give

    def give(trace_id: str) -> Any:
        number = int(trace_id, 16)
        if number == 1:
            return None
        if number == 2:
            return traces("hex", "v2", spans=1)(trace_id)
        answer = whole(trace_id)
        answer["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] = "other"
        return answer

    tempo.give = give
    said, stages = verify(Tempo, tempo, sent_of(), received=100)
    found = stages["found in Tempo"]
    assert (found.spans, found.lost) == (1, 2)
    assert found.reason == "1 not found, 1 only in part"
    assert said.read_back.spans_found == 3
    assert len(said.problems) == 1 and "name is 'other', was 'GET /'" in said.problems[0]


@pytest.mark.parametrize("ids", ["hex", "base64"])
def test_jaeger(ids: str) -> None:
    give = traces(ids, "jaeger")

    def answer(method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path == "/api/v3/services":
            return {"services": ["blaster"]}
        return give(path[-32:]) if path.startswith("/api/v3/traces/") else None

    said, stages = verify(Jaeger, answer, sent_of())
    assert said.problems == []
    assert stages["found in Jaeger"].spans == 3 and said.read_back.spans_found == 6


class RecordedCollector:
    """A page of metrics in some style of names; ``sent`` comes after the first look."""

    def __init__(self, prefix: str, suffix: str) -> None:
        self.prefix, self.suffix = prefix, suffix
        self.base, self.accepted, self.exported = 1000, 0, 0
        self.more = ""

    def __call__(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        if path != "/metrics":
            return None
        a, z = self.prefix, self.suffix
        return (
            f"# TYPE {a}receiver_accepted_spans{z} counter\n"
            f'{a}receiver_accepted_spans{z}{{receiver="otlp",transport="grpc"}} '
            f"{self.base + self.accepted}\n"
            f'{a}receiver_accepted_spans{z}{{receiver="otlp",transport="http"}} 5\n'
            f'{a}receiver_refused_spans{z}{{receiver="otlp",transport="grpc"}} 0\n'
            f'{a}exporter_sent_spans{z}{{exporter="otlp"}} {self.base + self.exported}\n'
            f"{self.more}"
        )


@pytest.mark.parametrize("prefix", ["otelcol_", ""])
@pytest.mark.parametrize("suffix", ["_total", ""])
def test_collector_in_every_style_of_names(prefix: str, suffix: str) -> None:
    """Only what was added counts, whatever the counters stood at."""
    answer = RecordedCollector(prefix, suffix)
    said, stages = verify(Collector, answer, sent_of(), accepted=100, exported=100)
    assert said.problems == []
    assert stages["received by the collector"].spans == 100
    assert stages["exported by the collector"].spans == 100
    assert said.counters["otelcol_receiver_accepted_spans"] == 100


def test_collector_that_was_started_anew() -> None:
    """A counter that came down began at 0."""
    answer = RecordedCollector("otelcol_", "_total")
    _, stages = verify(Collector, answer, sent_of(), base=0, accepted=100, exported=90)
    assert stages["received by the collector"].spans == 100
    assert stages["exported by the collector"].spans == 90


def test_collector_says_where_spans_are() -> None:
    answer = RecordedCollector("otelcol_", "_total")
    more = (
        'otelcol_exporter_sent_spans_total{exporter="file"} 100\n'
        'otelcol_exporter_enqueue_failed_spans_total{exporter="otlp"} 25\n'
        'otelcol_exporter_send_failed_spans_total{exporter="otlp"} 10\n'
        'otelcol_processor_incoming_items_total{processor="filter"} 100\n'
        'otelcol_processor_outgoing_items_total{processor="filter"} 95\n'
        'otelcol_exporter_queue_size{exporter="otlp"} 3\n'
    )
    said, stages = verify(Collector, answer, sent_of(), accepted=100, exported=60, more=more)
    otlp_stage = stages["exported by the collector (otlp)"]
    assert (otlp_stage.spans, otlp_stage.lost) == (60, 40)
    assert otlp_stage.reason == (
        "25 found its queue full, 10 could not be sent, 5 stayed in the processor filter, "
        "3 still in its queue"
    )
    assert stages["exported by the collector (file)"].lost == 0
    assert said.counters["otelcol_exporter_queue_size"] == 3


def test_collector_without_its_counters() -> None:
    def answer(method: str, path: str, query: dict[str, str], body: Any) -> Any:
        return "up 1\n"

    said, stages = verify(Collector, answer, sent_of())
    assert said.problems == ["its metrics have no otelcol_receiver_accepted_spans"]
    assert stages["received by the collector"].lost == 100


FAULTS: dict[str, Any] = {
    "404": None,
    "500": Reply(500, "<html>\x1b[31moops</html>"),
    "truncated": Reply(200, b'{"trace": {"resou', promised=100),
    "half": Reply(200, b'{"trace": {"resou'),
    "nonsense": Reply(200, {"trace": 7, "result": [], "series": {}, "services": 1, "traces": "x"}),
    "deep nonsense": Reply(
        200, {"trace": {"resourceSpans": [{"scopeSpans": [{"spans": [7, {}]}]}]}}
    ),
    "silent": Reply(silent=True),
    "a byte at a time": Reply(200, b"{" * 10_000, drip_s=0.1),
}


@pytest.mark.parametrize("make", [Tempo, Jaeger, Collector])
@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("when", ["always", "after the run"])
def test_faults_are_one_line(make: type, fault: str, when: str) -> None:
    """Told in a line, or as traces that were not found, and never raised."""
    good: Answer = {
        Tempo: RecordedTempo(),
        Jaeger: lambda *asked: {"services": []},
        Collector: RecordedCollector("otelcol_", "_total"),
    }[make]  # type: ignore[assignment]
    broken = [when == "always"]

    def answer(*asked: Any) -> Any:
        return FAULTS[fault] if broken[0] else good(*asked)

    with fake_backend(answer) as fake:
        backend = make(client(fake.url, 0.2))
        wait = Wait(0.3, lambda: False)
        backend.prepare(wait)
        broken[0] = True
        flow = Flow(100, 100)
        backend.verify(sent_of(), flow, wait)
        backend.close()
    said = backend.verification
    assert said.problems or any(stage.lost for stage in flow.stages)
    for problem in said.problems:
        assert problem.isprintable() and len(problem) < 500


def test_how_spans_differ() -> None:
    """Every part is compared; an attribute more is none, a span more or twice is a difference."""
    sent = SentTrace((1).to_bytes(16, "big"), {span(1, 1).span_id: span(1, 1)})
    same = span(1, 1, attributes={**span(1, 1).attributes, "more": "x"})
    assert compared(sent, [same]) == []
    for change, said in (
        ({"name": "x"}, "name is 'x', was 'GET /'"),
        ({"start_ns": 1}, f"start_ns is '1', was '{START}'"),
        ({"end_ns": 1}, "end_ns is"),
        ({"status": 2}, "status is '2', was '0'"),
        ({"parent_id": b"\1" * 8}, "parent is '0101010101010101', was ''"),
        ({"attributes": {}}, "attribute http.route is missing"),
        ({"attributes": {**same.attributes, "ok": "false"}}, "attribute ok is 'false', was 'true'"),
    ):
        lines = compared(sent, [span(1, 1, **change)])
        assert lines and said in lines[0], change
    assert "is stored twice" in compared(sent, [same, same])[0]
    assert "was not sent" in compared(sent, [same, span(1, 2)])[0]
    part = SentTrace(sent.trace_id, sent.spans, whole=False)
    assert compared(part, [same, span(1, 2)]) == []


@given(st.binary(min_size=16, max_size=16))
def test_ids_in_hex_and_base64_are_the_same(value: bytes) -> None:
    """In either notation, and in hex without its leading zeros where it is told how long it is."""
    assert otlp.id_of(value.hex(), 16) == value
    assert otlp.id_of(base64.b64encode(value).decode(), 16) == value
    assert otlp.id_of(value[:8].hex(), 8) == value[:8]
    assert otlp.id_of(base64.b64encode(value[:8]).decode(), 8) == value[:8]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "trace",
                        "result",
                        "batches",
                        "resourceSpans",
                        "scopeSpans",
                        "spans",
                        "traceId",
                    ),
                    *("spanId", "attributes", "key", "value", "status", "code", "intValue"),
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_read(answer: Any) -> None:
    """Any answer of a store yields its spans, or none."""
    assert isinstance(otlp.spans_in(answer), list)


@given(st.text(max_size=300))
def test_any_page_is_parsed_or_refused(text: str) -> None:
    """A page of metrics is read or is a ValueError; nothing else comes of it."""
    with contextlib.suppress(ValueError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("keep errors, keep > 1000 ms, else 10 %", SamplingPolicy(True, 10**9, 0.1)),
        ("Keep  errors,keep >2s,else 0.5%", SamplingPolicy(True, 2 * 10**9, 0.005)),
        ("10 %", SamplingPolicy(False, None, 0.1)),
        ("keep errors", SamplingPolicy(True, None, 0.0)),
        ("keep > 500ms, else none", SamplingPolicy(False, 500_000_000, 0.0)),
    ],
)
def test_policies(text: str, policy: SamplingPolicy) -> None:
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "keep",
        "else 10 %, keep errors",
        "else 110 %",
        "keep > 5 parsecs",
        "x" * 500,
        "10",
        "-1 %",
    ],
)
def test_no_policies(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_policy(text)


counts = hnp.arrays("int64", 5, elements=st.integers(0, 10_000))


@given(
    counts,
    hnp.arrays("int64", 5, elements=st.integers(1, 50)),
    hnp.arrays("bool", 5),
    hnp.arrays("int64", 5, elements=st.integers(0, 2000)),
    st.floats(0, 1),
)
def test_a_policy_keeps_between_its_bounds(
    traces_: Any, spans: Any, failed: Any, took: Any, share: float
) -> None:
    """The expected number lies in the interval, which is a point where nothing is left to chance,
    and is never below what is kept for sure nor above what was sent."""
    policy = SamplingPolicy(True, 1000, share)
    least, expected, most = policy.expected(traces_, spans, failed, took)
    sure = int((traces_ * spans)[failed | (took > 1000)].sum())
    assert sure <= least <= expected + 1 and expected - 1 <= most <= int((traces_ * spans).sum())
    for certain, total in ((0.0, sure), (1.0, int((traces_ * spans).sum()))):
        bounds = SamplingPolicy(True, 1000, certain).expected(traces_, spans, failed, took)
        assert bounds == (total, total, total)

"""--scrape, --alerts, blaster send, and the betrace transport."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support import cli
from support.fake_backend import Reply, fake_backend
from typer.testing import CliRunner

from blaster.backends.scrape import Observer, parse_observed
from blaster.cli import app
from blaster.engine.signals import StopSignals
from blaster.errors import UsageError
from blaster.sink.ingest import request_of
from blaster.sink.process import EmbeddedSink
from blaster.transport.base import Status
from blaster.transport.betrace import to_json
from blaster.transport.http_answer import read_answer
from blaster.transport.http_response import Response
from tests.support.scanner_twin import ScannerTwin


def api(sink: EmbeddedSink) -> str:
    return f"http://127.0.0.1:{sink.api_port}"


# ---- the betrace transport ----


def test_betraces_own_ingest_carries_a_run(tmp_path: Path) -> None:
    """JSON in place of OTLP, with the same accounts; and what is sent there is detected."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "normal", "--embedded", "--transport", "betrace", "--verify", "betrace"),
        *("--rate", "1k", "--duration", "1s", "--spans-per-trace", "2", "--json", str(out)),
    )
    read = cli.results(out)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert read["spans"]["accepted"] == read["sink"]["spans"] == 1000
    assert read["configuration"]["transport"] == "betrace"
    assert read["violations"]["detected"] == read["violations"]["injected"] == 50


def test_the_json_says_what_the_bytes_say() -> None:
    """Spans, IDs and violations are the same by either way."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(1, 9):
        span = spans.add(trace_id=bytes([number] * 16), span_id=bytes([number] * 8), name="n")
        span.start_time_unix_nano = 10**18
        span.end_time_unix_nano = 10**18 + (700_000_000 if number & 1 else 3_000_000)
        span.status.code = 2 if number & 2 else 0
        span.attributes.add(key="http.status_code").value.int_value = 200
        if number & 4:
            span.attributes.add(key="http.route").value.string_value = "/"
    data = request.SerializeToString()
    body = json.loads(to_json(data))
    again, count = request_of(body)
    one, other = ScannerTwin(), ScannerTwin()
    assert one.request(data) == other.request(again) == count == 8
    assert {**one.counts(), "bytes": 0} == {**other.counts(), "bytes": 0}
    assert {item["attributes"]["duration_ms"] for item in body["spans"]} == {"3", "700"}
    assert {item["attributes"]["http.status_code"] for item in body["spans"]} == {"200"}
    assert body["spans"][0]["durationMs"] == 700 and body["spans"][1]["status"] == "error"


@pytest.mark.parametrize(
    ("body", "status", "rejected"),
    [
        (b'{"accepted":5,"rejected":0,"errors":[]}', Status.OK, 0),
        (b'{"accepted":3,"rejected":2,"errors":["no"]}', Status.OK, 2),
        (b'{"accepted":"3","rejected":"2"}', Status.OK, 2),
        (b'{"accepted":3,"rejected":0}', Status.INVALID_RESPONSE, 0),
        (b'{"accepted":-1,"rejected":6}', Status.INVALID_RESPONSE, 0),
        (b"{}", Status.INVALID_RESPONSE, 0),
        (b'{"accepted":"many"}', Status.INVALID_RESPONSE, 0),
        (b"[1", Status.INVALID_RESPONSE, 0),
    ],
)
def test_what_betrace_answers(body: bytes, status: Status, rejected: int) -> None:
    """Its counts have to add up to what was sent; otherwise nothing is known."""
    response = Response(200, {b"content-type": b"application/json"}, body, True)
    answer = read_answer(response, 5, "betrace")
    assert (answer.status, answer.rejected) == (status, rejected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--batch", "20000"), "--batch 20000: BeTrace takes at most 10,000 spans"),
        (("--compression", "gzip"), "--compression: --transport betrace sends JSON uncompressed"),
    ],
)
def test_what_betrace_cannot_take(options: tuple[str, ...], said: str) -> None:
    arguments = ["run", "--rate", "max", "--transport", "betrace", *options]
    ran = CliRunner().invoke(app, arguments, obj=StopSignals())
    assert isinstance(ran.exception, UsageError) and str(ran.exception).startswith(said)


# ---- blaster send ----


def test_send_one_span_and_see_it() -> None:
    with EmbeddedSink() as sink:
        ran = cli.blaster("send", "--endpoint", sink.endpoint, "--verify", f"betrace={api(sink)}")
        assert sink.counts().spans == 1
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^trace [0-9a-f]{32}$", ran.stdout, re.MULTILINE)
    assert re.search(r"^span  [0-9a-f]{16}$", ran.stdout, re.MULTILINE)
    assert f"sent to {sink.endpoint}: OK" in ran.stdout
    assert "detected by BeTrace: 1 violations" in ran.stdout


def test_send_where_it_is_not_seen() -> None:
    """Accepted and not shown is exit status 1; nobody there is 3."""

    def empty(method: str, path: str, query: dict[str, str], body: Any) -> Any:
        return {"services": []} if path == "/api/v3/services" else None

    with EmbeddedSink() as sink, fake_backend(empty) as fake:
        ran = cli.blaster(
            *("send", "--endpoint", sink.endpoint, "--transport", "grpc"),
            *("--verify", f"jaeger={fake.url}", "--verify-limit", "500ms"),
        )
    assert ran.returncode == 1
    assert "found in Jaeger: 0 traces (1 not found; it knows no service blaster)" in ran.stdout
    gone = cli.blaster("send", "--endpoint", "http://127.0.0.1:9")
    assert gone.returncode == 3 and len(gone.stderr.splitlines()) == 1


# ---- --scrape and --alerts ----

FIRING = {
    "status": "success",
    "data": {
        "alerts": [
            {"state": "firing", "labels": {"alertname": "Slow", "severity": "page"}},
            {"state": "pending", "labels": {"alertname": "Soon"}},
            "odd",
        ]
    },
}


def test_what_is_scraped_and_what_fires(tmp_path: Path) -> None:
    """Before, after, their difference and a series; alerts of the run and of before; thresholds."""
    out = tmp_path / "r.json"
    asked = [0]

    def prometheus(method: str, path: str, query: dict[str, str], body: Any) -> Any:
        asked[0] += 1
        old = {"state": "firing", "labels": {"alertname": "Old"}}
        alerts = [old, *(FIRING["data"]["alerts"] if asked[0] > 1 else [])]  # type: ignore[index]
        return {"status": "success", "data": {"alerts": alerts}}

    with EmbeddedSink() as sink, fake_backend(prometheus) as fake:
        ran = cli.blaster(
            *("run", "--endpoint", sink.endpoint, "--rate", "200", "--duration", "3s"),
            *("--scrape", api(sink), "--scrape-metric", "betrace_spans_*", "--json", str(out)),
            *("--alerts", fake.url, "--threshold", "alerts.0.fired < 1"),
            *("--threshold", "scraped.0.growth.betrace_spans_ingested_total == 600"),
        )
    read = cli.results(out)
    (page,), (alerts,) = read["scraped"], read["alerts"]
    assert page["growth"] == page["after"] == {"betrace_spans_ingested_total": 600}
    assert page["before"] == {"betrace_spans_ingested_total": 0} and page["problems"] == []
    assert page["series"] and 0 < page["series"][0]["t"] < 3
    assert alerts["fired"] == 1
    assert {(a["name"], a["before"]) for a in alerts["alerts"]} == {("Old", True), ("Slow", False)}
    checks = {check["name"]: check["passed"] for check in read["verdict"]["checks"]}
    assert checks["alerts.0.fired < 1"] is False and ran.returncode == 1
    assert checks["scraped.0.growth.betrace_spans_ingested_total == 600"] is True
    assert "alert Slow" in ran.stdout


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply(500, b"no"),
        Reply(200, b"{{{"),
        Reply(200, b"x", promised=9),
        {"data": 1},
        b"up 1",
    ],
)
def test_pages_that_are_none(reply: Any) -> None:
    """A line for each, whatever came; looking again adds none."""
    with fake_backend(lambda *asked: reply) as fake:
        observer = Observer(parse_observed([fake.url], [fake.url], (), ()))
        observer.begin()
        (page,), (alerts,) = observer.end(0.0)
    assert len(page.problems) == len(alerts.problems) == 1
    assert all("\n" not in line and len(line) < 500 for line in page.problems + alerts.problems)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scrape", "ftp://x"), "--scrape 'ftp://x': must be http://HOST:PORT"),
        (("--alerts", "http://a b"), "--alerts 'http://a b': must be http://HOST:PORT"),
        (("--scrape-metric", "x"), "--scrape-metric: needs --scrape"),
        (("--scrape", "x", "--scrape-metric", "{}"), "--scrape-metric '{}': must be a metric's"),
        (("--read-back", "-1"), "--read-back -1: must be from 0 to 10,000"),
        (("--sampling-policy", "10 %"), "--sampling-policy: needs --verify collector"),
        (("--sampling-policy", "some"), "--sampling-policy 'some': must be rules separated"),
    ],
)
def test_wrong_options(options: tuple[str, ...], said: str) -> None:
    ran = CliRunner().invoke(app, ["run", "--duration", "1s", *options], obj=StopSignals())
    assert isinstance(ran.exception, UsageError) and str(ran.exception).startswith(said)

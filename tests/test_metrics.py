"""Metrics of a run while it goes on: scraped, pushed to a real Collector, and on a dashboard."""

import json
import re
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import promql_parser
import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families
from support import cli, peers

from blaster.engine.control import Progress
from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan
from blaster.engine.run import Run
from blaster.engine.series import Point
from blaster.errors import UsageError
from blaster.measure.histogram import Histogram
from blaster.report import dashboard
from blaster.report.exporting import MetricsExporter
from blaster.report.metrics import BOUNDS_US, exposition, metrics
from blaster.scenario.scenario import Scenario, parse_stages


def progress(response_us: list[int]) -> Progress:
    """A run of 250 spans, of which 3 failed, with these response times."""
    plan = Plan.of(
        Scenario(name='a "b"\n', stages=parse_stages("100@2s,300@1s")), seed=1, workers=1
    )
    ledger = Ledger(1, plan.segments)
    slab = ledger.slabs[0]
    slab.sent_spans, slab.accepted, slab.failed = 250, 247, 3
    slab.statuses[:2] = 40, 1
    segment = slab.segments[0]
    segment.sent = 250
    segment.response.record(np.array(response_us, np.int64) * 1000)
    run = Run(plan=plan, ledger=ledger, started_at=0.0, start_ns=0)
    point = Point(2.5, 100, 99, 1, 4, 1.0, 12.5, 10**7, 5.0, 2 * 10**7, 1.0, 7)
    run.series.add(replace(point, t=1.5, scheduled=251))
    run.series.add(point)
    return Progress(run, point, plan.scenario.duration_ns)


def parsed(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """By name of the sample: the values by their labels' values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_the_exposition_is_what_the_ledger_says() -> None:
    """prometheus_client reads back every figure, labels with quotes and line breaks included, and
    the buckets count exactly what lies within their bounds."""
    times = [0, 1, 63, 64, 127, 128, 5000, 10**6, 66_000_000, 599_000_000]
    found = parsed(exposition(metrics(progress(times), "http://x", "wire")))
    assert found["blaster_sent_spans_total"] == {(): 250}
    assert found["blaster_scheduled_spans_total"] == {(): 200 + 151}
    assert found["blaster_ended_spans_total"][("accepted",)] == 247
    assert found["blaster_ended_spans_total"][("failed",)] == 3
    assert found["blaster_ended_requests_total"][("OK",)] == 40
    assert found["blaster_target_cpu_ratio"] == {(): 0.125}
    assert found["blaster_backlog_spans"] == {(): 7} and found["blaster_stage"] == {(): 2}
    assert ('a "b"\n') in next(iter(found["blaster_info"]))
    buckets = found["blaster_response_seconds_bucket"]
    assert list(buckets.values()) == sorted(buckets.values())
    for bound in BOUNDS_US:
        want = sum(us <= bound for us in times)
        assert buckets[(f"{bound / 1e6:g}",)] == want, bound
    assert buckets[("+Inf",)] == found["blaster_response_seconds_count"][()] == len(times)
    assert found["blaster_response_seconds_sum"][()] == pytest.approx(sum(times) / 1e6, rel=1e-3)
    empty = parsed(exposition(metrics(progress([]), "http://x", "wire")))
    assert empty["blaster_response_seconds_count"] == {(): 0}


def test_bounds_are_distinct_as_they_are_written() -> None:
    """No two buckets get the same label, and each is exact to the microsecond."""
    assert Histogram().count == 0
    written = [float(f"{bound / 1e6:g}") for bound in BOUNDS_US]
    assert len(set(written)) == len(written)


def scrape(url: str) -> dict[str, dict[tuple[str, ...], float]]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parsed(answer.read().decode())


def test_scraped_while_it_runs_and_on_the_dashboard(tmp_path: Path) -> None:
    """Counters grow towards the results; every metric that the dashboard asks for is there."""
    out = tmp_path / "r.json"
    with cli.start(
        *("run", "--embedded", "--rate", "1000", "--duration", "3s", "--metrics-port", "0"),
        *("--json", str(out)),
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        url = re.fullmatch(r"metrics at (http://127\.0\.0\.1:\d+/metrics)\n", first)
        assert url is not None, first
        seen: list[dict[str, Any]] = []
        while len({accepted(found) for found in seen}) < 2:
            seen.append(scrape(url[1]))  # waits for the first interval
            time.sleep(0.1)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url[1] + "x", timeout=5)
        process.communicate(timeout=60)
    read = cli.results(out)
    assert process.returncode == 0
    counts = [accepted(found) for found in seen]
    assert 0 < counts[0] < counts[-1] <= read["spans"]["accepted"] == 3000
    exposed = {name.removesuffix("_bucket") for name in seen[-1]}
    for query in queries():
        used = set(re.findall(r"\bblaster_\w+", query))
        assert used and {name.removesuffix("_bucket") for name in used} <= exposed, query


def accepted(found: dict[str, Any]) -> float:
    return float(found["blaster_ended_spans_total"][("accepted",)])


def queries() -> list[str]:
    found = dashboard.dashboard()
    texts = [target["expr"] for panel in found["panels"] for target in panel["targets"]]
    return [text.replace("$__rate_interval", "1m").replace("$instance", ".*") for text in texts]


def test_the_dashboard_is_one_to_grafana_and_prometheus() -> None:
    """Every query is PromQL; Grafana's own model of a dashboard takes the file without losing a
    key; panels have distinct places and ids."""
    for query in queries():
        promql_parser.parse(query)
    shown = cli.blaster("dashboard")
    assert (shown.returncode, shown.stderr) == (0, "")
    read = json.loads(shown.stdout)
    again = json.loads(
        json.dumps(Dashboard.from_json(read).to_json(), default=lambda o: o.to_json())
    )
    for key in ("uid", "title", "schemaVersion", "refresh", "time", "tags"):
        assert again[key] == read[key]
    assert len(again["panels"]) == len(read["panels"])
    for ours, theirs in zip(read["panels"], again["panels"], strict=True):
        assert {k: theirs[k] for k in ("id", "type", "title", "gridPos")} == {
            k: ours[k] for k in ("id", "type", "title", "gridPos")
        }
        assert [t["expr"] for t in theirs["targets"]] == [t["expr"] for t in ours["targets"]]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in read["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


def written(file: Path) -> dict[str, Any]:
    """The metrics of the last whole line that the Collector has written, by name."""
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    if not lines:
        return {}
    last = json.loads(lines[-1])["resourceMetrics"][0]
    return {metric["name"]: metric for metric in last["scopeMetrics"][0]["metrics"]}


def sent_spans(found: dict[str, Any]) -> float:
    if not found:
        return 0.0
    return float(found["blaster_sent_spans_total"]["sum"]["dataPoints"][0]["asDouble"])


def test_pushed_to_a_collector(tmp_path: Path, collector_binary: Path) -> None:
    """The OpenTelemetry Collector takes the metrics, and the last that it writes down are those of
    the results."""
    out, file = tmp_path / "r.json", tmp_path / "metrics.jsonl"
    pipeline = {"receivers": ["otlp"], "exporters": ["file/metrics"]}
    more = {
        "exporters": {"file/metrics": {"path": str(file), "flush_interval": "100ms"}},
        "service": {"pipelines": {"metrics": pipeline}},
    }
    with peers.collector(collector_binary, overrides=more) as target:
        ran = cli.blaster(
            *("run", "--embedded", "--rate", "1000", "--duration", "2s", "--json", str(out), "-q"),
            *("--otlp-metrics", f"http://127.0.0.1:{target.http_port}"),
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        until = time.monotonic() + 10
        while sent_spans(found := written(file)) < 2000:
            assert time.monotonic() < until, "the Collector has not written down the last"
            time.sleep(0.1)
    read = cli.results(out)
    total = found["blaster_sent_spans_total"]["sum"]
    assert total["isMonotonic"] and total["aggregationTemporality"] == 2
    assert sent_spans(found) == read["spans"]["sent"] == 2000
    histogram = found["blaster_response_seconds"]["histogram"]["dataPoints"][0]
    assert int(histogram["count"]) == read["requests"]["sent"]
    assert sum(map(int, histogram["bucketCounts"])) == int(histogram["count"])
    assert len(histogram["bucketCounts"]) == len(histogram["explicitBounds"]) + 1


def test_a_receiver_that_is_not_there_is_said_at_the_end(tmp_path: Path) -> None:
    """Pushes that fail don't disturb the run."""
    (port,) = peers.free_ports(1)
    ran = cli.blaster(
        *("run", "--embedded", "--duration", "1s", "-q"),
        *("--otlp-metrics", f"http://127.0.0.1:{port}"),
    )
    assert ran.returncode == 0
    assert re.search(r"--otlp-metrics 'http://127.*: \d pushes failed", ran.stderr), ran.stderr


@pytest.mark.parametrize(
    ("address", "url", "says"),
    [
        ("99999", None, "--metrics-port '99999': must be a port"),
        ("x", None, "--metrics-port 'x': must be a port"),
        ("nowhere.invalid:0", None, "can't listen there"),
        (None, "localhost:4318", "--otlp-metrics 'localhost:4318': must be http"),
        (None, "http://a b", "must be http"),
        (None, "http://x:0/", "must be http"),
        (None, "file:///etc/passwd", "must be http"),
    ],
)
def test_addresses_that_are_none(address: str | None, url: str | None, says: str) -> None:
    """One line that names the option and what would be right."""
    with pytest.raises(UsageError, match=re.escape(says)):
        MetricsExporter(address, url)

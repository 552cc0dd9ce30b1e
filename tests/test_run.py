"""``blaster run`` from end to end, through the command line."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from support import cli, peers

from blaster.transport.choice import wire_is_built

TRANSPORTS = ["grpc", *(["wire"] if wire_is_built() else [])]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_normal_embedded(tmp_path: Path, transport: str) -> None:
    """A shortened normal run passes: every span arrives and every violation is detected."""
    out, page = tmp_path / "r.json", tmp_path / "r.md"
    ran = cli.blaster(
        *("run", "normal", "--embedded", "--duration", "3s", "--transport", transport),
        *("--json", str(out), "--markdown", str(page)),
    )
    assert ran.returncode == 0, ran.stderr
    read = cli.results(out)
    assert read["spans"]["accepted"] == read["spans"]["scheduled"] == 300
    assert read["violations"]["injected"] == read["violations"]["detected"] == 30
    assert read["violations"]["by_rule"] == read["violations"]["detected_by_rule"]
    assert set(read["violations"]["by_rule"].values()) == {10}
    assert read["violations"]["detection_rate"] == 1
    assert read["rate"]["achieved_spans_per_s"] == pytest.approx(100, rel=1e-3)
    assert read["target"]["processes"] and read["target"]["rss_bytes"]["peak"] > 0
    assert read["verdict"]["passed"] and read["configuration"]["transport"] == transport
    assert len(read["series"]) >= 3
    assert sum(p["accepted"] for p in read["series"]) == 300
    assert "PASSED" in ran.stdout and re.search(r"1\.\d s .*spans/s", ran.stderr)
    text = page.read_text()
    for part in ("# Load test normal, 20", "## Configuration", "## Results", "Backend CPU, peak"):
        assert part in text
    for part in ("## Violations breakdown", "load-test-errors | 10 | 10", "## Conclusion"):
        assert part in text


CONTRACT = {
    "": "schema scenario started_at ended_at duration_s seed host spans requests bytes rate "
    "latency_ms lateness_ms violations target generator sink verdict series",
    "host": "cpus kernel python blaster",
    "spans": "scheduled sent accepted rejected failed unknown not_offered",
    "requests": "sent ok retried by_status",
    "bytes": "payload per_span",
    "rate": "target_spans_per_s achieved_spans_per_s",
    "latency_ms": "response service",
    "latency_ms.response": "p50 p90 p99 p999 max mean",
    "latency_ms.service": "p50 p90 p99 p999 max mean",
    "lateness_ms": "p50 p99 max",
    "violations": "injected by_rule detected detected_by_rule detection_rate",
    "target": "processes cpu_percent rss_bytes",
    "target.cpu_percent": "avg peak",
    "target.rss_bytes": "avg peak",
    "generator": "workers cpu_seconds cpu_percent rss_bytes spans_per_cpu_second",
    "sink": "spans duplicates invalid violations_by_rule",
    "verdict": "passed limited_by checks",
}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_max_embedded_keeps_the_contract(tmp_path: Path, transport: str) -> None:
    """A closed loop with two workers loses nothing, and results.json has every key it promises."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--rate", "max", "--duration", "1s", "--embedded", "--quiet", "--seed", "7"),
        *("--workers", "2", "--batch", "500", "--transport", transport, "--json", str(out)),
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    read = cli.results(out)
    for path, keys in CONTRACT.items():
        node = read
        for step in filter(None, path.split(".")):
            node = node[step]
        assert set(keys.split()) <= set(node), path
    assert read["seed"] == 7 and read["schema"] == 1
    assert read["rate"]["target_spans_per_s"] is None
    assert read["sink"]["spans"] == read["spans"]["accepted"] > 10_000
    assert read["violations"]["detected_by_rule"] == read["violations"]["by_rule"]
    assert abs(read["violations"]["injected"] - read["spans"]["sent"] / 10) <= 2
    keys = {"t", "scheduled", "accepted", "failed", "in_flight", "p99_ms"}
    assert keys | {"target_cpu", "target_rss", "generator_cpu"} <= set(read["series"][0])


def test_json_to_standard_output() -> None:
    """--json - leaves nothing but JSON on standard output."""
    ran = cli.blaster("run", "--embedded", "--duration", "1s", "--json", "-")
    assert ran.returncode == 0
    cli.balance(json.loads(ran.stdout))


def test_stages_workers_and_traces_of_several_spans(tmp_path: Path) -> None:
    """Ramps, several workers, traces of several spans and the environment end in exact sums."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--embedded", "--stages", "100..1000@2s,500@1s", "--workers", "3"),
        *("--spans-per-trace", "7", "--quiet", "--json", str(out)),
        VIOLATION_RATE="0.25",
        SPANS_PER_SECOND="77",
    )
    assert ran.returncode == 0, ran.stderr
    read = cli.results(out)
    traces = 1600 // 7
    assert read["spans"]["scheduled"] == read["spans"]["accepted"] == traces * 7
    assert read["violations"]["injected"] == read["violations"]["detected"] == traces // 4


def test_environment_and_scenario_file(tmp_path: Path) -> None:
    """The option wins over the environment, the environment over the file."""
    file = tmp_path / "mine.toml"
    file.write_text(
        'stages = [{ rate = 50, duration = "1s" }]\n[workload]\nviolation_rate = 0\n'
        "[criteria]\nno_errors = true\n"
    )
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", str(file), "--embedded", "--rate", "200", "--quiet", "--json", str(out)),
        SPANS_PER_SECOND="100",
        VIOLATION_RATE="0.5",
    )
    assert ran.returncode == 0, ran.stderr
    read = cli.results(out)
    assert read["scenario"] == "mine"
    assert read["spans"]["scheduled"] == 200
    assert read["violations"]["injected"] == 100


def test_a_failed_criterion_is_exit_status_1(tmp_path: Path) -> None:
    """A budget that the target exceeds fails the run and says so."""
    file = tmp_path / "tight.toml"
    file.write_text(
        'stages = [{ rate = 100, duration = "1s" }]\n[criteria]\ntarget_rss_max = "1MB"\n'
    )
    ran = cli.blaster("run", str(file), "--embedded")
    assert ran.returncode == 1
    assert re.search(r"target memory, peak\s+FAILED", ran.stdout)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_collector_counts_the_same(tmp_path: Path, collector_binary: Path, transport: str) -> None:
    """The OpenTelemetry Collector accepts to the span what blaster says it accepted."""
    out = tmp_path / "r.json"
    with peers.collector(collector_binary) as target:
        ran = cli.blaster(
            *("run", "--endpoint", target.endpoint, "--rate", "2000", "--duration", "2s"),
            *("--spans-per-trace", "3", "--watch", str(target.pid), "--transport", transport),
            *("--quiet", "--json", str(out)),
        )
        assert ran.returncode == 0, ran.stderr
        read = cli.results(out)
        metrics = target.wait_for("otelcol_receiver_accepted_spans", read["spans"]["accepted"])
    assert read["spans"]["accepted"] == 3999
    assert metrics["otelcol_receiver_accepted_spans"] == 3999
    assert metrics.get("otelcol_receiver_refused_spans", 0) == 0
    assert read["target"]["rss_bytes"]["peak"] > 10e6
    assert read["violations"]["detected"] is None


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_collector_that_refuses(tmp_path: Path, collector_binary: Path, transport: str) -> None:
    """Spans refused by a Collector at its memory limit are failed, to the span, each retry was
    refused too, and it is the limit."""
    out = tmp_path / "r.json"
    with peers.collector(collector_binary, memory_limit_mib=1) as target:
        ran = cli.blaster(
            *("run", "--endpoint", target.endpoint, "--rate", "1000", "--duration", "1s"),
            *("--transport", transport, "--timeout", "2s", "--quiet", "--json", str(out)),
        )
        assert ran.returncode == 1
        read = cli.results(out)
        tried = read["spans"]["failed"] + read["requests"]["retried_spans"]
        refused = target.wait_for("otelcol_receiver_refused_spans", tried)
    assert read["spans"]["failed"] == 1000
    assert read["requests"]["retried_spans"] >= 1000
    assert refused["otelcol_receiver_refused_spans"] == tried
    assert read["verdict"]["limited_by"] == "target"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_rotel_counts_the_same(tmp_path: Path, rotel_binary: Path, transport: str) -> None:
    """rotel accepts and passes on to the span what blaster says it accepted."""
    out = tmp_path / "r.json"
    with peers.counting_receiver() as behind:
        with peers.rotel(rotel_binary, exporter_endpoint=behind.endpoint) as target:
            ran = cli.blaster(
                *("run", "--endpoint", target.endpoint, "--rate", "2000", "--duration", "2s"),
                *("--transport", transport, "--quiet", "--json", str(out)),
            )
            assert ran.returncode == 0, ran.stderr
            read = cli.results(out)
        spans = behind.spans()
    assert len(spans) == read["spans"]["accepted"] == 4000
    assert len({s.span_id for s in spans}) == 4000


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_partial_success(tmp_path: Path, transport: str) -> None:
    """Spans that an answer rejects are rejected, not accepted, and fail the run."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
        ExportTracePartialSuccess,
        ExportTraceServiceResponse,
    )

    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="not those")
    answer = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    out = tmp_path / "r.json"
    with peers.counting_receiver(response=answer) as target:
        ran = cli.blaster(
            *("run", "--endpoint", target.endpoint, "--duration", "1s", "--batch", "10"),
            *("--transport", transport, "--quiet", "--json", str(out)),
        )
    assert ran.returncode == 1, ran.stderr
    read = cli.results(out)
    assert read["spans"]["rejected"] == 30 and read["spans"]["accepted"] == 70
    assert "not those" in read["messages"].values()


def test_help_of_every_command() -> None:
    """Every command explains itself and gives an example."""
    top = cli.blaster("--help")
    assert top.returncode == 0
    for command in ("run", "capacity", "sink", "scenarios"):
        assert command in top.stdout
        shown = cli.blaster(command, "--help")
        assert shown.returncode == 0 and "Example" in shown.stdout
    assert cli.blaster("--version").stdout.startswith("blaster ")


def test_scenarios_lists_the_presets() -> None:
    """``blaster scenarios`` names each preset."""
    shown: subprocess.CompletedProcess[str] = cli.blaster("scenarios")
    assert all(name in shown.stdout for name in ("normal", "medium", "high", "spike", "soak"))

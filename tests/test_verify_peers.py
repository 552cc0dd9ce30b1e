"""--verify with real parts: blaster, the OpenTelemetry Collector, Jaeger, and the sink behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support import cli, peers

from blaster.otlp.rules import ERRORS, MISSING_AUTH, SLOW
from blaster.sink.process import EmbeddedSink

RECEIVED, EXPORTED = "received by the collector", "exported by the collector"


def run(
    tmp_path: Path, *options: str, endpoint: str, limit: str = "10s"
) -> tuple[int, dict[str, Any]]:
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "normal", "--endpoint", endpoint, "--json", str(out), "--verify-limit", limit),
        *options,
    )
    assert "Traceback" not in ran.stderr, ran.stderr
    return ran.returncode, cli.results(out)


def stages(read: dict[str, Any]) -> dict[str, Any]:
    return {stage["stage"]: stage for stage in read["funnel"]}


def collector_url(peer: peers.Collector) -> str:
    return f"collector=http://127.0.0.1:{peer.metrics_port}"


def test_every_stage_agrees_to_the_span(collector_binary: Path, tmp_path: Path) -> None:
    """blaster, Collector, sink over OTLP: the funnel, the Collector and the sink say the same."""
    with (
        EmbeddedSink() as sink,
        peers.collector(collector_binary, exporter_endpoint=sink.endpoint) as peer,
    ):
        status, read = run(
            *(tmp_path, "--rate", "2k", "--duration", "2s", "--verify", collector_url(peer)),
            *("--verify", f"betrace=http://127.0.0.1:{sink.api_port}"),
            endpoint=peer.endpoint,
        )
        counted, behind = peer.metrics(), sink.counts()
    assert status == 0, read["verdict"]
    assert read["spans"]["accepted"] == 4000
    assert {name: (s["spans"], s["lost"]) for name, s in stages(read).items()} == {
        "sent": (4000, 0),
        "accepted": (4000, 0),
        RECEIVED: (4000, 0),
        EXPORTED: (4000, 0),
        "ingested by BeTrace": (4000, 0),
        "detected by BeTrace": (400, 0),
    }
    assert counted["otelcol_receiver_accepted_spans"] == 4000
    assert counted["otelcol_exporter_sent_spans"] == behind.spans == 4000
    assert read["violations"]["detection_rate"] == 1.0


def test_a_tail_sampler_keeps_what_its_policy_says(collector_binary: Path, tmp_path: Path) -> None:
    """The exported share lies in the interval that the stated policy gives; all kept violations are
    detected, and of those left to chance some."""
    sampling = {
        "decision_wait": "1s",
        "num_traces": 50_000,
        "policies": [
            {"name": "e", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
            {"name": "l", "type": "latency", "latency": {"threshold_ms": 400}},
            {"name": "p", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}},
        ],
    }
    with (
        EmbeddedSink() as sink,
        peers.collector(
            collector_binary, exporter_endpoint=sink.endpoint, tail_sampling=sampling
        ) as peer,
    ):
        _, read = run(
            *(tmp_path, "--rate", "2k", "--duration", "2s", "--verify", collector_url(peer)),
            *("--verify", f"betrace=http://127.0.0.1:{sink.api_port}"),
            *("--sampling-policy", "keep errors, keep > 400 ms, else 10 %"),
            endpoint=peer.endpoint,
        )
        exported = peer.metrics()["otelcol_exporter_sent_spans"]
        behind = sink.counts()
    found = stages(read)
    kept = found[EXPORTED]
    assert (found[RECEIVED]["spans"], found[RECEIVED]["lost"]) == (4000, 0)
    assert kept["spans"] == exported == behind.spans == found["ingested by BeTrace"]["spans"]
    # 133 errors and 134 slow ones for sure, a tenth of the other 3,733.
    assert kept["expected"] == 640 and kept["lost"] == 0
    assert kept["reason"] == "the sampling policy keeps 579 to 701"
    by_rule = read["violations"]["detected_by_rule"]
    assert by_rule[ERRORS] == read["violations"]["by_rule"][ERRORS]
    assert by_rule[SLOW] == read["violations"]["by_rule"][SLOW]
    assert by_rule[MISSING_AUTH] < read["violations"]["by_rule"][MISSING_AUTH] / 2
    checks = {check["name"]: check["passed"] for check in read["verdict"]["checks"]}
    assert checks[f"spans {EXPORTED}"] is True and checks["detection rate"] is False


def test_a_full_queue_loses_at_the_export(collector_binary: Path, tmp_path: Path) -> None:
    """The Collector answers OK and drops later: the loss shows between its two stages, and why."""
    pipeline = {
        "processors": {"batch": {"send_batch_size": 20, "timeout": "10ms"}},
        "exporters": {"otlp_grpc": {"sending_queue": {"num_consumers": 1, "sizer": "requests"}}},
        "service": {"pipelines": {"traces": {"processors": ["batch"]}}},
    }
    with (
        peers.counting_receiver(delay_s=0.3) as slow,
        peers.collector(
            collector_binary, exporter_endpoint=slow.endpoint, queue_size=1, overrides=pipeline
        ) as peer,
    ):
        status, read = run(
            *(tmp_path, "--rate", "1k", "--duration", "1s", "--verify", collector_url(peer)),
            endpoint=peer.endpoint,
            limit="6s",
        )
        counted = peer.metrics()
    found = stages(read)
    assert status == 1 and read["spans"]["accepted"] == 1000
    assert (found[RECEIVED]["spans"], found[RECEIVED]["lost"]) == (1000, 0)
    assert found[EXPORTED]["spans"] == counted["otelcol_exporter_sent_spans"] < 1000
    assert found[EXPORTED]["lost"] == counted["otelcol_exporter_enqueue_failed_spans"]
    assert found[EXPORTED]["reason"].endswith("found its queue full")


def test_a_memory_limiter_refuses_at_the_door(collector_binary: Path, tmp_path: Path) -> None:
    """Refused spans were never accepted: the loss is where the answers say it is."""
    with peers.collector(collector_binary, memory_limit_mib=1) as peer:
        status, read = run(
            *(tmp_path, "--duration", "1s", "--retry", "off", "--verify", collector_url(peer)),
            endpoint=peer.endpoint,
            limit="2s",
        )
    found = stages(read)
    assert status == 1
    assert (found["accepted"]["spans"], found["accepted"]["lost"]) == (0, 100)
    assert found["accepted"]["reason"] == "100 failed"
    assert (found[RECEIVED]["spans"], found[RECEIVED]["lost"]) == (0, 0)
    assert read["verification"][0]["counters"]["otelcol_receiver_refused_spans"] == 100


def test_jaeger_gives_back_what_was_sent(jaeger_binary: Path, tmp_path: Path) -> None:
    """Span by span, with attributes, times and parents; over all workers and kinds of traces."""
    with peers.jaeger(jaeger_binary) as peer:
        status, read = run(
            *(tmp_path, "--rate", "400", "--duration", "2s", "--workload", "web-shop"),
            *("--workers", "2", "--layout", "scattered", "--read-back", "12"),
            *("--verify", f"jaeger=http://127.0.0.1:{peer.query_port}"),
            *("--verify", f"collector=http://127.0.0.1:{peer.metrics_port}"),
            endpoint=peer.endpoint,
            limit="30s",
        )
    assert status == 0, (read["verdict"], read["verification"])
    jaeger = read["verification"][1]
    back = jaeger["read_back"]
    assert back["traces"] == back["found"] == back["complete"] == 12
    assert back["spans"] == back["spans_found"] > 12 * 10 and back["differences"] == []
    assert jaeger["time_to_visible_s"] is not None
    assert stages(read)[RECEIVED]["spans"] == read["spans"]["accepted"]


def test_jaeger_without_the_traces(jaeger_binary: Path, tmp_path: Path) -> None:
    """Sent elsewhere: none is found, and Jaeger does not know the service."""
    with peers.jaeger(jaeger_binary) as peer, EmbeddedSink() as sink:
        status, read = run(
            *(tmp_path, "--duration", "1s", "--retry", "off"),
            *("--verify", f"jaeger=http://127.0.0.1:{peer.query_port}"),
            endpoint=sink.endpoint,
            limit="1s",
        )
    assert status == 1
    found = stages(read)["found in Jaeger"]
    assert (found["spans"], found["lost"]) == (0, 20)
    assert found["reason"] == "20 not found; it knows no service blaster"

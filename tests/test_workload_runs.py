"""Workloads sent from end to end, through the command line."""

from pathlib import Path

import pytest
from support import cli, peers

from blaster.payload import workload
from blaster.payload.template import LAYOUTS


def test_endless_calls_are_refused(tmp_path: Path):
    """Operations that call each other without end are refused before the run."""
    file = tmp_path / "endless.toml"
    file.write_text(
        '[entry]\na = 1\n[services.s]\n[operations.a]\nservice = "s"\ncalls = [{ to = "a" }]\n'
    )
    ran = cli.blaster("run", "--workload", str(file), "--transport", "null")
    assert ran.returncode == 2 and "300 calls deep" in ran.stderr
    ran = cli.blaster("run", "--workload", "web-shp", "--transport", "null")
    assert ran.returncode == 2 and "did you mean web-shop?" in ran.stderr


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["web-shop", "llm-agent"])
def test_embedded_runs_are_exact(tmp_path: Path, name: str, layout: str) -> None:
    """In every layout all spans arrive once, on time, and every violation is detected: the quota's
    and those that the workload has of itself."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--embedded", "--workload", name, "--layout", layout, "--workers", "2"),
        *("--stages", "500..3000@2s,2000@1s", "--quiet", "--json", str(out)),
    )
    assert ran.returncode == 0, ran.stderr
    read = cli.results(out)
    spans, found = read["spans"], read["violations"]
    assert spans["accepted"] == spans["scheduled"] == read["sink"]["spans"]
    assert 5500 - 60 < spans["scheduled"] <= 5500
    assert read["sink"]["duplicates"] == read["sink"]["invalid"] == 0
    assert found["by_rule"] == found["detected_by_rule"]
    asked = read["configuration"]
    assert (asked["workload"], asked["layout"]) == (name, layout)
    if name == "web-shop":
        traces = found["injected"] - found["of_workload"]
        # A quota is met to a whole trace.
        assert traces == pytest.approx(spans["sent"] / asked["spans_per_trace"] / 10, abs=1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_closed_loop_keeps_the_accounts(tmp_path: Path, layout: str) -> None:
    """A closed loop of two workers counts every span and violation in every layout."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--embedded", "--workload", "web-shop", "--layout", layout, "--workers", "2"),
        *("--rate", "max", "--duration", "1s", "--quiet", "--json", str(out)),
    )
    assert ran.returncode == 0, ran.stderr
    read = cli.results(out)
    assert read["sink"]["spans"] == read["spans"]["sent"] > 0
    assert read["violations"]["by_rule"] == read["violations"]["detected_by_rule"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", workload.NAMES)
def test_the_collector_accepts_all(
    tmp_path: Path, collector_binary: Path, name: str, layout: str
) -> None:
    """The OpenTelemetry Collector accepts every workload in every layout, and refuses no span."""
    out = tmp_path / "r.json"
    with peers.collector(collector_binary) as target:
        ran = cli.blaster(
            *("run", "--endpoint", target.endpoint, "--rate", "2000", "--duration", "1s"),
            *("--workload", name, "--layout", layout, "--quiet", "--json", str(out)),
        )
        assert ran.returncode == 0, ran.stderr
        accepted = cli.results(out)["spans"]["accepted"]
        metrics = target.wait_for("otelcol_receiver_accepted_spans", accepted)
    assert metrics["otelcol_receiver_accepted_spans"] == accepted > 1000
    assert metrics.get("otelcol_receiver_refused_spans", 0) == 0


def test_what_will_be_sent_is_said_before(tmp_path: Path) -> None:
    """Bytes a span, spans a trace and traces a request are said before the run and stand in the
    results; they are those that are sent."""
    out = tmp_path / "r.json"
    ran = cli.blaster(
        *("run", "--workload", "wide", "--rate", "8300", "--duration", "2s", "--batch", "500"),
        *("--transport", "null", "--json", str(out)),
    )
    assert ran.returncode == 0, ran.stderr
    first = ran.stderr.splitlines()[0]
    assert first == "wide, layout gateway: 196 bytes a span, 83 spans a trace, 6 traces a request"
    read = cli.results(out)
    asked = read["configuration"]
    assert (asked["spans_per_trace"], asked["traces_per_request"]) == (83, 6)
    assert read["bytes"]["per_span"] == pytest.approx(asked["bytes_per_span"], rel=0.01)

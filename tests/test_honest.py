"""Load shapes, warm-ups, thresholds and what is written meanwhile, through the command line."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from support import cli

QUICK = ("--transport", "null", "--quiet")


def run(out: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The results of a run that sends nothing, unless ``arguments`` say otherwise."""
    ran = cli.blaster("run", *QUICK, "--violation-rate", "0", *arguments, "--json", str(out))
    assert ran.returncode == status, ran.stderr
    read = cli.results(out)
    # What is true of the run is true of its stages, and they add up.
    for stage in read["stages"]:
        cli.balance(read | {"spans": stage["spans"], "sink": None})
    if read["stages"]:
        for name, count in read["spans"].items():
            assert count == sum(stage["spans"][name] for stage in read["stages"]), name
    return read


def test_every_shape_in_sequence(tmp_path: Path) -> None:
    """Steady, ramp, sine and spike follow one another; each stage's spans are its integral."""
    read = run(
        tmp_path / "r.json",
        *("--stages", "1000@500ms,0..1000@1s,sine:100..900/500ms@1s,spike:100..2k/200ms@600ms"),
        *("--workers", "3", "--batch", "7"),
    )
    assert [stage["duration_s"] for stage in read["stages"]] == [0.5, 1, 1, 0.2, 0.2, 0.2]
    sent = [stage["spans"]["sent"] for stage in read["stages"]]
    # To a request: one that begins in a stage can end in the next.
    assert sent == pytest.approx([500, 500, 500, 20, 400, 20], abs=7)
    assert read["spans"]["scheduled"] == read["spans"]["accepted"] == 1940
    assert "100 to 900 spans/s and back every 500ms for 1s" in read["configuration"]["stages"]
    assert all(stage["latency_ms"]["response"]["p9999"] is not None for stage in read["stages"])


def test_rates_in_requests_and_bytes(tmp_path: Path) -> None:
    """Requests and bytes per second arrive as many as were asked for."""
    read = run(tmp_path / "r.json", "--rate", "50req/s", "--duration", "2s", "--batch", "30")
    assert read["requests"]["sent"] == 100 and read["spans"]["sent"] == 3000
    read = run(tmp_path / "r.json", "--rate", "2MB/s", "--duration", "1s")
    assert read["bytes"]["payload"] == pytest.approx(2e6, rel=0.005)
    assert read["configuration"]["stages"] == ["2.0 MB/s for 1s"]


@pytest.mark.parametrize("arrivals", [("--arrivals", "poisson"), ("--burst", "10")])
def test_arrivals_keep_the_rate(tmp_path: Path, arrivals: tuple[str, str]) -> None:
    """At random or in bursts, the count is exact, over any number of workers."""
    read = run(
        tmp_path / "r.json",
        *("--rate", "5000", "--duration", "1s", "--workers", "2", "--batch", "10", *arrivals),
    )
    assert read["spans"]["accepted"] == read["spans"]["scheduled"] == 5000
    assert read["requests"]["sent"] == 500


def test_a_warmup_is_left_out(tmp_path: Path) -> None:
    """Counts cover everything; rates are those after the warm-up, here of another stage."""
    read = run(tmp_path / "r.json", "--stages", "4k@1s,1k@2s", "--warmup", "1s")
    assert read["spans"]["sent"] == 6000
    assert read["warmup"] == {"method": "fixed", "duration_s": 1.0, "reason": "as asked for"}
    assert read["rate"]["achieved_spans_per_s"] == pytest.approx(1000, rel=0.01)
    assert read["rate"]["target_spans_per_s"] == pytest.approx(1000, rel=0.01)
    first, second = read["stages"]
    assert first["latency_ms"]["response"]["p50"] is None
    assert first["rate"]["achieved_spans_per_s"] == pytest.approx(4000, rel=0.01)
    assert second["latency_ms"] == read["latency_ms"]


def test_a_warmup_is_found(tmp_path: Path) -> None:
    """--warmup auto ends in the first half, and says by which method."""
    read = run(tmp_path / "r.json", "--rate", "2k", "--duration", "6s", "--warmup", "auto")
    assert read["warmup"]["method"] == "mser-5" and 0 <= read["warmup"]["duration_s"] <= 3.1
    assert read["spans"]["sent"] == 12_000 and len(read["series"]) > 50
    assert read["rate"]["achieved_spans_per_s"] == pytest.approx(2000, rel=0.02)
    assert read["steady"]["reason"] and read["leak"]["generator"]["leaking"] is not True


def test_thresholds_are_lines_of_the_verdict(tmp_path: Path) -> None:
    """Each threshold is a check; one that fails is exit status 1, one not measured is neither."""
    arguments = ("--rate", "1k", "--duration", "1s")
    read = run(
        tmp_path / "r.json",
        *(*arguments, "--threshold", "spans.sent == 1000 and latency_ms.service.p99 < 1s"),
        *("--threshold", "target.cpu_percent.avg < 70%"),
    )
    checks = {check["name"]: check["passed"] for check in read["verdict"]["checks"]}
    assert checks["spans.sent == 1000"] is True
    assert checks["latency_ms.service.p99 < 1s"] is True
    assert checks["target.cpu_percent.avg < 70%"] is None
    read = run(tmp_path / "r.json", *arguments, "--threshold", "spans.sent > 5k", status=1)
    assert read["verdict"]["checks"][-1]["passed"] is False


def test_thresholds_of_a_file(tmp_path: Path) -> None:
    """A scenario's own thresholds, arrivals and shapes are in force, the options' on top."""
    file = tmp_path / "mine.toml"
    file.write_text(
        'stages = [{ from = 100, to = "1k", period = "500ms", duration = "1s" },\n'
        '{ from = 100, to = 500, width = "200ms", duration = "400ms" }]\n'
        'arrivals = "poisson"\nburst = 2\nwarmup = "200ms"\n'
        'thresholds = ["spans.failed == 0"]\nabort_on = ["spans.failed > 0"]\n'
    )
    read = run(tmp_path / "r.json", str(file), "--threshold", "spans.unknown == 0")
    names = [check["name"] for check in read["verdict"]["checks"]]
    assert names[-2:] == ["spans.failed == 0", "spans.unknown == 0"]
    assert len(read["stages"]) == 4 and read["configuration"]["arrivals"] == "poisson"
    assert read["warmup"]["duration_s"] == 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threshold", "latency.p99 < 5"), "did you mean latency_ms."),
        (("--threshold", "spans.failed"), "must be PATH < NUMBER"),
        (("--abort-on", "spans.fail > 0"), "did you mean spans.failed?"),
        (("--warmup", "soon"), "--warmup 'soon': must be auto or a time such as 10s"),
        (("--warmup", "1h"), "must be shorter than the run"),
        (("--arrivals", "random"), "--arrivals 'random': must be uniform or poisson"),
        (("--rate", "max", "--burst", "2"), "max has no schedule"),
        (("--rate", "10XB/s"), "must be a rate such as"),
        (("--stages", "sine:1..2@5s"), "must be sine:FROM..TO/PERIOD@TIME"),
        (("--stages", "spike:1..2/5s@5s"), "a spike must be shorter than its stage"),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(arguments: tuple[str, ...], message: str) -> None:
    """A wrong option is exit status 2 and one line that says what would be right."""
    ran = cli.blaster("run", *QUICK, *arguments)
    assert ran.returncode == 2 and message in ran.stderr, ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_a_hopeless_run_ends_early(tmp_path: Path) -> None:
    """--abort-on ends the run as soon as it holds: a failed check, and the accounts balance."""
    read = run(
        tmp_path / "r.json",
        *("--rate", "1k", "--duration", "60s", "--abort-on", "spans.sent > 500"),
        status=1,
    )
    assert read["aborted"].startswith("spans.sent > 500 (was ")
    assert not read["interrupted"] and not read["partial"]
    assert 500 < read["spans"]["sent"] < 10_000
    assert read["verdict"]["checks"][-1]["name"] == "abort-on"


def test_hdr_files_are_read_by_hdrhistogram(tmp_path: Path) -> None:
    """The interval log holds every answer of the run, the distribution those after the warm-up."""
    log, text = tmp_path / "r.hlog", tmp_path / "r.hgrm"
    read = run(
        tmp_path / "r.json",
        *("--rate", "1k", "--duration", "2s", "--batch", "10", "--warmup", "1s"),
        *("--hdr", str(log), "--hdr", str(text)),
    )
    reader = HistogramLogReader(str(log), HdrHistogram(1, 600_000_000, 3))
    counts = {"response": 0, "service": 0}
    while (histogram := reader.get_next_interval_histogram()) is not None:
        counts[histogram.get_tag()] += histogram.get_total_count()
    reader.close()
    assert counts == {"response": 200, "service": 200} and read["requests"]["sent"] == 200
    last = [line for line in text.read_text().splitlines() if not line.startswith("#")][-1]
    value, share, count = last.split()
    assert (float(share), int(count)) == (1, 100)
    assert float(value) == read["latency_ms"]["response"]["max"]


def test_a_lost_machine_loses_little(tmp_path: Path) -> None:
    """Results are written while the run goes on: whole, balanced, and said to be partial."""
    out = tmp_path / "r.json"
    program = (
        "import blaster.progress as p; p.CHECKPOINT_S = 0.5;"
        "from blaster.__main__ import main; main()"
    )
    arguments = ["run", *QUICK, "--rate", "1k", "--duration", "60s", "--json", str(out)]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], env=cli.environment())
    try:
        until = time.monotonic() + 20
        while not out.exists() and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    read = cli.results(out)
    assert read["partial"] and read["interrupted"] and read["verdict"] is not None
    assert read["spans"]["sent"] > 500 and read["series"]
    assert json.loads(out.read_text())["stages"][0]["spans"] == read["spans"]


@pytest.mark.quiet
def test_recovery_after_a_spike(tmp_path: Path) -> None:
    """A spike that the sink takes in its stride is recovered from, and each figure is a check."""
    file = tmp_path / "spike.toml"
    file.write_text(
        'stages = [{ from = 100, to = "5k", width = "1s", duration = "9s" }]\n'
        "[criteria]\ncpu_recovers = true\n"
    )
    out = tmp_path / "r.json"
    ran = cli.blaster("run", str(file), "--embedded", "--quiet", "--json", str(out))
    assert ran.returncode == 0, ran.stderr
    read = cli.results(out)
    assert read["recovery"]["peak_end_s"] == 5
    assert read["recovery"]["target_cpu_percent"]["recovered"]
    assert 0 <= read["recovery"]["latency_ms"]["seconds"] < 4
    names = [check["name"] for check in read["verdict"]["checks"]]
    assert names[-2:] == ["target CPU after the spike", "latency p99 after the spike"]

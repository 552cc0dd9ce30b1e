"""A sink of known capacity: latencies by the arithmetic of queues, and coordinated omission."""

import http.client
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support import cli, sinks

from blaster.sink.process import EmbeddedSink
from blaster.transport.choice import wire_is_built

RECEIVERS = ["grpc", *(["wire"] if wire_is_built() else [])]
CAPACITY = 10_000


def offer(sink: EmbeddedSink, folder: Path, *options: str) -> dict[str, Any]:
    """results.json of a run against the sink."""
    out = folder / "r.json"
    ran = cli.blaster(
        *("run", "--endpoint", sink.endpoint, "--quiet", "--json", str(out)), *options
    )
    assert ran.returncode in (0, 1), ran.stderr
    read = cli.results(out)
    counts = sink.settled_counts()
    accepted, unknown = read["spans"]["accepted"], read["spans"]["unknown"]
    assert accepted <= counts.spans <= accepted + unknown
    return read


@pytest.mark.quiet
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_refuses_beyond_its_capacity(tmp_path: Path, receiver: str) -> None:
    """A token bucket of 20 ms lets its second's worth through, and not a span more."""
    with sinks.started(capacity=CAPACITY, overload="refuse", receiver=receiver) as sink:
        read = offer(sink, tmp_path, "--rate", "20000", "--duration", "1s", "--batch", "20")
    assert read["spans"]["accepted"] == pytest.approx(1.02 * CAPACITY, rel=0.02)
    assert read["spans"]["failed"] == read["spans"]["sent"] - read["spans"]["accepted"]
    assert set(read["requests"]["by_status"]) == {"OK", "RESOURCE_EXHAUSTED"}
    assert read["verdict"]["limited_by"] == "target"


@pytest.mark.quiet
@pytest.mark.skipif(not wire_is_built(), reason="the native receiver was not built")
def test_the_backlog_of_a_queue(tmp_path: Path) -> None:
    """D/D/1 beyond its capacity: with R spans/s offered for T seconds and N served, a request due
    at t waits for a backlog of (R - N)·t spans, so that latency grows in a line from the service
    time S = batch/N to S + T·(R/N - 1): percentile p is S + p·T·(R/N - 1)."""
    rate, seconds, batch = 12_000, 2, 40
    with sinks.started(capacity=CAPACITY, overload="queue") as sink:
        options = ("--rate", str(rate), "--duration", f"{seconds}s", "--batch", str(batch))
        read = offer(sink, tmp_path, *options)
    assert read["spans"]["accepted"] == rate * seconds
    service, growth = 1e3 * batch / CAPACITY, 1e3 * seconds * (rate / CAPACITY - 1)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0), ("mean", 0.5)):
        expected = service + share * growth
        assert read["latency_ms"]["response"][name] == pytest.approx(expected, rel=0.05), name


@pytest.mark.quiet
@pytest.mark.skipif(not wire_is_built(), reason="the native receiver was not built")
def test_below_capacity_each_request_takes_its_service_time(tmp_path: Path) -> None:
    """D/D/1 below its capacity: nobody waits, and latency is batch/N plus the service time."""
    with sinks.started(capacity=CAPACITY, overload="queue", service_time="30ms") as sink:
        read = offer(sink, tmp_path, "--rate", "5000", "--duration", "2s", "--batch", "200")
    assert read["latency_ms"]["response"]["p50"] == pytest.approx(20 + 30, rel=0.05)
    assert read["latency_ms"]["service"]["p50"] == pytest.approx(20 + 30, rel=0.05)


@pytest.mark.quiet
@pytest.mark.skipif(not wire_is_built(), reason="the native receiver was not built")
@pytest.mark.parametrize(("by", "seconds"), [("api", 4), ("signal", 2)])
def test_the_triangle_of_coordinated_omission(tmp_path: Path, by: str, seconds: int) -> None:
    """A freeze of one second in a run of T: a T-th of the requests is delayed, evenly from 1
    second down to 0, and the response times show it: P(response > x) = (1 - x)/T. Few were in
    flight, and only those show it in the service times."""

    def freeze() -> None:
        while sink.counts().spans < 5000:
            time.sleep(0.01)
        if by == "signal":
            os.kill(sink.pid, signal.SIGUSR1)
            return
        api = http.client.HTTPConnection("127.0.0.1", sink.api_port, timeout=5)
        api.request("POST", "/v1/freeze?seconds=1")
        assert api.getresponse().status == 200
        api.close()

    with EmbeddedSink() as sink:
        freezer = threading.Thread(target=freeze)
        freezer.start()
        options = ("--rate", "10000", "--duration", f"{seconds}s", "--batch", "50")
        read = offer(sink, tmp_path, *options, "--in-flight", "4")
        freezer.join()
    response, service = read["latency_ms"]["response"], read["latency_ms"]["service"]
    assert read["spans"]["accepted"] == 10_000 * seconds
    assert response["max"] == pytest.approx(1000, rel=0.05)
    assert response["p99"] == pytest.approx(1000 - 10 * seconds, rel=0.05)
    assert response["p90"] == pytest.approx(1000 - 100 * seconds, rel=0.05)
    assert response["mean"] == pytest.approx(500 / seconds, rel=0.10)
    assert service["max"] == pytest.approx(1000, rel=0.05)
    assert service["p90"] < 50 and service["mean"] < 20


def test_a_freeze_that_is_none() -> None:
    """A wrong number of seconds is refused, and freezes nothing."""
    with EmbeddedSink() as sink:
        for seconds in ("-1", "x", "nan", "1e9"):
            api = http.client.HTTPConnection("127.0.0.1", sink.api_port, timeout=5)
            api.request("POST", f"/v1/freeze?seconds={seconds}")
            assert api.getresponse().status == 400
            api.close()

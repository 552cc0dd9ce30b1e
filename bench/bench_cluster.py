"""The cost of a cluster to its parent and its scheduler, by simulation.

Reports as hosts make them, some of each host's seconds after the other, are decoded and merged as
the parent does it: CPU seconds for each second of a run with 10, 100 and 1,000 hosts. How many
bytes a host's report of a second has, with 100 to 100,000 requests in it. And, where namespaces can
be made, what passes through a host's own link to a real scheduler, both ways, at three rates.
Targets: the parent of 1,000 hosts needs less than one core; no report is larger than 4 kB; and once
the histograms' buckets are filled, ten times the spans make what passes through the link at most
half as much again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import cpu_seconds, interleaved, parse, report

from blaster.cluster.ledger_delta import LedgerDelta
from blaster.cluster.merged import ClusterRun, Merged, Part
from blaster.cluster.messages import Report, frame, from_host
from blaster.engine.ledger import Ledger
from blaster.engine.plan import Plan
from blaster.job.options import RunOptions
from blaster.job.resolution import scenario_of
from blaster.transport.base import OUTCOME

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.cli import COMMAND
from support.hosts import DaskCluster, Network, Program, why_no_namespaces

WORKERS, SPANS = 8, 1000
DISTINCT = 20
"""So many hosts' reports are made; the others say the same."""

RATES = (100, 1_000, 10_000, 100_000)
MOST_BYTES, MOST_GROWTH = 4096, 1.5


def plan_of(workers: int) -> Plan:
    options = RunOptions(rate="1M", duration="1h", batch=SPANS, environ={})
    return Plan.of(scenario_of(options), seed=1, workers=workers)


def frames(requests: int, seconds: int, seed: int) -> list[bytes]:
    """The reports of a host in so many seconds with so many requests in each."""
    random, plan = np.random.default_rng(seed), plan_of(WORKERS)
    ledger = Ledger(WORKERS, plan.segments)
    delta = LedgerDelta(ledger, plan.segments, 0)
    said = []
    for second in range(1, seconds + 1):
        for slab in ledger.slabs:
            outcomes = np.zeros(requests // WORKERS, OUTCOME)
            outcomes["scheduled"] = second * 10**9
            outcomes["sent"] = outcomes["scheduled"] + random.exponential(1e5, len(outcomes))
            outcomes["done"] = outcomes["sent"] + random.lognormal(14.5, 0.5, len(outcomes))
            outcomes["spans"] = SPANS
            slab.sent_requests += len(outcomes)
            slab.sent_spans += len(outcomes) * SPANS
            slab.record(outcomes, 0, closed_loop=False)
        sent = [slab.sent_requests for slab in ledger.slabs]
        none = [0, 0, 0]
        words = delta.change()
        said.append(frame(Report(second * 10**9, words, sent, none, none, 1.0, 100.0, 10**8, [])))
    return said


def parent(hosts: int, said: list[list[bytes]]) -> float:
    """CPU seconds of the parent for each second of the run."""
    plan = plan_of(WORKERS * hosts)
    parts = [Part(number, f"host{number}", "", 8) for number in range(hosts)]
    run = ClusterRun(plan, Ledger(1, plan.segments), 0.0, 0, parts=parts)
    merged, seconds = Merged(run), len(said[0])

    def work() -> None:
        for second in range(seconds):
            for part in parts:
                message = from_host(said[part.number % len(said)][second][4:])
                assert isinstance(message, Report)
                merged.take(part, message)
            assert len(list(merged.points())) == 1

    return cpu_seconds(work) / seconds


def link_bytes_a_second(rate: str, longer_s: int) -> float:
    """Bytes through a host's link to its scheduler in a second of a run at this rate; its
    spans go to a sink on the host's own loopback."""
    with ExitStack() as stack:
        network = Network(stack, 2)
        home, host = network.addresses
        prefixes = {address: network.prefix(address) for address in (home, host)}
        folder = Path(stack.enter_context(TemporaryDirectory()))
        cluster = DaskCluster(folder, prefixes)
        stack.callback(cluster.end)
        sink = [*prefixes[host], *COMMAND, "sink", "--grpc-port", "4317", "--http-port", "0"]
        program = Program([*sink, "--api-port", "0"], folder / "sink.log")
        stack.callback(program.end)
        passed = []
        for duration in (2, 2 + longer_s):
            before = _passed(prefixes[host])
            run = [*prefixes[home], *COMMAND, "run", "--quiet", "--cluster", cluster.url]
            options = ["--rate", rate, "--batch", "100", "--duration", f"{duration}s"]
            # 1: it fell behind, which is no matter here.
            ran = subprocess.run(
                [*run, *options, "--endpoint", "http://127.0.0.1:4317"], check=False
            )
            assert ran.returncode in (0, 1)
            passed.append(_passed(prefixes[host]) - before)
        return (passed[1] - passed[0]) / longer_s


def _passed(prefix: list[str]) -> int:
    show = [*prefix, "ip", "-s", "-j", "link", "show", "eth0"]
    (link,) = json.loads(subprocess.run(show, check=True, capture_output=True).stdout)
    return sum(int(link["stats64"][way]["bytes"]) for way in ("rx", "tx"))


def main() -> None:
    short = parse(__doc__).short
    seconds, runs = (3, 1) if short else (10, 5)
    sizes = {
        requests: statistics.median(map(len, frames(requests, seconds + 2, 7)[2:]))
        for requests in RATES
    }
    said = [frames(2_000, seconds, seed) for seed in range(DISTINCT)]
    sides = {
        f"{hosts}_hosts": lambda hosts=hosts: parent(hosts, said) for hosts in (10, 100, 1_000)
    }
    figures = interleaved(sides, runs)
    most = statistics.median(figures["1000_hosts"])
    traffic: dict[str, float] = {}
    if why_no_namespaces() is None:
        for rate in ("10k", "100k", "1M"):
            traffic[rate] = round(link_bytes_a_second(rate, 3 if short else 8))
    grows = traffic["1M"] / traffic["100k"] if traffic else None
    report(
        "cluster",
        figures,
        unit="CPU seconds of the parent for each second of a run",
        report_bytes_by_requests=sizes,
        link_bytes_a_second_by_rate=traffic or why_no_namespaces(),
        targets={
            "parent_under_a_core": most < 1.0,
            "reports_are_small": max(sizes.values()) <= MOST_BYTES,
            "link_holds_still": None if grows is None else grows <= MOST_GROWTH,
        },
    )


if __name__ == "__main__":
    main()

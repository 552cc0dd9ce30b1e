"""The wire transport against h2load and raw TCP: spans per CPU-second of the sending process.

h2load posts one constant body of the same size with the -m that suits it best, found beforehand;
blaster makes fresh columns, stamps every span and keeps its accounts (requests of `flat` traces,
some 192 bytes a span). Both send over one connection to the sink's native receiver, which counts
and scans nothing, on a core of its own where there are two. `raw` writes the same bytes to a
process that only reads. h2load's start is not counted, nor is blaster's.

Targets: wire/h2load at least 0.9 at 100 spans a request, 1.1 at 1,000 and 8,000; bytes per second
of wire/raw at least 0.6; p99 lateness under 1 ms at 1,000 requests/s; a steady 100,000 spans/s in
100 requests/s under 5 % of a core.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import common
from bench_receiver import EXPORT, Served

TARGETS = {100: 0.9, 1000: 1.1, 8000: 1.1}
STREAMS = (8, 16, 32, 64, 128)
IN_FLIGHT = 64
CHUNK_SPANS = 65_536  # the engine's
WRITE = 512 * 1024  # the wire client's burst
RAW_SPANS = 16_384  # that `raw` sends again and again: as many bytes as the last cache holds
SECOND = 1_000_000_000


class Source:
    """Fresh chunks, as the engine makes them."""

    def __init__(self, spans: int, requests: int) -> None:
        import numpy as np

        from blaster.payload import flat
        from blaster.payload.columns import ColumnSource
        from blaster.payload.mix import Mix

        mix = Mix([flat.shape(1)], Fraction(1, 10))
        self._columns = ColumnSource(1, mix)
        self._made = self._columns.batches(mix.template.compile())
        self._spans = np.full(requests, spans, np.int64)
        self._ramp = np.arange(requests, dtype=np.int64) * spans
        self._first = 0
        self._epoch = time.time_ns() - time.monotonic_ns()

    def chunk(self, scheduled: Any) -> Any:
        from blaster.transport.base import Chunk

        first = self._ramp + self._first
        self._first += int(self._spans.sum())
        spans = self._columns.begin(self._made, first, self._spans, scheduled + self._epoch)
        return Chunk(scheduled, spans, made=self._made)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def connect(port: int) -> Any:
    import numpy as np

    from blaster.transport.base import SendCounts
    from blaster.transport.wire import WireTransport

    counts, stop = SendCounts.zeros(), np.zeros(1, np.int64)
    transport = WireTransport(
        host="127.0.0.1",
        port=port,
        connections=1,
        in_flight=IN_FLIGHT,
        timeout_s=10.0,
        metadata=[],
        counts=counts,
        stop=stop,
    )
    transport.connect(5.0)
    return transport


def send_flat_out(port: int, spans: int, seconds: float) -> dict[str, float]:
    """As fast as possible: spans that were answered OK, CPU and wall seconds."""
    import numpy as np

    requests = max(1, CHUNK_SPANS // spans)
    transport, source = connect(port), Source(spans, requests)

    def burst(length: float) -> int:
        answered, until = 0, time.monotonic_ns() + int(length * SECOND)
        while (now := time.monotonic_ns()) < until:
            transport.send(source.chunk(np.full(requests, now)), until)
            answered += int((transport.outcomes()["status"] == 0).sum())
        transport.drain(time.monotonic_ns() + 10 * SECOND)
        return answered + int((transport.outcomes()["status"] == 0).sum())

    burst(seconds / 5)
    cpu, wall = cpu_seconds(), time.monotonic()
    answered = burst(seconds)
    wall, cpu = time.monotonic() - wall, cpu_seconds() - cpu
    return {"spans": answered * spans, "cpu": cpu, "wall": wall}


def send_steadily(port: int, spans: int, rate: int, seconds: float) -> dict[str, float]:
    """So many requests a second: lateness in ms and the share of a core."""
    import numpy as np

    ahead = max(1, rate // 20)
    transport, source = connect(port), Source(spans, ahead)
    late = []
    start, cpu = time.monotonic_ns() + SECOND // 10, cpu_seconds()
    for k in range(0, int(rate * seconds), ahead):
        scheduled = start + np.arange(k, k + ahead, dtype=np.int64) * SECOND // rate
        transport.wait(int(scheduled[0]) - 5_000_000)
        transport.send(source.chunk(scheduled), start + 3600 * SECOND)
        taken = transport.outcomes()
        late.append(taken["sent"] - taken["scheduled"])
    cpu, wall = cpu_seconds() - cpu, (time.monotonic_ns() - start) / SECOND
    lateness = np.concatenate(late)[rate // 10 :] / 1e6
    p50, p99 = np.percentile(lateness, [50, 99])
    return {"p50_ms": p50, "p99_ms": p99, "max_ms": lateness.max(), "core": cpu / wall}


def send_raw(port: int, spans: int, seconds: float) -> dict[str, float]:
    """The same bytes in the same pieces through a plain socket."""
    import numpy as np

    batches = list(
        Source(spans, max(2, RAW_SPANS // spans))
        .chunk(np.zeros(max(2, RAW_SPANS // spans), np.int64))
        .each()
    )
    data = memoryview(b"".join(batches))
    pieces = [data[i : i + WRITE] for i in range(0, len(data) - WRITE, WRITE)]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        cpu, wall, sent = cpu_seconds(), time.monotonic(), 0
        while time.monotonic() - wall < seconds:
            for piece in pieces:
                connection.sendall(piece)
                sent += len(piece)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        wall, cpu = time.monotonic() - wall, cpu_seconds() - cpu
    per_span = len(batches[0]) / spans
    return {"spans": sent / per_span, "cpu": cpu, "wall": wall}


def in_fresh_process(core: int | None, what: str, *arguments: float) -> dict[str, float]:
    command = [sys.executable, __file__, what, *map(str, arguments)]
    pin = ["taskset", "-c", str(core)] if core is not None else []
    ran = subprocess.run([*pin, *command], capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(ran.stdout)
    return result


def h2load(tool: str, core: int | None, port: int, body: Path, streams: int, n: int) -> float:
    """CPU seconds that h2load takes for n requests."""
    pin = ["taskset", "-c", str(core)] if core is not None else []
    command = [*pin, tool, "-c", "1", "-m", str(streams), "-n", str(n), "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    url = f"http://127.0.0.1:{port}{EXPORT}"
    ran = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"{n} succeeded" in ran.stdout, ran.stdout
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    options = common.parse(__doc__)
    tool = shutil.which("h2load")
    if tool is None:
        sys.exit("bench_wire: h2load is not installed (Debian: nghttp2-client)")
    cpus = sorted(os.sched_getaffinity(0))
    theirs, mine = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
    sizes = (100, 1000) if options.short else (100, 1000, 8000)
    runs, seconds, work = (1, 0.2, 400_000) if options.short else (7, 1.0, 6_000_000)
    figures: dict[str, list[float]] = {}
    best: dict[str, int] = {}
    ratios: dict[str, float] = {}
    served, raw = Served("unscanned", theirs), Served("raw", theirs)
    with tempfile.TemporaryDirectory() as folder:
        for spans in sizes:
            body = Path(folder, str(spans))
            body.write_bytes(one_request(spans))

            def by_h2load(streams: int, share: float = 1.0) -> float:
                few = max(streams, int(work * share) // spans // 10)  # noqa: B023
                run = [h2load(tool, mine, served.port, body, streams, n) for n in (few, 11 * few)]  # noqa: B023
                return 10 * few * spans / (run[1] - run[0])  # noqa: B023

            best[str(spans)] = (
                32 if options.short else max(STREAMS, key=lambda m: by_h2load(m, 0.3))
            )
            walls: dict[str, list[float]] = {"wire": [], "raw": []}

            def by_us(what: str, port: int) -> float:
                found = in_fresh_process(mine, what, port, spans, seconds)  # noqa: B023
                walls[what].append(found["spans"] / found["wall"])  # noqa: B023
                return found["spans"] / found["cpu"]

            sides = {
                "h2load": lambda: by_h2load(best[str(spans)]),  # noqa: B023
                "wire": lambda: by_us("wire", served.port),
            }
            if not options.short or spans == 1000:
                sides["raw"] = lambda: by_us("raw", raw.port)
            taken = common.interleaved(sides, runs)
            for side, values in taken.items():
                figures[f"{side}_{spans}"] = values
            median = {side: common.summary(values)["median"] for side, values in taken.items()}
            ratios[f"wire/h2load {spans}"] = median["wire"] / median["h2load"]
            if "raw" in median:
                wall = {side: common.summary(values)["median"] for side, values in walls.items()}
                ratios[f"wire/raw bytes per second {spans}"] = wall["wire"] / wall["raw"]

    def steady_runs(spans: int, rate: int) -> dict[str, Any]:
        """The medians of some steady runs, and their 99th percentiles one by one."""
        took = [
            in_fresh_process(mine, "steady", served.port, spans, rate, 5 * seconds)
            for _ in range(1 if options.short else 3)
        ]
        medians = {key: statistics.median(run[key] for run in took) for key in took[0]}
        return {**medians, "p99_ms_raw": [run["p99_ms"] for run in took]}

    lateness, steady = steady_runs(100, 1000), steady_runs(1000, 100)
    served.close()
    raw.close()
    targets = {
        f"wire/h2load {spans}": ratios[f"wire/h2load {spans}"] >= TARGETS[spans] for spans in sizes
    }
    targets |= {name: ratio >= 0.6 for name, ratio in ratios.items() if "raw" in name}
    targets["p99 lateness under 1 ms at 1,000 requests/s"] = lateness["p99_ms"] < 1.0
    targets["100,000 spans/s under 5 % of a core"] = steady["core"] < 0.05
    common.report(
        "wire",
        figures,
        unit="spans per CPU-second",
        in_flight=IN_FLIGHT,
        h2load_streams=best,
        ratios=ratios,
        steady_1000_requests_of_100=lateness,
        steady_100_requests_of_1000=steady,
        targets=targets,
    )


def one_request(spans: int) -> bytes:
    """A stamped request with the gRPC prefix: the constant body."""
    import numpy as np

    (data,) = Source(spans, 1).chunk(np.zeros(1, np.int64)).each()
    return b"\0" + len(data).to_bytes(4, "big") + data


if __name__ == "__main__":
    if len(sys.argv) > 3:
        sides = {"wire": send_flat_out, "raw": send_raw, "steady": send_steadily}
        numbers = [float(a) if "." in a else int(a) for a in sys.argv[2:]]
        print(json.dumps(sides[sys.argv[1]](*numbers)))  # type: ignore[operator]
    else:
        main()

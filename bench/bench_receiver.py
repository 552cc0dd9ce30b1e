"""The sink's native receiver under h2load: spans per CPU-second of the receiver's process.

Constant bodies of 192-byte spans, 100, 1,000 and 8,000 a request, against the grpcio receiver in
the same run; beside them the native receiver that scans nothing, and a process that only reads as
many bytes off a loopback socket, which is what the kernel takes. The receiver has one core and the
sender another, where there are two. Figures in spans per CPU-second; ``ratio`` is wire to grpc.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import common

SPANS = (100, 1000, 8000)
SPAN_BYTES = 192
STREAMS = 16
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
MAX_MESSAGE = 4 << 20


def body(count: int) -> bytes:
    """An ExportTraceServiceRequest of spans that take 192 bytes each, with four attributes."""
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

    dice = random.Random(count)
    request = trace_service_pb2.ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for i in range(count):
        span = spans.add(
            trace_id=dice.randbytes(16),
            span_id=dice.randbytes(8),
            name="GET /api/products",
            kind=2,
            start_time_unix_nano=1_700_000_000_000_000_000 + i,
            end_time_unix_nano=1_700_000_000_020_000_000 + i,
        )
        texts = {"http.route": "/api/products", "auth.token": "abc", "peer": "cart", "pad": "x"}
        for key, text in texts.items():
            span.attributes.add(key=key).value.string_value = text
        text += "x" * (SPAN_BYTES - 3 - span.ByteSize())  # 3: the field's tag and length
        span.attributes[3].value.string_value = text
        assert span.ByteSize() == SPAN_BYTES - 3
    return request.SerializeToString()


def serve(kind: str) -> None:
    """The receiver's process: says its port; then, for each line it reads, its CPU seconds."""
    import time

    if kind == "grpc":
        from blaster.sink.grpc_receiver import GrpcReceiver

        print(GrpcReceiver("127.0.0.1", 0, 1 << 22, MAX_MESSAGE).start(), flush=True)
    elif kind == "raw":
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=read_all, args=(listener,), daemon=True).start()
        print(listener.getsockname()[1], flush=True)
    else:
        from blaster._wire import Receiver

        receiver = Receiver(max_message=MAX_MESSAGE, scan=kind == "wire")
        threading.Thread(target=receiver.run, args=(array("q", [0]),), daemon=True).start()
        print(receiver.port, flush=True)
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    os._exit(0)


def read_all(listener: socket.socket) -> None:
    """Reads all connections, one after the other, to their ends."""
    buffer = bytearray(1 << 19)
    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv_into(buffer):
                pass
            connection.sendall(b".")


class Served:
    """A receiver's process."""

    def __init__(self, kind: str, cpu: int | None) -> None:
        command = [sys.executable, __file__, "serve", kind]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        if cpu is not None:
            os.sched_setaffinity(self._process.pid, {cpu})
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def cpu_seconds(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        self._process.communicate()


def load(h2load: str, served: Served, file: Path, requests: int, cpu: int | None) -> None:
    """h2load, one connection."""
    where = ["taskset", "-c", str(cpu)] if cpu is not None else []
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    many = ["-n", str(requests), "-c", "1", "-m", str(STREAMS), "-d", str(file)]
    url = f"http://127.0.0.1:{served.port}{EXPORT}"
    done = subprocess.run(
        [*where, h2load, *many, *headers, url], capture_output=True, text=True, check=True
    )
    assert f"{requests} succeeded" in done.stdout, done.stdout


def write_all(served: Served, data: bytes, requests: int, cpu: int | None) -> None:
    """Writes the same bytes to a process that only reads."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        for _ in range(requests):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
    os.sched_setaffinity(0, before)


def main() -> None:
    options = common.parse(__doc__)
    h2load = shutil.which("h2load")
    if h2load is None:
        sys.exit("bench_receiver: h2load is not installed (Debian: nghttp2-client)")
    cpus = sorted(os.sched_getaffinity(0))
    mine, theirs = (cpus[0], cpus[-1]) if len(cpus) > 1 else (None, None)
    runs, work = (1, 400_000) if options.short else (5, 8_000_000)
    figures: dict[str, list[float]] = {}
    ratios: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in SPANS:
            data = body(count)
            data = b"\0" + len(data).to_bytes(4, "big") + data
            file = Path(folder) / str(count)
            file.write_bytes(data)
            served = {kind: Served(kind, mine) for kind in ("wire", "unscanned", "grpc", "raw")}

            def measure(kind: str, share: float) -> float:
                one, requests = served[kind], max(20, int(work * share / count))  # noqa: B023
                before = one.cpu_seconds()
                if kind == "raw":
                    write_all(one, data, requests, theirs)  # noqa: B023
                else:
                    load(h2load, one, file, requests, theirs)  # noqa: B023
                return requests * count / (one.cpu_seconds() - before)  # noqa: B023

            for kind in served:
                measure(kind, 0.1)
            shares = {"grpc": 0.1}
            sides: dict[str, Callable[[], float]] = {
                k: partial(measure, k, shares.get(k, 1.0)) for k in served
            }
            for kind, values in common.interleaved(sides, runs).items():
                figures[f"{kind}_{count}"] = values
            for one in served.values():
                one.close()
            medians = {k: common.summary(figures[f"{k}_{count}"])["median"] for k in served}
            ratios[str(count)] = {
                "wire_to_grpc": medians["wire"] / medians["grpc"],
                "wire_to_raw": medians["wire"] / medians["raw"],
            }
    common.report("receiver", figures, ratio=ratios, spans_per_request=SPANS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        serve(sys.argv[2])
    else:
        main()

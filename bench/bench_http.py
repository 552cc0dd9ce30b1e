"""``blaster run --transport http --rate max`` against a loop on requests, spans per CPU-second.

The loop posts one constant batch with a ``requests.Session``: one connection that is kept alive,
prebuilt bytes and headers, no proxies looked up, no IDs, no times, no accounts. Both sides send to
the same receiver, which reads requests and drops them: one that looked into JSON would let both of
them wait. Both sides' CPU is that of their processes from the first request to the last, without
the start of the interpreter; blaster's includes the parent. Target: at least 5 at 100 spans a
request, in protobuf.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from common import interleaved, parse, report

SIZES = (100, 1000)
ENCODINGS = ("protobuf", "json")
TARGET_RATIO, TARGET_SIZE = 5.0, 100


def loop(port: int, spans: int, encoding: str, seconds: float) -> None:
    """The loop on requests; prints its spans per CPU-second."""
    from fractions import Fraction

    import numpy as np
    import requests

    from blaster.payload import flat
    from blaster.payload.columns import ColumnSource
    from blaster.payload.mix import Mix

    mix = Mix([flat.shape(1)], Fraction(1, 10), "sdk", "json" if encoding == "json" else "protobuf")
    columns = ColumnSource(1, mix).make(
        np.zeros(1, np.int64), np.full(1, spans), np.full(1, time.time_ns())
    )
    filling = mix.template.filling(columns.arrays)
    out, offsets = bytearray(mix.batch_bytes(spans)), np.zeros(2, np.int64)
    size = mix.template.compile().stamp_into(
        filling, columns.variants, columns.counts, out, offsets
    )
    batch = bytes(out[:size])

    session = requests.Session()
    session.trust_env = False
    kind = "application/json" if encoding == "json" else "application/x-protobuf"
    session.headers.update({"Content-Type": kind, "Accept-Encoding": "identity"})
    url = f"http://127.0.0.1:{port}/v1/traces"
    session.post(url, data=batch).raise_for_status()
    until, begun, sent = time.monotonic() + seconds, time.process_time(), 0
    while time.monotonic() < until:
        session.post(url, data=batch, timeout=10).raise_for_status()
        sent += spans
    print(sent / (time.process_time() - begun))


def receive() -> None:
    """Answers every request with 200, and says its port first."""

    def serve(connection: socket.socket) -> None:
        buffer = bytearray(1 << 20)
        with connection:
            while True:
                head = b""
                while (end := head.find(b"\r\n\r\n")) < 0:
                    got = connection.recv(65536)
                    if not got:
                        return
                    head += got
                length = int(
                    head[:end].lower().partition(b"content-length:")[2].split(b"\r")[0] or 0
                )
                left = length - (len(head) - end - 4)
                while left > 0:
                    left -= connection.recv_into(buffer, min(left, len(buffer)))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def blaster(port: int, spans: int, encoding: str, seconds: float) -> float:
    command = [sys.executable, "-m", "blaster", "run", "--rate", "max", "--transport", "http"]
    command += ["--encoding", encoding, "--endpoint", f"http://127.0.0.1:{port}"]
    command += ["--duration", f"{int(seconds * 1000)}ms", "--batch", str(spans), "--workers", "1"]
    ran = subprocess.run(
        [*command, "--quiet", "--json", "-"], capture_output=True, text=True, check=True
    )
    return float(json.loads(ran.stdout)["generator"]["spans_per_cpu_second"])


def main() -> None:
    arguments = parse(
        __doc__,
        ("--loop", {"nargs": 4, "help": "the loop on requests alone"}),
        ("--receive", {"action": "store_true", "help": "the receiver alone"}),
    )
    if arguments.receive:
        receive()
    if arguments.loop:
        port, spans, encoding, seconds = arguments.loop
        loop(int(port), int(spans), encoding, float(seconds))
        return
    seconds, runs = (1.0, 1) if arguments.short else (5.0, 5)
    command = [sys.executable, __file__, "--receive"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        port = int(receiver.stdout.readline())

        def requests_side(spans: int, encoding: str) -> Callable[[], float]:
            command = [sys.executable, __file__, "--loop", str(port), str(spans), encoding]
            return lambda: float(subprocess.check_output([*command, str(seconds)], text=True))

        def blaster_side(spans: int, encoding: str) -> Callable[[], float]:
            return lambda: blaster(port, spans, encoding, seconds)

        figures: dict[str, list[float]] = {}
        for encoding in ENCODINGS:
            for size in SIZES:
                sides = {
                    f"blaster_{encoding}_{size}": blaster_side(size, encoding),
                    f"requests_{encoding}_{size}": requests_side(size, encoding),
                }
                figures |= interleaved(sides, runs)
        receiver.terminate()
    ratios = {}
    for encoding in ENCODINGS:
        for size in SIZES:
            ours, theirs = (figures[f"{n}_{encoding}_{size}"] for n in ("blaster", "requests"))
            ratios[f"blaster/requests {encoding} {size}"] = statistics.median(
                a / b for a, b in zip(ours, theirs, strict=True)
            )
    report(
        "http",
        figures,
        unit="spans per CPU-second",
        ratios=ratios,
        targets={
            "blaster/requests": ratios[f"blaster/requests protobuf {TARGET_SIZE}"] >= TARGET_RATIO
        },
    )


if __name__ == "__main__":
    main()

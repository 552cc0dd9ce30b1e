"""``blaster run --transport grpc --rate max`` against a bare grpcio loop, spans per CPU-second.

The bare loop sends one constant batch over the same channels, with the same calls in flight, to
the same receiver, and does nothing else: no IDs, no times, no accounts. It is written on grpc.aio,
the cheapest of grpcio's interfaces (measured against futures and threads). Both sides' CPU is that
of their processes from the first request to the last, without the start of the interpreter;
blaster's includes the parent, which samples and accounts. Target: at least 0.9 at 1,000 spans.

A constant batch stays in the caches; one that has been made for its request does not. `copied` is
the bare loop with a fresh copy of the batch for each call: what no generator of different batches
can surpass, since stamping costs no less than copying.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from common import interleaved, parse, report

CHANNELS, IN_FLIGHT = 1, 8
SIZES = (100, 1000, 8000)
TARGET_RATIO, TARGET_SIZE = 0.9, 1000


def bare(port: int, spans: int, seconds: float, copied: bool) -> None:
    """The bare loop; prints its spans per CPU-second."""
    from fractions import Fraction

    import grpc.aio
    import numpy as np

    from blaster.payload import flat
    from blaster.payload.columns import ColumnSource
    from blaster.payload.mix import Mix
    from blaster.transport.base import EXPORT_METHOD

    mix = Mix([flat.shape(1)], Fraction(1, 10))
    source = ColumnSource(1, mix)
    batches = source.batches(mix.template.compile())
    source.begin(batches, np.zeros(1, np.int64), np.full(1, spans), np.full(1, time.time_ns()))
    (batch,) = batches
    view = memoryview(batch)

    async def loop() -> tuple[int, float]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(CHANNELS)
        ]
        stubs = [channel.unary_unary(EXPORT_METHOD, None, None) for channel in channels]
        for stub in stubs:
            await stub(b"")
        until = time.monotonic() + seconds
        begun = time.process_time()
        sent = 0

        async def caller(number: int) -> None:
            nonlocal sent
            stub = stubs[number % CHANNELS]
            while time.monotonic() < until:
                await stub(bytes(view) if copied else batch, timeout=10)
                sent += spans

        await asyncio.gather(*map(caller, range(IN_FLIGHT)))
        return sent, time.process_time() - begun

    sent, cpu = asyncio.run(loop())
    print(sent / cpu)


def blaster(port: int, spans: int, seconds: float) -> float:
    command = [sys.executable, "-m", "blaster", "run", "--rate", "max", "--transport", "grpc"]
    command += ["--endpoint", f"http://127.0.0.1:{port}", "--duration", f"{int(seconds * 1000)}ms"]
    command += ["--batch", str(spans), "--workers", "1", "--connections", str(CHANNELS)]
    command += ["--in-flight", str(IN_FLIGHT), "--quiet", "--json", "-"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(ran.stdout)["generator"]["spans_per_cpu_second"])


def main() -> None:
    arguments = parse(__doc__, ("--bare", {"nargs": 4, "help": "the bare loop alone"}))
    if arguments.bare:
        name, port, spans, seconds = arguments.bare
        bare(int(port), int(spans), float(seconds), copied=name == "copied")
        return
    seconds, runs = (1.0, 2) if arguments.short else (5.0, 5)
    sink = [sys.executable, "-m", "blaster", "sink", "--grpc-port", "0", "--api-port", "0"]
    with subprocess.Popen([*sink, "--json"], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        port = int(json.loads(receiver.stdout.readline())["grpc_port"])

        def bare_side(name: str, spans: int) -> Callable[[], float]:
            command = [sys.executable, __file__, "--bare", name]
            command += [str(port), str(spans), str(seconds)]
            return lambda: float(subprocess.check_output(command, text=True))

        figures: dict[str, list[float]] = {}
        for size in SIZES:
            sides: dict[str, Callable[[], float]] = {
                f"blaster_{size}": lambda size=size: blaster(port, size, seconds),
                f"bare_{size}": bare_side("bare", size),
                f"copied_{size}": bare_side("copied", size),
            }
            figures |= interleaved(sides, runs)
        receiver.terminate()

    def ratio(side: str, to: str) -> float:
        pairs = zip(figures[side], figures[to], strict=True)
        return statistics.median(a / b for a, b in pairs)

    ratios = {}
    for size in SIZES:
        for side, to in [("blaster", "bare"), ("copied", "bare"), ("blaster", "copied")]:
            ratios[f"{side}/{to} {size}"] = ratio(f"{side}_{size}", f"{to}_{size}")
    report(
        "grpc",
        figures,
        unit="spans per CPU-second",
        channels=CHANNELS,
        in_flight=IN_FLIGHT,
        ratios=ratios,
        targets={"blaster/bare": ratios[f"blaster/bare {TARGET_SIZE}"] >= TARGET_RATIO},
    )


if __name__ == "__main__":
    main()

"""The proxy's process: connections there and back, each byte through the faults in force.

Buffers are bounded: each direction of a connection holds at most WINDOW bytes that wait for their
time; then nothing more is read, and TCP holds the sender back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from blaster.address import cannot_listen, family, written
from blaster.errors import BlasterError, UsageError
from blaster.proxy.faults import ProxyFault, parse_all
from blaster.units import quoted

CONNECTIONS = 1024
READ = 1 << 16
WINDOW = 1 << 20
"""Bytes under way in each direction of a connection."""
CONNECT_TIMEOUT_S = 10.0
LOOK_S = 0.02
"""How often a connection looks whether a fault has begun or ended."""
PIECE_S = 0.01
"""Bandwidth is kept in pieces of so long."""


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """What ``blaster proxy`` is asked for."""

    target: str
    port: int = 0
    host: str = "127.0.0.1"
    faults: Sequence[str] = ()
    seed: int = 0
    json: bool = False

    def where(self) -> tuple[str, int]:
        """The target's host and port. Raises UsageError for what is none."""
        host, colon, port = self.target.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise UsageError(f"--target {quoted(self.target)}: must be HOST:PORT or :PORT")
        return host.strip("[]") or "127.0.0.1", int(port)

    def check(self) -> None:
        """Raises UsageError for a value out of its range."""
        self.where()
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--listen {self.port}: must be 0 to 65535")


def serve(options: ProxyOptions) -> None:
    """Proxies until SIGTERM or SIGINT. Prints one line once it listens. Raises UsageError."""
    options.check()
    faults = parse_all(options.faults)
    where = (options.host, options.port)
    try:
        listener = socket.create_server(where, family=family(options.host), backlog=1024)
    except OSError as error:
        raise cannot_listen("--listen", options.host, options.port, error) from None
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options, faults, listener))


async def _serve(
    options: ProxyOptions, faults: tuple[ProxyFault, ...], listener: socket.socket
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    proxy = Proxy(options.where(), faults, options.seed)
    server = await asyncio.start_server(proxy.handle, sock=listener, limit=READ)
    port = int(listener.getsockname()[1])
    if options.json:
        print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
    else:
        host = written(options.host, port)
        print(f"blaster proxy: {host} to {options.target}, pid {os.getpid()}", flush=True)
    await stop.wait()
    server.close()
    proxy.close()


class Proxy:
    """All connections, and the faults that are in force."""

    def __init__(
        self, target: tuple[str, int], faults: tuple[ProxyFault, ...], seed: int = 0
    ) -> None:
        self._target = target
        self._faults = faults
        self._random = random.Random(seed)
        self._started: float | None = None
        self._open: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """Seconds since the first connection."""
        return asyncio.get_running_loop().time() - (self._started or 0.0)

    def value(self, kind: str) -> float | None:
        """The sum of what the faults of a kind say now; None when none is in force."""
        now = self.now()
        values = [f.value for f in self._faults if f.kind == kind and f.active(now)]
        return sum(values) if values else None

    def delay(self) -> float:
        """How long a byte that comes now is under way."""
        jitter = self.value("jitter")
        late = self._random.uniform(0, jitter) if jitter else 0.0
        return (self.value("latency") or 0.0) + late

    def drawn(self) -> frozenset[ProxyFault]:
        """The faults that a new connection is to meet, by their shares."""
        return frozenset(f for f in self._faults if self._random.random() < f.share)

    def close(self) -> None:
        """Ends all connections."""
        for task in self._open:
            task.cancel()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its beginning to its end."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= CONNECTIONS:
            writer.transport.abort()
            return
        if self._started is None:
            self._started = asyncio.get_running_loop().time()
        self._open.add(task)
        try:
            await _Connection(self, reader, writer).run(self._target)
        except (OSError, TimeoutError):
            pass  # either side went away, or the target is not there
        except asyncio.CancelledError:
            if task.cancelling() == 0:
                raise
        finally:
            self._open.discard(task)
            writer.transport.abort()


class _Connection:
    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._faults = proxy.drawn()
        self._opened = proxy.now()

    async def run(self, target: tuple[str, int]) -> None:
        connecting = asyncio.open_connection(*target, limit=READ)
        there, back = await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S)
        pipes = [
            asyncio.create_task(self._pipe(self._reader, back)),
            asyncio.create_task(self._pipe(there, self._writer)),
        ]
        spoiler = asyncio.create_task(self._spoil(back))
        pending: set[asyncio.Task[None]] = {*pipes, spoiler}
        try:
            while not all(pipe.done() for pipe in pipes):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if spoiler in done:
                    await self._after_half_open(pipes)
        finally:
            for task in (*pipes, spoiler):
                task.cancel()
            await asyncio.gather(*pipes, spoiler, return_exceptions=True)
            back.transport.abort()

    async def _after_half_open(self, pipes: list[asyncio.Task[None]]) -> None:
        """The target's side is closed: what the sender says is read and goes nowhere."""
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)
        while await self._reader.read(READ):
            pass

    def _active(self, kind: str) -> bool:
        now = self._proxy.now()
        return any(f.kind == kind and f.active(now) for f in self._faults)

    async def _spoil(self, back: asyncio.StreamWriter) -> None:
        """Resets the connection, or closes the target's side, when it is time to."""
        kinds = {f.kind for f in self._faults}
        if not kinds & {"reset", "half-open"}:
            await asyncio.Event().wait()
        while True:
            if self._active("reset"):
                _reset(self._writer)
                _reset(back)
                raise ConnectionResetError
            if self._active("half-open"):
                back.transport.abort()
                return
            await asyncio.sleep(LOOK_S)

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction: reads as long as there is room, and writes each piece at its time."""
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[float, bytes]] = deque()
        held, ended, news, room = 0, False, asyncio.Event(), asyncio.Event()

        async def read() -> None:
            nonlocal held, ended
            due = 0.0
            try:
                while data := await reader.read(READ):
                    while held >= WINDOW:
                        room.clear()
                        await room.wait()
                    if self._active("blackhole"):
                        continue
                    due = max(due, loop.time() + self._proxy.delay())  # bytes keep their order
                    waiting.append((due, data))
                    held += len(data)
                    news.set()
            finally:
                ended = True
                news.set()

        reading = asyncio.create_task(read())
        try:
            while waiting or not ended:
                if not waiting:
                    news.clear()
                    await news.wait()
                    continue
                due, data = waiting.popleft()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._write(writer, data)
                held -= len(data)
                room.set()
            await reading
            if writer.can_write_eof():
                writer.write_eof()
        finally:
            reading.cancel()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        while data:
            rate = self._proxy.value("bandwidth")
            size = len(data) if rate is None else max(1, min(len(data), int(rate * PIECE_S)))
            writer.write(data[:size])
            await writer.drain()
            if rate is not None:
                await asyncio.sleep(size / rate)
            data = data[size:]


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST, and takes along what was to be sent."""
    connected: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def main() -> int:
    """``python -m blaster.proxy.server TARGET [FAULT…]``; for tests and tools."""
    try:
        serve(ProxyOptions(sys.argv[1], faults=sys.argv[2:], json=True))
    except BlasterError as error:
        print(f"blaster proxy: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())

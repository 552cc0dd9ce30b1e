"""The proxy: forwards connections in both directions, with the active faults applied.

Buffers are bounded: each direction of a connection buffers at most WINDOW bytes until they are due;
then it stops reading, and TCP's flow control slows the sender down.
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
"""The most bytes buffered in each direction of a connection."""
CONNECT_TIMEOUT_S = 10.0
LOOK_S = 0.02
"""How often a connection checks whether a fault has begun or ended."""
PIECE_S = 0.01
"""The duration of the pieces in which bandwidth is limited."""


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """The options of ``blaster proxy``."""

    target: str
    port: int = 0
    host: str = "127.0.0.1"
    faults: Sequence[str] = ()
    seed: int = 0
    json: bool = False

    def where(self) -> tuple[str, int]:
        """Parse the target's host and port. Raises UsageError."""
        host, colon, port = self.target.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise UsageError(f"--target {quoted(self.target)}: must be HOST:PORT or :PORT")
        return host.strip("[]") or "127.0.0.1", int(port)

    def check(self) -> None:
        """Raise UsageError for an invalid value."""
        self.where()
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--listen {self.port}: must be 0 to 65535")


def serve(options: ProxyOptions) -> None:
    """Run the proxy until SIGTERM or SIGINT. Prints one line once it listens. Raises UsageError."""
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
    """All connections, and the faults."""

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
        """The sum of the values of a kind's active faults; None if none is active."""
        now = self.now()
        values = [f.value for f in self._faults if f.kind == kind and f.active(now)]
        return sum(values) if values else None

    def delay(self) -> float:
        """The delay of a byte that arrives now, in seconds."""
        jitter = self.value("jitter")
        late = self._random.uniform(0, jitter) if jitter else 0.0
        return (self.value("latency") or 0.0) + late

    def draw(self) -> frozenset[ProxyFault]:
        """Draw the faults that apply to a new connection, by their shares."""
        return frozenset(f for f in self._faults if self._random.random() < f.share)

    def close(self) -> None:
        """Close all connections."""
        for task in self._open:
            task.cancel()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
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
            pass  # either side closed, or the target is unreachable
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
        self._faults = proxy.draw()
        self._opened = proxy.now()

    async def run(self, target: tuple[str, int]) -> None:
        connecting = asyncio.open_connection(*target, limit=READ)
        there, back = await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S)
        pipes = [
            asyncio.create_task(self._pipe(self._reader, back)),
            asyncio.create_task(self._pipe(there, self._writer)),
        ]
        breaker = asyncio.create_task(self._break(back))
        pending: set[asyncio.Task[None]] = {*pipes, breaker}
        try:
            while not all(pipe.done() for pipe in pipes):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                if breaker in done:
                    await self._after_half_open(pipes)
        finally:
            for task in (*pipes, breaker):
                task.cancel()
            await asyncio.gather(*pipes, breaker, return_exceptions=True)
            back.transport.abort()

    async def _after_half_open(self, pipes: list[asyncio.Task[None]]) -> None:
        """Discard what the sender sends after the target's side was closed."""
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)
        while await self._reader.read(READ):
            pass

    def _active(self, kind: str) -> bool:
        now = self._proxy.now()
        return any(f.kind == kind and f.active(now) for f in self._faults)

    async def _break(self, back: asyncio.StreamWriter) -> None:
        """Reset the connection, or close the target's side, when such a fault begins."""
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
        """Forward one direction: read while there is room, write each piece when it is due."""
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[float, bytes]] = deque()
        buffered, ended, arrived, room = 0, False, asyncio.Event(), asyncio.Event()

        async def read() -> None:
            nonlocal buffered, ended
            due = 0.0
            try:
                while data := await reader.read(READ):
                    while buffered >= WINDOW:
                        room.clear()
                        await room.wait()
                    if self._active("blackhole"):
                        continue
                    due = max(due, loop.time() + self._proxy.delay())  # bytes keep their order
                    waiting.append((due, data))
                    buffered += len(data)
                    arrived.set()
            finally:
                ended = True
                arrived.set()

        reading = asyncio.create_task(read())
        try:
            while waiting or not ended:
                if not waiting:
                    arrived.clear()
                    await arrived.wait()
                    continue
                due, data = waiting.popleft()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._write(writer, data)
                buffered -= len(data)
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
    """Close with RST, discarding unsent bytes."""
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

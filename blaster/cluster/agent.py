"""Agent: what stands on a host between the parent and the engine there. A Dask actor, or, in one
process with the parent, an object like any other; nothing of Dask is imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence

from blaster import interpreter
from blaster.cluster import about
from blaster.cluster.messages import Begin, Lease, Sealed, Start, Stop, ToHost, frame, length_of
from blaster.errors import BlasterError
from blaster.transport.otlp_settings import OtlpSettings
from blaster.transport.probe import probe

POLL_S = 1.0
"""A poll is answered after this at the latest, so that it is known that the host is there."""

ENGINE = interpreter.command("blaster.cluster.host")
CEILING = interpreter.command("blaster", "cluster", "ceiling", "--json")

MOST_WAITING = 64
"""The engine's messages that are kept for the parent; with more, the engine waits."""


class Agent:
    """Starts the engine, passes messages on, and ends it. All methods run in one event loop."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_WAITING)
        self._reader: asyncio.Task[None] | None = None

    async def clock(self) -> tuple[int, int]:
        """CLOCK_MONOTONIC and the time of day, in ns."""
        return time.monotonic_ns(), time.time_ns()

    async def about(self) -> about.About:
        """What this host is."""
        return about.here()

    async def open(self, number: int, order: Sealed, epoch_ns: int, offset_ns: int) -> bytes:
        """Starts the engine with its part of the order; returns its first message: Ready, or
        Failed. What ran before is ended. EOFError where it ends without a word."""
        await self.close()
        self._process = await asyncio.create_subprocess_exec(
            *ENGINE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the Dask worker's terminal is not for it
        )
        self._frames = asyncio.Queue(MOST_WAITING)
        self._reader = asyncio.create_task(self._read(self._process, self._frames))
        await self._tell(Begin(number, order.data, epoch_ns, offset_ns))
        first = await self._frames.get()
        if first is None:
            raise EOFError(await self._ending())
        return first

    async def start(self, start_ns: int, lease_ns: int) -> int:
        """Passes the start on; returns when, by this host's CLOCK_MONOTONIC."""
        await self._tell(Start(start_ns, lease_ns))
        return time.monotonic_ns()

    async def poll(self, lease_ns: int) -> tuple[list[bytes], str | None]:
        """Renews the lease; returns the messages since the last poll, and how the engine ended,
        once it has and all was passed on."""
        await self._tell(Lease(lease_ns))
        messages: list[bytes] = []
        try:
            message = await asyncio.wait_for(self._frames.get(), POLL_S)
            while message is not None:
                messages.append(message)
                message = self._frames.get_nowait()
        except (TimeoutError, asyncio.QueueEmpty):
            return messages, None
        return messages, await self._ending()

    async def stop(self) -> None:
        """Passes a stop on."""
        await self._tell(Stop())

    async def close(self) -> None:
        """Ends the engine, if it still runs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if self._reader is not None:
            self._reader.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def reach(self, otlp: OtlpSettings) -> tuple[float | None, str]:
        """The round trip of a TCP connection to the endpoint in ms, the best of some, and "ok"; or
        None and why nobody there takes spans."""
        try:
            await asyncio.to_thread(probe, otlp)
            trips = []
            for _ in range(5):
                begun = time.monotonic()
                _, writer = await asyncio.open_connection(otlp.endpoint.host, otlp.endpoint.port)
                trips.append(time.monotonic() - begun)
                writer.close()
        except (BlasterError, OSError) as error:
            return None, str(error)
        return round(1e3 * min(trips), 3), "ok"

    async def ceiling(self, arguments: Sequence[str]) -> str:
        """What `blaster cluster ceiling --json` with these arguments says here, or why not."""
        process = await asyncio.create_subprocess_exec(
            *CEILING, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        said, errors = await process.communicate()
        if process.returncode == 0:
            return said.decode()
        lines = errors.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {process.returncode}"

    async def _tell(self, message: ToHost) -> None:
        """Writes to the engine; where it has ended, that is told by :meth:`poll`."""
        if self._process is None or self._process.stdin is None:
            raise BlasterError("no run is open on this host")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._process.stdin.write(frame(message))
            await self._process.stdin.drain()

    async def _ending(self) -> str:
        assert self._process is not None
        status = await self._process.wait()
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"its engine {how}"

    @staticmethod
    async def _read(
        process: asyncio.subprocess.Process, frames: asyncio.Queue[bytes | None]
    ) -> None:
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError, ValueError):
            while True:
                head = await process.stdout.readexactly(4)
                await frames.put(await process.stdout.readexactly(length_of(head)))
        await frames.put(None)

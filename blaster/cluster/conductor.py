"""Conductor: starts a plan on many hosts at once, keeps them going, and gathers what they report.

Clocks are compared as in NTP (RFC 5905, section 8): with t1 and t4 ours, t2 = t3 the host's, the
offset is t2 - (t1 + t4) / 2, give or take half the round trip; the shortest of several counts.

A host may send only while its lease lasts, which every poll renews. So one that is not heard of any
more has stopped sending by a time that we know, whatever became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
import zlib
from collections.abc import Callable, Coroutine, Sequence
from concurrent import futures
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from blaster.cluster.about import About
from blaster.cluster.merged import ClusterRun, Merged, Part
from blaster.cluster.messages import Failed, Final, FromHost, Order, Report, Sealed, from_host
from blaster.engine.control import Progress
from blaster.engine.ledger import Ledger
from blaster.engine.outcome_log import OutcomeLog
from blaster.engine.results import Clock
from blaster.engine.run import LostHost
from blaster.engine.runner import CONNECT_TIMEOUT_S
from blaster.engine.series import Thinned
from blaster.engine.signals import Interrupted, StopSignals
from blaster.engine.worker import GRACE_NS
from blaster.errors import BlasterError, TargetUnreachable
from blaster.measure.hdr import merge_intervals
from blaster.measure.sampler import Sampler
from blaster.transport.otlp_settings import OtlpSettings

LOST_AFTER_S = 4.0
"""A host that has not answered for so long is lost."""

LEASE_NS = 5_000_000_000
"""How long a host may go on sending after the last poll that it can have got."""

OPEN_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 90.0
"""How long a host may take to begin, and to add up what it sent."""

START_DELAY_S, START_DELAY_PER_HOST_S = 0.3, 0.003
CLOCK_ROUNDS, CLOCKS_AT_ONCE = 12, 16
TICK_S = 0.02

_T = TypeVar("_T")


class Link(Protocol):
    """An Agent, near or far; see there. All methods are called in one event loop."""

    async def clock(self) -> tuple[int, int]: ...
    async def about(self) -> About: ...
    async def open(self, number: int, order: Sealed, epoch_ns: int, offset_ns: int) -> bytes: ...
    async def start(self, start_ns: int, lease_ns: int) -> int: ...
    async def poll(self, lease_ns: int) -> tuple[list[bytes], str | None]: ...
    async def stop(self) -> None: ...
    async def close(self) -> None: ...
    async def reach(self, otlp: OtlpSettings) -> tuple[float | None, str]: ...
    async def ceiling(self, arguments: Sequence[str]) -> str: ...


class HostLost(Exception):
    """A host does not answer, or its engine ended."""


class Conductor:
    """Runs an Order once, on the hosts that ``links`` lead to, as a Runner runs a plan.

    ``parts``: the hosts, in the order of their numbers, which are the plan's. ``loop`` runs in a
    thread of its own. ``stop_on_loss``: a lost host ends the run. ``outcome_log`` is given all
    Outcomes, where there is one.
    """

    def __init__(
        self,
        order: Order,
        parts: Sequence[Part],
        links: Sequence[Link],
        loop: asyncio.AbstractEventLoop,
        *,
        signals: StopSignals,
        stop_on_loss: bool = False,
        target: Sampler | None = None,
        on_progress: Callable[[Progress], str | None] | None = None,
        keep_intervals: bool = False,
        outcome_log: OutcomeLog | None = None,
    ) -> None:
        self._order = order
        self._plan = replace(order.plan, workers=order.plan.workers * len(parts), host=0, hosts=1)
        self._parts, self._links, self._loop = parts, links, loop
        self._signals, self._stop_on_loss = signals, stop_on_loss
        self._target, self._on_progress = target, on_progress
        self._keep_intervals, self._outcome_log = keep_intervals, outcome_log
        self._ledger = Ledger(1, self._plan.segments)
        self._heard: queue.SimpleQueue[tuple[Part, FromHost | HostLost]] = queue.SimpleQueue()

    def run(self) -> ClusterRun:
        """Sends the whole plan, or until SIGINT or SIGTERM. BlasterError or TargetUnreachable,
        naming the host, where one cannot begin."""
        self._signals.on_stop = self._ledger.stop
        try:
            self._wait(self._prepare())
            run = self._start()
            self._watch(run)
        finally:
            closing = [self._end(link) for link in self._links]
            with contextlib.suppress(Exception):
                self._submit(_gathered(closing)).result(LOST_AFTER_S)
        return run

    def _submit(self, work: Coroutine[Any, Any, _T]) -> futures.Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What the coroutine gives. Interrupted on a signal."""
        future = self._submit(work)
        while True:
            with contextlib.suppress(futures.TimeoutError):
                return future.result(0.1)
            if self._ledger.stopped_ns:
                future.cancel()
                raise Interrupted("interrupted before the first span was offered")

    async def _prepare(self) -> None:
        """Compares the clocks and has all hosts fork their workers and connect: the barrier."""
        few = asyncio.Semaphore(CLOCKS_AT_ONCE)

        async def compare(part: Part, link: Link) -> None:
            async with few:
                part.offset_ns, part.clock = await offset_of(link)

        both = list(zip(self._parts, self._links, strict=True))
        await _gathered([self._named(part, compare(part, link)) for part, link in both])
        sealed = Sealed.of(self._order)
        await _gathered([self._named(part, self._open(part, link, sealed)) for part, link in both])

    async def _open(self, part: Part, link: Link, sealed: Sealed) -> None:
        epoch = self._ledger.epoch_ns - part.offset_ns
        opening = link.open(part.number, sealed, epoch, part.offset_ns)
        first = from_host(await asyncio.wait_for(opening, OPEN_TIMEOUT_S + CONNECT_TIMEOUT_S))
        if isinstance(first, Failed):
            wrong: BlasterError = BlasterError(first.error)
            if first.exit_status == TargetUnreachable.exit_status:
                wrong = TargetUnreachable(first.error)
            raise wrong

    @staticmethod
    async def _named(part: Part, work: Coroutine[Any, Any, None]) -> None:
        """Puts the host's name before what goes wrong there."""
        try:
            await work
        except BlasterError as error:
            raise type(error)(f"host {part.name}: {error}") from None
        except Exception as error:
            said = str(error) or type(error).__name__
            raise BlasterError(f"host {part.name}: {said}") from None

    def _start(self) -> ClusterRun:
        delay = START_DELAY_S + START_DELAY_PER_HOST_S * len(self._parts)
        start = time.monotonic_ns() + round(delay * 1e9)
        run = ClusterRun(
            plan=self._plan,
            ledger=self._ledger,
            started_at=(self._ledger.epoch_ns + start) / 1e9,
            start_ns=start,
            target=self._target,
            intervals=Thinned(merge_intervals) if self._keep_intervals else None,
            parts=self._parts,
        )
        if self._target is not None:
            self._target.restart()
        self._ledger.control.start_ns = start
        for part, link in zip(self._parts, self._links, strict=True):
            self._submit(self._follow(part, link, start))
        return run

    async def _follow(self, part: Part, link: Link, start: int) -> None:
        """Starts a host and polls it to its end; what it says goes into the queue."""
        try:
            part.lease_ns = start + LEASE_NS - start
            told = link.start(start + part.offset_ns, start + LEASE_NS + part.offset_ns)
            heard = await asyncio.wait_for(told, LOST_AFTER_S)
            part.start_late_ms = round(max(heard - part.offset_ns - start, 0) / 1e6, 3)
            await self._poll(part, link, start)
        except HostLost as lost:
            self._heard.put((part, lost))
        except TimeoutError:
            self._heard.put((part, HostLost(f"was not heard of for {LOST_AFTER_S:g} s")))
        except Exception as error:
            said = str(error) or type(error).__name__
            self._heard.put((part, HostLost(f"cannot be reached any more ({said})")))

    async def _poll(self, part: Part, link: Link, start: int) -> None:
        offering = start + self._plan.scenario.duration_ns
        end = (
            offering
            + GRACE_NS
            + round((self._order.settings.otlp.timeout_s + CLOSE_TIMEOUT_S) * 1e9)
        )
        reported, stopping = time.monotonic_ns(), False
        while True:
            if self._ledger.stopped_ns and not stopping:
                stopping = True
                end = min(end, time.monotonic_ns() + round(CLOSE_TIMEOUT_S * 1e9))
                await asyncio.wait_for(link.stop(), LOST_AFTER_S)
            sent = time.monotonic_ns()
            part.lease_ns = max(sent + LEASE_NS, start + LEASE_NS) - start
            polled = link.poll(start + part.lease_ns + part.offset_ns)
            frames, ended = await asyncio.wait_for(polled, LOST_AFTER_S)
            now = time.monotonic_ns()
            for data in frames:
                message = from_host(data)
                if isinstance(message, Final):
                    with contextlib.suppress(Exception):
                        again, _ = await offset_of(link)
                        part.clock.drift_ms = round((again - part.offset_ns) / 1e6, 3)
                self._heard.put((part, message))
                reported = now
                if isinstance(message, Final | Failed):
                    return
            if ended is not None:
                raise HostLost(ended)
            silent = now - max(reported, start)
            if (silent > LOST_AFTER_S * 1e9 and now < offering and not stopping) or now > end:
                raise HostLost(f"has an engine that was not heard of for {silent / 1e9:.0f} s")

    def _watch(self, run: ClusterRun) -> None:
        merged = Merged(run)
        while not all(part.is_over for part in self._parts):
            time.sleep(TICK_S)
            self._take(run, merged)
            self._show(run, merged)
        self._show(run, merged)
        run.interrupted = self._ledger.stopped_ns != 0 and run.aborted is None
        run.hosts = merged.close(self._order)

    def _take(self, run: ClusterRun, merged: Merged) -> None:
        while not self._heard.empty():
            part, message = self._heard.get()
            if part.is_over:
                continue
            if isinstance(message, Report):
                merged.take(part, message)
            elif isinstance(message, Final):
                part.final = message
                if self._outcome_log is not None:
                    self._outcome_log.add(zlib.decompress(message.outcomes))
                if message.expired and not self._ledger.stopped_ns:
                    run.aborted = f"host {part.name} did not hear from here for too long"
                    self._ledger.stop()
            elif isinstance(message, HostLost | Failed):
                self._lose(run, part, str(message))

    def _lose(self, run: ClusterRun, part: Part, how: str) -> None:
        part.lost = LostHost(part.name, how)
        run.lost_workers.append(part.lost)
        if self._stop_on_loss and not self._ledger.stopped_ns:
            run.aborted = f"{part.lost}, and --on-host-lost is stop"
            self._ledger.stop()

    def _show(self, run: ClusterRun, merged: Merged) -> None:
        for point in merged.points():
            if self._on_progress is None:
                continue
            reason = self._on_progress(Progress(run, point, self._plan.scenario.duration_ns))
            if reason and not self._ledger.stopped_ns:
                run.aborted = reason
                self._ledger.stop()

    @staticmethod
    async def _end(link: Link) -> None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(link.close(), LOST_AFTER_S)


async def offset_of(link: Link) -> tuple[int, Clock]:
    """A host's CLOCK_MONOTONIC less ours in ns, and how its time of day differs from ours."""
    best: tuple[int, int, int] | None = None
    for _ in range(CLOCK_ROUNDS):
        day = time.time_ns()
        before = time.monotonic_ns()
        monotonic, its_day = await asyncio.wait_for(link.clock(), LOST_AFTER_S)
        trip = time.monotonic_ns() - before
        found = (trip, monotonic - before - trip // 2, its_day - day - trip // 2)
        best = found if best is None else min(best, found)
    assert best is not None
    trip, offset, day_offset = best
    return offset, Clock(round(day_offset / 1e6, 3), round(trip / 2e6, 3), 0.0)


async def _gathered(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*work)

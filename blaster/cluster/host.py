"""A host's own engine: ``python -m blaster.cluster.host``, steered through its pipes.

It is a process of its own, since workers are forked and a Dask worker has threads. It ends when its
standard input does, and its workers send no longer than the parent has said they may.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from blaster.cluster.ledger_delta import LedgerDelta
from blaster.cluster.messages import (
    Begin,
    Failed,
    Final,
    FromHost,
    Lease,
    Order,
    Ready,
    Report,
    Sealed,
    Start,
    Stop,
    ToHost,
    frame,
    length_of,
    to_host,
)
from blaster.engine.control import Progress
from blaster.engine.ledger import Ledger
from blaster.engine.outcome_log import OutcomeLog
from blaster.engine.results import HostFigures, Results
from blaster.engine.run import Run
from blaster.engine.runner import Runner
from blaster.engine.signals import Interrupted, StopSignals
from blaster.engine.summary import results_of
from blaster.errors import BlasterError
from blaster.layout import Int64
from blaster.measure.schedstat import Share
from blaster.transport.base import Outcomes
from blaster.transport.factory import factory
from blaster.transport.probe import probe
from blaster.verdict.limit import limit_of


class Pipes:
    """Messages from standard input and to standard output."""

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = bytearray()
        self.ended = False

    def say(self, message: FromHost) -> None:
        """Sends a message; waits until the pipe takes it."""
        data = memoryview(frame(message))
        while data:
            data = data[os.write(self._writer, data) :]

    def heard(self, timeout_s: float) -> Iterator[ToHost]:
        """What has come, waiting up to ``timeout_s`` for the first of it."""
        while not self.ended and select.select([self._reader], [], [], timeout_s)[0]:
            data = os.read(self._reader, 1 << 20)
            self.ended |= not data
            self._buffer += data
            timeout_s = 0.0
        while len(self._buffer) >= 4:
            end = 4 + length_of(bytes(self._buffer[:4]))
            if len(self._buffer) < end:
                return
            data = bytes(self._buffer[4:end])
            del self._buffer[:end]
            yield to_host(data)

    def next(self) -> ToHost | None:
        """The next message; None at the end of the pipe."""
        while not self.ended:
            for message in self.heard(1.0):
                return message
        return None


class HostRun:
    """One host's part of a run; a Steering that reports its intervals."""

    def __init__(self, pipes: Pipes, begin: Begin, order: Order, signals: StopSignals) -> None:
        self._pipes, self._begin, self._signals = pipes, begin, signals
        self._order = order
        self._plan = replace(self._order.plan, host=begin.number)
        self.epoch_ns = begin.epoch_ns
        self._delta: LedgerDelta | None = None
        self._expired = False

    def run(self) -> None:
        """Runs the part and says what came of it. BlasterError for what keeps it from starting."""
        order = self._order
        otlp = order.settings.otlp
        if otlp.transport != "null":
            probe(otlp)
        make = factory(order.settings)
        with _outcome_log(order) as outcome_log:
            record = Runner(
                self._plan,
                make if outcome_log is None else outcome_log.wrap(make),
                timeout_s=otlp.timeout_s,
                signals=self._signals,
                on_progress=self._report,
                steering=self,
            ).run()
            outcomes = b"" if outcome_log is None else self._packed(outcome_log.outcomes())
        self._final(record, outcomes)

    def start(self, ledger: Ledger) -> int:
        """Says that all is ready, and waits for the word to start."""
        self._pipes.say(Ready())
        message = self._pipes.next()
        while isinstance(message, Lease):
            message = self._pipes.next()
        if not isinstance(message, Start):
            raise Interrupted("stopped before the first span was offered")
        ledger.control.lease_ns = message.lease_ns
        return message.start_ns

    def tick(self, ledger: Ledger) -> None:
        """Hears what the parent says; an end of the pipe or of the lease is a stop."""
        stop = False
        for message in self._pipes.heard(0.0):
            if isinstance(message, Lease):
                ledger.control.lease_ns = message.until_ns
            stop |= isinstance(message, Stop)
        if time.monotonic_ns() > ledger.control.lease_ns:
            self._expired = stop = True
        if (stop or self._pipes.ended) and self._signals.on_stop is not None:
            self._signals.on_stop()

    def _report(self, progress: Progress) -> str | None:
        run, point = progress.run, progress.point
        if self._delta is None:
            self._delta = LedgerDelta(run.ledger, run.plan.segments, run.start_ns)
        words = self._delta.change()
        sent = [sent for _, sent in run.sent()]
        # Read after the words: of no request less is known here than there.
        violations, own = self._violations(run, sent)
        self._pipes.say(
            Report(
                elapsed_ns=round(point.t * 1e9),
                words=words,
                sent=sent,
                violations=violations.tolist(),
                own_violations=own.tolist(),
                cpu_s=run.generator_cpu_s,
                cpu_percent=point.generator_cpu,
                rss_bytes=point.generator_rss,
                lost_workers=[str(lost) for lost in run.lost_workers],
            )
        )
        return None

    def _violations(self, run: Run, sent: list[int]) -> tuple[Int64, Int64]:
        """Of what was sent so far; counted from where it was counted before."""
        for worker, requests in enumerate(sent):
            run.count_violations(worker, requests)
        counted = [run.counted[worker] for worker in range(len(sent))]
        total: Int64 = np.sum([violations for _, violations, _ in counted], axis=0)
        own: Int64 = np.sum([own for _, _, own in counted], axis=0)
        return total, own

    def _packed(self, outcomes: Outcomes) -> bytes:
        """The outcomes by the parent's clock, compressed."""
        ours = outcomes.copy()
        for name in ("scheduled", "sent", "done"):
            ours[name][ours[name] > 0] -= self._begin.offset_ns
        return zlib.compress(ours.tobytes(), 1)

    def _final(self, run: Run, outcomes: bytes) -> None:
        delta = LedgerDelta(run.ledger, run.plan.segments, run.start_ns)
        results = results_of(run, self._order.configuration, None)
        otlp = self._order.settings.otlp
        self._pipes.say(
            Final(
                words=delta.all_words(),
                sent=[sent for _, sent in run.sent()],
                violations=run.violations.tolist(),
                own_violations=run.own_violations.tolist(),
                messages={k: otlp.hide(text) for k, text in run.messages.items()},
                lost_workers=results.generator.lost_workers,
                cpu_s=run.generator_cpu_s,
                cpu_peak=run.generator_cpu_peak,
                rss_peak=run.generator_rss_peak,
                throttled_ns=run.throttled_ns,
                ran=_pair(run.worker_ran),
                waited=_pair(run.worker_waited),
                outcomes=outcomes,
                expired=self._expired,
                figures=figures_of(results),
            )
        )


def figures_of(results: Results) -> HostFigures:
    """One host's figures, from results that are its own."""
    limited_by, reason = limit_of(results)
    return HostFigures(
        spans=results.spans,
        rate=results.rate,
        latency_ms=results.latency_ms,
        lateness_ms=results.lateness_ms,
        generator=results.generator,
        limited_by=limited_by,
        reason=reason,
    )


@contextlib.contextmanager
def _outcome_log(order: Order) -> Iterator[OutcomeLog | None]:
    if not order.keep_outcomes:
        yield None
        return
    with OutcomeLog() as outcome_log:
        yield outcome_log


def _pair(share: Share | None) -> tuple[float, float] | None:
    return None if share is None else (share.avg, share.peak)


def main() -> None:
    """Runs one part and ends."""
    writer = os.dup(1)
    os.dup2(2, 1)  # what is printed by mistake must not go among the messages
    pipes = Pipes(0, writer)
    begin = pipes.next()
    if not isinstance(begin, Begin):
        return
    order = Sealed(begin.order).order()
    with StopSignals() as signals, _files(order) as order:
        try:
            HostRun(pipes, begin, order, signals).run()
        except BrokenPipeError:  # the parent is gone
            sys.exit(1)
        except BlasterError as error:
            said = order.settings.otlp.hide(str(error))
            with contextlib.suppress(BrokenPipeError):
                pipes.say(Failed(said, error.exit_status))


@contextlib.contextmanager
def _files(order: Order) -> Iterator[Order]:
    """The order, its files in a folder that only this user can read and that goes afterwards."""
    settings = order.settings
    if settings.otlp.tls is None or not order.files:
        yield order
        return
    with tempfile.TemporaryDirectory(prefix="blaster-") as folder:
        paths: dict[str | None, str] = {}
        for number, (path, data) in enumerate(order.files.items()):
            paths[path] = os.path.join(folder, str(number))
            with open(paths[path], "wb") as file:
                file.write(data)
        tls = settings.otlp.tls
        tls = replace(
            tls,
            ca=paths.get(tls.ca),
            certificate=paths.get(tls.certificate),
            key=paths.get(tls.key),
        )
        otlp = replace(settings.otlp, tls=tls)
        yield replace(order, settings=replace(settings, otlp=otlp))


if __name__ == "__main__":
    main()

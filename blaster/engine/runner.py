"""The runner: forks the workers, starts them together, watches, and stops them.

The parent does no work of its own but to look: once a tick at the signals, the workers and the
clock, once an interval at the counts and at what the target spends.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from blaster.chaos import Chaos
from blaster.engine import worker as worker_process
from blaster.engine.control import HOLD, STOP, Control, Progress, Steering
from blaster.engine.ledger import MOST_HOLDS, Ledger
from blaster.engine.meter import Meter
from blaster.engine.plan import Plan
from blaster.engine.run import LostHost, LostWorker, Run
from blaster.engine.sample import Sample
from blaster.engine.segments import interval_ns
from blaster.engine.series import Point, Thinned
from blaster.engine.signals import Interrupted, StopSignals
from blaster.engine.slab import Slab, WorkerState
from blaster.errors import TargetUnreachable
from blaster.measure.hdr import merge_intervals
from blaster.measure.sampler import Sampler
from blaster.pacing.hold import OPEN_NS, Hold
from blaster.transport.base import TransportFactory

TICK_S = 0.05
START_DELAY_NS = 20_000_000
CONNECT_TIMEOUT_S = 4.0
READY_LIMIT_S = 30.0
"""How long a worker may take from its fork until it is connected: more is no slow machine."""

STOP_LIMIT_NS = 1_700_000_000
OVERTIME_NS = 5_000_000_000

HOLD_MARGIN_NS = 250_000_000
"""How far ahead the rate is held or released: five times as far as workers look ahead."""


class Runner:
    """Runs a Plan once.

    ``make_transport`` is called in each worker; ``signals`` stop the run; ``target`` samples what
    is watched, or is None; ``on_progress`` is called once an interval from :meth:`run`, and a text
    that it returns ends the run, as the reason; ``keep_intervals``: latencies are kept for each
    interval; ``steering`` starts the run, where there is one; ``sample``: is drawn from the
    accepted requests; ``control`` may stop the run, or hold its rate; ``chaos`` is told how it
    goes.
    """

    def __init__(
        self,
        plan: Plan,
        make_transport: TransportFactory,
        *,
        timeout_s: float,
        signals: StopSignals,
        target: Sampler | None = None,
        on_progress: Callable[[Progress], str | None] | None = None,
        keep_intervals: bool = False,
        steering: Steering | None = None,
        sample: Sample | None = None,
        control: Control | None = None,
        chaos: Chaos | None = None,
    ) -> None:
        self._steering = steering
        self._chaos = chaos
        self._plan = plan
        self._make_transport = make_transport
        self._timeout_s = timeout_s
        self._signals = signals
        self._target = target
        self._on_progress = on_progress
        self._keep_intervals = keep_intervals
        self._sample = sample
        self._control = control
        self.ledger = Ledger(plan.workers, plan.segments)
        if steering is not None:
            self.ledger.epoch_ns = steering.epoch_ns
        self._pids: dict[int, int] = {}  # pid → worker, of those that run
        self._lost: list[LostWorker | LostHost] = []

    def run(self) -> Run:
        """Sends the whole plan, or until SIGINT or SIGTERM, and returns what was recorded.

        Raises TargetUnreachable when a worker cannot connect, before any span is offered.
        """
        self._signals.on_stop = self.ledger.stop
        try:
            self._fork()
            self._await_connected()
            run = self._start()
            self._watch(run)
        finally:
            self._kill()
        return run

    def _fork(self) -> None:
        for worker in range(self._plan.workers):

            def life(worker: int = worker) -> None:
                worker_process.run(
                    self._plan,
                    worker,
                    self.ledger,
                    self._make_transport,
                    timeout_s=self._timeout_s,
                    connect_timeout_s=CONNECT_TIMEOUT_S,
                    sample=self._sample,
                )

            self._pids[worker_process.fork(life)] = worker

    def _await_connected(self) -> None:
        """Wait until all workers are ready; one that is killed meanwhile, or is not ready in time,
        is lost, and the run goes on without it."""
        until = time.monotonic() + READY_LIMIT_S
        while self._starting():
            self._reap()
            for slab in self.ledger.slabs:
                if slab.state == WorkerState.FAILED:
                    raise TargetUnreachable(slab.messages().get("error", "a worker cannot connect"))
            if self.ledger.stopped_ns:
                raise Interrupted("interrupted before the first span was offered")
            if time.monotonic() >= until:
                self._give_up(self._starting(), f"was not ready within {READY_LIMIT_S:g} s")
            time.sleep(0.005)

    def _starting(self) -> list[int]:
        """The pids of those that are not ready yet."""
        slabs = self.ledger.slabs
        return [pid for pid, n in self._pids.items() if slabs[n].state != WorkerState.READY]

    def _start(self) -> Run:
        if self._steering is None:
            start = time.monotonic_ns() + START_DELAY_NS
        else:
            start = self._steering.start(self.ledger)
        run = Run(
            plan=self._plan,
            ledger=self.ledger,
            started_at=(self.ledger.epoch_ns + start) / 1e9,
            start_ns=start,
            target=self._target,
            lost_workers=self._lost,
            intervals=Thinned(merge_intervals) if self._keep_intervals else None,
        )
        if self._target is not None:
            self._target.restart()
        self.ledger.control.start_ns = start
        return run

    def _watch(self, run: Run) -> None:
        meter = Meter(run, list(self._pids))
        interval = interval_ns(self._plan.scenario)
        due = run.start_ns + interval
        extra = worker_process.GRACE_NS + int(self._timeout_s * 1e9) + OVERTIME_NS
        while self._pids:
            now = time.monotonic_ns()
            stop = self.ledger.stopped_ns
            latest = run.start_ns + run.plan.scenario.duration_ns + extra
            if now > (stop + STOP_LIMIT_NS if stop else latest):
                self._give_up(list(self._pids), "did not stop in time")
            if self._control is not None:
                self._steer(run, self._control)
            meter.look(now)
            if now >= due:
                due += interval * ((now - due) // interval + 1)
                point = meter.point()
                run.series.add(point)
                self._report(run, point)
            if self._steering is not None:
                self._steering.tick(self.ledger)
            if self._chaos is not None and now >= run.start_ns:
                lost = self.ledger.lost_spans()
                self._chaos.tick(now - run.start_ns, self.ledger.total(Slab.accepted), lost)
            time.sleep(TICK_S)
            self._reap()
        self._close(run)
        self._report(run, run.end_series(meter.point()))
        meter.finish()

    def _report(self, run: Run, point: Point) -> None:
        if self._on_progress is None:
            return
        reason = self._on_progress(Progress(run, point, run.plan.scenario.duration_ns))
        if reason and not self.ledger.stopped_ns:
            run.aborted = reason
            self.ledger.stop()

    def _steer(self, run: Run, control: Control) -> None:
        wish = control.poll(run)
        if wish == STOP and not self.ledger.stopped_ns:
            control.answer("stopping")
            self.ledger.stop()
        elif wish == HOLD:
            control.answer(self._hold(run))

    def _hold(self, run: Run) -> str:
        """Holds the rate, or releases it, HOLD_MARGIN_NS from now: later than anything that a
        worker can have made ready, so that all agree on what is due."""
        ledger = self.ledger
        at = time.monotonic_ns() - run.start_ns + HOLD_MARGIN_NS
        holds = ledger.holds()
        if self.ledger.stopped_ns:
            return "the run is stopping"
        if holds and holds[-1].duration_ns == OPEN_NS:
            holds[-1] = replace(holds[-1], duration_ns=max(at - holds[-1].begin_ns, 0))
            said = "released"
        else:
            why = self._plan.cannot_hold()
            if why is None and len(holds) >= MOST_HOLDS:
                why = f"it was held {MOST_HOLDS} times already"
            if why is None and holds and at <= holds[-1].begin_ns + holds[-1].duration_ns:
                why = "it has only just been released"
            shards = [run.plan.shard(worker) for worker in range(run.plan.workers)]
            # A worker that has sent its last request would not be there for more.
            if why is None and any(shard.due(at) >= (shard.requests or 0) for shard in shards):
                why = "the run is nearly over"
            if why is not None:
                return f"cannot hold the rate: {why}"
            holds.append(Hold(at, run.plan.rate_at(at)))
            said = f"holding {holds[-1].rate:,} spans/s"
        run.plan = self._plan.held(holds)
        ledger.put_holds(holds)
        return said

    def _reap(self) -> None:
        """Notices the workers that ended; one that was not done is lost."""
        for pid in list(self._pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == 0:
                continue
            worker = self._pids.pop(pid)
            state = self.ledger.slabs[worker].state
            if state not in (WorkerState.DONE, WorkerState.FAILED) or status != 0:
                self._lost.append(LostWorker(worker, pid, _ending(status)))

    def _give_up(self, pids: Sequence[int], how: str) -> None:
        """Kill these workers, which are lost."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._lost.append(LostWorker(self._pids.pop(pid), pid, how))

    def _kill(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._pids.clear()

    def _close(self, run: Run) -> None:
        run.end_ns = time.monotonic_ns()
        run.interrupted = self.ledger.stopped_ns != 0 and run.aborted is None
        run.balance(self.ledger.stopped_ns or run.end_ns)


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)}"

"""The runner: what becomes of workers that do not get as far as the first span."""

from __future__ import annotations

import os
import signal

import pytest

from blaster.engine import runner
from blaster.engine.plan import Plan
from blaster.engine.runner import Runner
from blaster.engine.signals import StopSignals
from blaster.engine.slab import Slab
from blaster.layout import Int64
from blaster.scenario.scenario import Scenario, parse_stages
from blaster.transport.base import SendCounts, Transport
from blaster.transport.null import NullTransport


@pytest.mark.parametrize(
    ("sent_signal", "how"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGSTOP, "was not ready within 2 s")],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_is_lost_at_its_start(
    sent_signal: signal.Signals, how: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is killed, or stands still, before it is ready is named; the others send their
    part, and the books balance."""
    monkeypatch.setattr(runner, "READY_LIMIT_S", 2.0)
    plan = Plan.of(
        Scenario(name="x", stages=parse_stages("1000@1s"), batch=10), seed=1, workers=workers
    )
    made = os.getpid()

    def make(counts: SendCounts, stop: Int64) -> Transport:
        assert os.getpid() != made
        if counts is sender.ledger.slabs[0]:
            os.kill(os.getpid(), sent_signal)
        return NullTransport(counts=counts, stop=stop)

    sender = Runner(plan, make, timeout_s=1.0, signals=StopSignals())
    first = sender.ledger.slabs[0]
    run = sender.run()
    (lost,) = run.lost_workers
    assert str(lost).endswith(how) and "worker 0" in str(lost)
    ledger = run.ledger
    assert ledger.total(Slab.accepted) == ledger.total(Slab.sent_spans) == 500 * (workers - 1)
    assert ledger.total(Slab.scheduled) == (1000 if workers > 1 else first.scheduled)
    series = run.series.items
    assert sum(point.scheduled for point in series) == ledger.total(Slab.scheduled)

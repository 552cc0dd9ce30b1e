"""How long processes ran and waited, by a clock that nobody waits for."""

import pytest

from blaster.measure import schedstat
from blaster.measure.schedstat import SchedStat, Share


def test_average_and_worst_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a core all along and one whole second of it: the average and that second."""
    clocks = {1: (0, 0)}
    monkeypatch.setattr(schedstat, "_read", clocks.__getitem__)
    sched = SchedStat([1])
    assert sched.ran() is None
    for tenth in range(101):
        sched.look(tenth * 10**8)
        ran, waited = clocks[1]
        busy = 10**8 if 50 <= tenth < 60 else 10**7
        clocks[1] = (ran + busy, waited + 10**6)
    assert sched.ran() == Share(19.0, 100.0)
    assert sched.waited() == Share(1.0, 1.0)


def test_a_day_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with the number of samples."""
    monkeypatch.setattr(schedstat, "_read", lambda pid: (pid, pid))
    sched = SchedStat([1, 2])
    sched.look(0)
    before = {name: len(value) for name, value in vars(sched).items() if hasattr(value, "__len__")}
    for look in range(10_000):
        sched.look(look * 10**9)
    after = {name: len(value) for name, value in vars(sched).items() if hasattr(value, "__len__")}
    assert after == before

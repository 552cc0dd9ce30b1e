"""Pacers: pure functions, so pure properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.pacing.pacer import NS, Pacer, Ramp, Stages, Steady

DURATIONS = st.integers(1, 3600 * NS)
RATES = st.integers(1, 2_000_000)
steady = st.builds(Steady, RATES, DURATIONS)
ramps = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), DURATIONS).filter(
    lambda r: r[0] + r[1] > 0 and r[0] != r[1]
)
ramp = st.builds(lambda r: Ramp(*r), ramps)
one = st.one_of(steady, ramp)
pacers = st.one_of(one, st.builds(Stages, st.lists(one, min_size=1, max_size=5)))


def sample(pacer: Pacer, data: st.DataObject) -> np.ndarray:
    last = max(pacer.total - 1, 0)
    picked = data.draw(st.lists(st.integers(0, last), max_size=20))
    near = [n + d for n in picked for d in (0, 1)] + [0, last]
    return np.unique([n for n in near if n < pacer.total]).astype(np.int64)


@given(pacers, st.data())
def test_times_ascend_within_the_duration(pacer, data):
    """Spans are due in order, none before the start and none after the end."""
    times = pacer.times(sample(pacer, data))
    assert (np.diff(times) >= 0).all()
    assert all(0 <= t < pacer.duration_ns for t in times)


@given(pacers, st.data())
def test_due_is_the_inverse_of_times(pacer, data):
    """A span is due from its time on, and not a nanosecond before."""
    n = sample(pacer, data)
    for number, time in zip(n.tolist(), pacer.times(n).tolist(), strict=True):
        assert pacer.due(time) > number
        assert pacer.due(time - 1) <= number
    assert pacer.due(-1) == 0
    assert pacer.due(pacer.duration_ns) == pacer.due(10 * pacer.duration_ns) == pacer.total


@given(RATES, st.integers(1, 86_400))
def test_steady_is_an_integer_schedule(rate, seconds):
    """Span n is due at n·10⁹ // rate exactly, and a whole second holds exactly rate spans."""
    pacer = Steady(rate, seconds * NS)
    assert pacer.total == rate * seconds
    for n in (0, 1, rate - 1, pacer.total - 1):
        assert pacer.times(np.array([n])).tolist() == [n * NS // rate]


@given(ramps, st.floats(0, 1))
def test_ramp_follows_its_integral(ends, share):
    """What a ramp has due is the integral of its rate, to within a span."""
    start, end, duration = ends
    pacer = Ramp(start, end, duration)
    t = int(share * duration)
    integral = start * t / NS + (end - start) * (t / NS) * (t / duration) / 2
    assert abs(pacer.due(t) - min(integral, pacer.total)) <= 1 + integral * 1e-9


@pytest.mark.parametrize(
    ("n", "time"),
    [(0, 0), (99, 990_000_000), (100, NS), (101, NS + NS // 200), (199, 1_495_000_000)],
)
def test_stages_follow_one_another(n, time):
    """The second stage's spans count from the first one's end."""
    pacer = Stages([Steady(100, NS), Steady(200, NS)])
    assert pacer.total == 300
    assert pacer.times(np.array([n])).tolist() == [time]

"""Pacers: pure functions, so pure properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.pacing.arrivals import BLOCK, Bursts, Poisson
from blaster.pacing.pacer import NS, Pacer, Ramp, Sine, Stages, Steady

DURATIONS = st.integers(1, 3600 * NS)
RATES = st.integers(1, 2_000_000)
steady = st.builds(Steady, RATES, DURATIONS)
ramps = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), DURATIONS).filter(
    lambda r: r[0] + r[1] > 0 and r[0] != r[1]
)
ramp = st.builds(lambda r: Ramp(*r), ramps)
sines = st.tuples(
    st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 600 * NS), DURATIONS
).filter(lambda s: s[0] + s[1] > 0)
one = st.one_of(steady, ramp, st.builds(lambda s: Sine(*s), sines))
inner = st.one_of(one, st.builds(Stages, st.lists(one, min_size=1, max_size=5)))
GROUPS = st.integers(1, 5000)
pacers = st.one_of(
    inner,
    st.builds(Bursts, inner, GROUPS),
    st.builds(Poisson, inner, GROUPS, st.integers(0, 2**63 - 1)),
)


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
    """The spans due of a ramp are the integral of its rate, to within a span."""
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


@given(sines, st.floats(0, 1))
def test_sine_follows_its_integral(sine, share):
    """The spans due of a sine are the integral of its rate, to a span or two in a million."""
    low, high, period, duration = sine
    pacer = Sine(*sine)
    t = int(share * duration) / NS
    turn = 2 * np.pi * t * NS / period
    swing = (low - high) / 2 * (period / NS) * np.sin(turn) / (2 * np.pi)
    integral = (low + high) / 2 * t + swing
    error = 2 + (low + high) * 1e-6 * min(t, period / NS) + integral * 1e-9
    assert abs(pacer.due(int(share * duration)) - integral) <= error


@given(st.lists(one, min_size=1, max_size=4), st.data())
def test_the_rate_is_that_of_the_spans_due(parts, data):
    """The integral of the rate over an interval is the spans due in it, to within a span at each
    end and what the table of a sine rounds."""
    number = data.draw(st.integers(0, len(parts) - 1))
    part, before = parts[number], sum(p.duration_ns for p in parts[:number])
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, part.duration_ns - 1)] * 2)))
    table = 0.0
    if isinstance(part, Sine):
        end = min(end, begin + 5 * part.period_ns)
        table = (part.low + part.high) * part.period_ns / NS
    pacer = Stages(parts)
    cells = 2000
    moments = [before + begin + (2 * i + 1) * (end - begin) // (2 * cells) for i in range(cells)]
    integral = sum(map(pacer.rate, moments)) * (end - begin) / cells / NS
    due = pacer.due(before + end) - pacer.due(before + begin)
    assert abs(due - integral) <= 2 + 1e-5 * integral + 1e-6 * table


def test_sine_swings_between_its_ends():
    """A sine begins at its first rate and reaches the other after half a period."""
    pacer = Sine(100, 1100, 10 * NS, 60 * NS)
    assert pacer.total == 600 * 60
    second = [pacer.due((s + 1) * NS // 10) - pacer.due(s * NS // 10) for s in range(600)]
    assert min(second[:5]) >= 9 and max(second[:5]) <= 12
    assert min(second[48:52]) >= 108 and max(second[48:52]) <= 111
    assert sum(second[:100]) == pytest.approx(6000, abs=1)


@given(inner, GROUPS, st.integers(0, 2**63 - 1), st.data())
def test_poisson_is_a_function_of_number_and_seed(pacer, group, seed, data):
    """The times do not depend on what was asked before, nor in which order."""
    n = sample(pacer, data)
    one = Poisson(pacer, group, seed)
    another = Poisson(pacer, group, seed)
    one.due(pacer.duration_ns // 2)
    singly = [int(another.times(n[i : i + 1])[0]) for i in range(len(n))][::-1]
    assert one.times(n[::-1]).tolist() == singly


def test_poisson_has_exponential_gaps():
    """The gaps of a steady rate have an exponential's mean, deviation and quantiles, and no memory.

    A block's count is fixed, so a hundred arrivals' count varies as a Poisson's less 100 / BLOCK.
    """
    rate = 1000
    pacer = Poisson(Steady(rate, 200 * NS), 1, 7)
    times = pacer.times(np.arange(pacer.total)) / NS
    gaps = np.diff(times) * rate
    assert gaps.mean() == pytest.approx(1, abs=0.01)
    assert gaps.std() == pytest.approx(1, abs=0.01)
    for share in (0.1, 0.5, 0.9, 0.99, 0.999):
        assert np.mean(gaps < -np.log(1 - share)) == pytest.approx(share, abs=0.004)
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.01
    counts = np.histogram(times, np.arange(0, 200, 0.1))[0]
    assert counts.var() / counts.mean() == pytest.approx(1 - 100 / BLOCK, abs=0.1)
    assert Poisson(Steady(rate, NS), 1, 8).times(np.arange(5)).tolist() != times[:5].tolist()


def test_bursts_come_together():
    """Spans of a burst are due at once, when the first of them would have been."""
    pacer = Bursts(Steady(100, NS), 30)
    assert pacer.times(np.array([0, 29, 30, 99])).tolist() == [0, 0, NS * 3 // 10, NS * 9 // 10]
    assert [pacer.due(t) for t in (-1, 0, NS // 10, NS * 3 // 10, NS)] == [0, 30, 30, 60, 100]

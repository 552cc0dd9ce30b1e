"""The histogram against the hdrhistogram package, the oracle for its layout and its percentiles."""

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from blaster.measure.histogram import HIGHEST_US, SIZE, Histogram

US = st.one_of(
    st.integers(0, HIGHEST_US),
    st.integers(0, 5000),
    st.integers(0, 29).flatmap(lambda bit: st.integers(max(0, 2**bit - 2), 2**bit + 2)),
)
VALUES = st.lists(US, min_size=1, max_size=60)
PERCENTS = [0, 0.001, 1, 25, 50, 75, 90, 99, 99.9, 99.99, 100]


def oracle(values_us: list[int]) -> HdrHistogram:
    histogram = HdrHistogram(1, HIGHEST_US, 3)
    for value in values_us:
        assert histogram.record_value(value)
    return histogram


def recorded(values_us: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record(np.array(values_us, dtype=np.int64) * 1000)
    return histogram


def test_layout_has_the_size_of_hdr_histogram() -> None:
    assert oracle([]).counts_len == SIZE


@given(VALUES)
def test_buckets_are_those_of_hdr_histogram(values: list[int]) -> None:
    """Every value falls into the bucket that HdrHistogram gives it, few values or many."""
    expected = oracle(values)
    counts = [expected.get_count_at_index(index) for index in range(SIZE)]
    assert recorded(values).counts.tolist() == counts
    many = recorded(values * 30)
    assert (many.counts == 30 * np.array(counts)).all()


@settings(max_examples=30)  # the oracle takes its time
@given(VALUES)
def test_figures_are_those_of_hdr_histogram(values: list[int]) -> None:
    """Count, minimum, maximum, mean and all percentiles equal HdrHistogram's."""
    ours, theirs = recorded(values), oracle(values)
    assert ours.count == theirs.get_total_count()
    assert ours.min == theirs.get_min_value()
    assert ours.max == theirs.get_max_value()
    assert ours.mean == pytest.approx(theirs.get_mean_value(), rel=1e-12)
    expected = [theirs.get_value_at_percentile(percent) for percent in PERCENTS]
    assert ours.percentiles(PERCENTS) == expected
    assert [ours.percentile(percent) for percent in PERCENTS] == expected


@given(VALUES)
def test_figures_are_within_a_thousandth_of_the_values(values: list[int]) -> None:
    """The median, the extremes and the mean differ from the exact ones by less than 0.1 %."""
    ours = recorded(values)
    rank = max(1, int(len(values) / 2 + 0.5))
    assert ours.percentile(50) == pytest.approx(sorted(values)[rank - 1], rel=1e-3)
    assert ours.max == pytest.approx(max(values), rel=1e-3)
    assert ours.min == pytest.approx(min(values), rel=1e-3)
    assert ours.mean == pytest.approx(sum(values) / len(values), rel=1e-3)


@given(VALUES, VALUES)
def test_merging_is_recording_both(one: list[int], other: list[int]) -> None:
    """Merging two histograms gives what recording all values into one gives; diff undoes it."""
    merged = recorded(one)
    before = merged.copy()
    merged += recorded(other)
    assert (merged.counts == recorded(one + other).counts).all()
    assert (before.counts == recorded(one).counts).all()
    assert (merged.diff(before).counts == recorded(other).counts).all()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30))
def test_any_int64_is_counted(values_ns: list[int]) -> None:
    """No int64 is lost: what is too long counts as 10 minutes, what is negative as 0."""
    few, many = Histogram(), Histogram()
    few.record(np.array(values_ns[:10], dtype=np.int64))
    assert few.count == len(values_ns[:10])
    many.record(np.array(values_ns * 30, dtype=np.int64))
    assert many.count == 30 * len(values_ns)
    clamped = [min(max((value + 500) // 1000, 0), HIGHEST_US) for value in values_ns]
    assert (many.counts == 30 * recorded(clamped).counts).all()


@pytest.mark.parametrize("repeats", [1, 100])
def test_nanoseconds_round_to_the_nearest_microsecond(repeats: int) -> None:
    histogram = Histogram()
    histogram.record(np.array([0, 499, 500, 1499, 1500] * repeats, dtype=np.int64))
    assert histogram.counts[:4].tolist() == [2 * repeats, 2 * repeats, repeats, 0]


def test_summary_is_in_milliseconds() -> None:
    values = np.arange(1, 1001, dtype=np.int64) * 1_000_000
    histogram = Histogram()
    histogram.record(values)
    summary = histogram.summary_ms()
    assert list(summary) == ["p50", "p90", "p95", "p99", "p999", "p9999", "max", "mean"]
    exact = {"p50": 500, "p90": 900, "p95": 950, "p99": 990, "p999": 999}
    exact |= {"p9999": 1000, "max": 1000, "mean": 500.5}
    assert summary == pytest.approx(exact, rel=1e-3)


def test_empty_has_no_figures() -> None:
    empty = Histogram()
    empty.record(np.array([], dtype=np.int64))
    assert set(empty.summary_ms().values()) == {None}
    assert (empty.count, empty.min, empty.max, empty.mean, empty.percentile(99)) == (0, 0, 0, 0, 0)


def test_counts_are_used_in_place_and_checked() -> None:
    memory = np.zeros(2 * SIZE, dtype=np.int64)
    histogram = Histogram(memory[SIZE:])
    histogram.record(np.array([7000], dtype=np.int64))
    assert memory[SIZE + 7] == 1
    with pytest.raises(ValueError, match="int64 of shape"):
        Histogram(memory)
    with pytest.raises(ValueError, match="int64 of shape"):
        Histogram(memory[:SIZE].astype(np.int32))


@pytest.mark.parametrize("percent", [-1, 100.1, float("nan")])
def test_percent_out_of_range_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 100"):
        Histogram().percentile(percent)

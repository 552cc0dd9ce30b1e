"""HdrHistogram's interchange formats, read back with its own Python tools."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings
from hypothesis import strategies as st

from blaster.measure.hdr import Interval, Sparse, distribution, encode, interval_log
from blaster.measure.hdr import merge_intervals as merge
from blaster.measure.histogram import HIGHEST_US, Histogram

MICROSECONDS = st.lists(st.integers(1, HIGHEST_US), max_size=60)


def oracle() -> HdrHistogram:
    return HdrHistogram(1, HIGHEST_US, 3)


def recorded(values_us: list[int]) -> tuple[Histogram, HdrHistogram]:
    ours, theirs = Histogram(), oracle()
    ours.record(np.array(values_us, np.int64) * 1000)
    for value in values_us:
        theirs.record_value(value)
    return ours, theirs


def interval(begin_s: float, values_us: list[int]) -> Interval:
    histogram, _ = recorded(values_us)
    return Interval.of(begin_s, begin_s + 1, histogram, histogram)


@given(MICROSECONDS)
def test_hdrhistogram_decodes_what_we_encode(values: list[int]) -> None:
    """Our encoding decodes to the histogram that HdrHistogram would have recorded."""
    ours, theirs = recorded(values)
    decoded = HdrHistogram.decode(encode(ours))
    assert decoded.get_total_count() == len(values)
    assert decoded.get_max_value() == theirs.get_max_value()
    for percent in (0, 50, 90, 99, 99.99, 100):
        assert decoded.get_value_at_percentile(percent) == theirs.get_value_at_percentile(percent)


def test_large_counts_are_encoded() -> None:
    """A count that needs seven bytes comes back whole."""
    histogram = Histogram()
    histogram.counts[100], histogram.counts[5000] = 2**48, 2**33 + 1
    decoded = HdrHistogram.decode(encode(histogram))
    assert decoded.get_count_at_index(100) == 2**48
    assert decoded.get_count_at_index(5000) == 2**33 + 1


@settings(max_examples=25)  # the oracle takes its time
@given(MICROSECONDS)
def test_distribution_is_hdrhistograms_text(values: list[int]) -> None:
    """Every line of the distribution says what HdrHistogram says of its percentile, head and foot
    are HdrHistogram's own, and the percentiles are those of its Java original: five to each half of
    what is left to 100 (hdrhistogram for Python chooses others)."""
    ours, theirs = recorded(values)
    written = io.BytesIO()
    theirs.output_percentile_distribution(written, 1000)
    expected = written.getvalue().decode().splitlines()
    lines = "".join(distribution(ours)).splitlines()
    assert lines[:2] == expected[:2]
    assert lines[-3].split(",")[0] == expected[-3].split(",")[0]
    assert lines[-2].split(",")[0] == expected[-2].split(",")[0]
    assert lines[-1].split() == expected[-1].split()
    rows = [[float(cell) for cell in line.split()] for line in lines[2:-3]]
    for value, share, *_ in rows:
        rank = max(1, math.ceil(share * len(values) - 1e-9))
        at = theirs.get_highest_equivalent_value(sorted(values)[rank - 1])
        assert value == pytest.approx(at / 1000, abs=0.0006)
    ticks = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775]
    shares = [share for _, share, *_ in rows]
    assert shares[:-1][: len(ticks)] == pytest.approx(ticks[: max(len(shares) - 1, 0)])
    assert not values or (shares[-1] == 1 and rows[-1][2] == len(values))


def test_interval_log_is_read_by_hdrhistogram(tmp_path: Path) -> None:
    """HistogramLogReader finds every interval with its time, its length and its values."""
    path = tmp_path / "run.hlog"
    intervals = [interval(0.0, [10, 2000]), interval(1.0, []), interval(2.0, [600_000_000])]
    path.write_text("".join(interval_log(intervals, 1_700_000_000.5, "x")))
    reader = HistogramLogReader(str(path), oracle())
    read = []
    while (histogram := reader.get_next_interval_histogram()) is not None:
        read.append(histogram)
    reader.close()
    assert reader.start_time_sec == 1_700_000_000.5
    assert [h.get_total_count() for h in read] == [2, 2, 0, 0, 1, 1]
    assert read[0].get_start_time_stamp() == 1_700_000_000_500
    assert read[4].get_start_time_stamp() == 1_700_000_002_500
    assert read[0].get_max_value() == oracle().get_highest_equivalent_value(2000)
    assert [h.get_tag() for h in read[:2]] == ["response", "service"]


@given(MICROSECONDS, MICROSECONDS)
def test_merged_intervals_hold_both(one: list[int], another: list[int]) -> None:
    """A merged interval reaches from the first's begin to the second's end and holds all values."""
    merged = merge(interval(0.0, one), interval(1.0, another))
    assert (merged.begin_s, merged.end_s) == (0.0, 2.0)
    whole, _ = recorded(one + another)
    assert merged.response.whole().counts.tolist() == whole.counts.tolist()
    assert Sparse.of(whole).whole().counts.tolist() == whole.counts.tolist()

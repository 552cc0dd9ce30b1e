"""Trends and the end of a warm-up, against worked examples and by properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.measure.trend import (
    MOST,
    correction,
    mann_kendall,
    p_value,
    pair_slopes,
    thinned,
    trend_of,
)
from blaster.measure.warmup import LEAST_LEFT, mser, mser5

VALUES = st.lists(st.integers(-1000, 1000).map(float), min_size=10, max_size=80).map(np.array)


def test_sens_example() -> None:
    """The example of Sen 1968 (also Hollander and Wolfe, Nonparametric Statistical Methods, 9.1):
    slope 4, and 26/7 to 35/8 at 93 to 95 % confidence."""
    t = np.array([1.0, 2, 3, 4, 10, 12, 18])
    y = np.array([9.0, 15, 19, 20, 45, 55, 78])
    slopes = pair_slopes(t, y)
    assert len(slopes) == 21 and np.median(slopes) == 4
    reach = 1.959964 * math.sqrt(mann_kendall(y)[1])
    assert slopes[round((21 - reach) / 2) - 1] == pytest.approx(26 / 7)
    assert slopes[round((21 + reach) / 2)] == pytest.approx(35 / 8)


def test_mann_kendall_by_hand() -> None:
    """The example of J. Little, "A Mann-Kendall Example (By Hand)", College of the Holy Cross:
    S = 54 of 91 pairs with one tie, Z = 2.9058."""
    y = np.array(
        [12.9, 14.8, 13.2, 15.7, 13.8, 15.6, 12.9, 11.0, 17.3, 15.9, 19.0, 18.3, 20.1, 21.7]
    )
    score, variance = mann_kendall(y)
    assert score == 54
    assert variance == pytest.approx(14 * 13 * 33 / 18 - 2 * 1 * 9 / 18)
    assert (score - 1) / math.sqrt(variance) == pytest.approx(2.9058, abs=1e-4)
    assert p_value(score, variance) == pytest.approx(2 * 0.00183, abs=1e-5)


@given(VALUES, st.floats(0.1, 10), st.floats(-50, 50))
def test_slope_goes_with_the_line(y, scale, slope) -> None:
    """Adding a line adds its slope to the estimate and to both ends of the pairs' slopes."""
    t = np.arange(len(y)) * scale
    before, after = pair_slopes(t, y), pair_slopes(t, y + slope * t)
    assert after == pytest.approx(before + slope, abs=1e-6)


@given(VALUES)
def test_a_trend_turns_with_time(y) -> None:
    """A series read backwards has the opposite slope, and is as sure of it."""
    t = np.arange(len(y), dtype=float)
    forth, back = trend_of(t, y), trend_of(t, y[::-1])
    assert forth is not None and back is not None
    assert back.slope_per_s == pytest.approx(-forth.slope_per_s)
    assert forth.low <= forth.slope_per_s <= forth.high
    assert mann_kendall(y)[0] == -mann_kendall(y[::-1])[0]


def test_a_flat_or_short_series_has_no_sure_trend() -> None:
    """A constant has no sure trend; nine points are no series."""
    flat = trend_of(np.arange(50.0), np.full(50, 7.0))
    assert flat is not None and not flat.is_sure and flat.slope_per_s == 0 and flat.level == 7
    assert trend_of(np.arange(9.0), np.arange(9.0)) is None


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.8])
def test_noise_seldom_looks_like_a_trend(memory: float) -> None:
    """Of 200 series without a trend some 5 % are called sure, autocorrelated or not; without the
    correction it would be up to half."""
    random = np.random.default_rng(1)
    sure = plain = 0
    for _ in range(200):
        y = np.zeros(200)
        for i, noise in enumerate(random.normal(size=200)):
            y[i] = memory * y[i - 1] + noise
        trend = trend_of(np.arange(200.0), y)
        assert trend is not None
        sure += trend.is_sure
        plain += p_value(*mann_kendall(y)) < 0.05
    assert sure <= 200 * 0.16
    assert memory < 0.8 or plain > 200 * 0.3


def test_a_slope_is_found_in_noise() -> None:
    """A leak of 1 MB a minute under noise of 1 MB is found within an hour, to a few percent."""
    t = np.arange(3600.0)
    y = 1e8 + 1e6 / 60 * t + np.random.default_rng(5).normal(0, 1e6, 3600)
    trend = trend_of(t, y)
    assert trend is not None and trend.is_sure
    assert trend.slope_per_s == pytest.approx(1e6 / 60, rel=0.03)
    assert trend.low < 1e6 / 60 < trend.high


def test_correction_is_none_for_noise() -> None:
    """White noise hardly widens the variance; what resembles its neighbour does."""
    noise = np.random.default_rng(3).normal(size=300)
    assert correction(noise) < 1.5
    assert correction(np.cumsum(noise)) > 5


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000).map(np.array))
def test_thinned_keeps_to_its_bound(values) -> None:
    """At most MOST means come out, and a short series stays as it is."""
    means = thinned(values)
    assert 0 < len(means) <= MOST
    if len(values) <= MOST:
        assert means.tolist() == values.tolist()


def test_mser_by_hand() -> None:
    """By White's formula (1997), Σ(y - mean)²/(n - d)²: after two high values the rest alternates
    between 1 and 3, so that d = 2 leaves 10 values with an error of 10/100, and d = 1 one of
    24.5/121 + …; d = 3 leaves 9 values with 8.89/81 = 0.1097."""
    y = np.array([9.0, 7, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3])
    errors = [((y[d:] - y[d:].mean()) ** 2).sum() / len(y[d:]) ** 2 for d in range(len(y))]
    assert errors[2] == pytest.approx(0.1) and errors[3] == pytest.approx(0.1097, abs=1e-4)
    assert mser(y) == 2


@given(st.lists(st.integers(-100, 100).map(float), min_size=10, max_size=60).map(np.array))
def test_mser_is_its_definition(y) -> None:
    """The truncation is the first that has the least error of all that leave five values; one past
    the half is refused."""
    n = len(y)
    errors = [((y[d:] - y[d:].mean()) ** 2).sum() / (n - d) ** 2 for d in range(n - LEAST_LEFT + 1)]
    found = mser(y)
    if found is None:
        assert min(errors[: n // 2]) >= min(errors[n // 2 :]) - 1e-9
    else:
        assert found <= n // 2 and errors[found] == pytest.approx(min(errors), abs=1e-9)


@given(st.lists(st.integers(-100, 100).map(float), min_size=50, max_size=200).map(np.array))
def test_mser5_does_not_mind_the_unit(y) -> None:
    """The truncation is a multiple of 5, and that of the series in any other unit."""
    found = mser5(y)
    assert found is None or found % 5 == 0
    assert mser5(y / 1024) == mser5(-y) == found


def test_mser5_finds_a_transient() -> None:
    """A transient that decays over some 50 points is cut off, and nothing where there is none."""
    noise = np.random.default_rng(4).normal(0, 1, 400)
    decaying = noise + 30 * np.exp(-np.arange(400) / 15)
    found = mser5(decaying)
    assert found is not None and 35 <= found <= 90
    assert (mser5(noise) or 0) <= 100
    assert mser5(np.arange(400.0)) is None

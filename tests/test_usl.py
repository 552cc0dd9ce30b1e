"""The Universal Scalability Law against a published fit, and against itself."""

import numpy as np
import pytest

from blaster.verdict import usl


def test_specsdm91() -> None:
    """The SPEC SDM91 benchmark of a Sun SPARCcenter 2000 (Gunther, Guerrilla Capacity Planning,
    2007, section 5.2), with the figures that the R package `usl` gives for its data set of that
    name: σ 0.02773, κ 0.0001044, λ 89.995, and the peak at 96.52 users."""
    load = [1, 18, 36, 72, 108, 144, 216]
    throughput = [64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2]
    found = usl.fit(load, throughput)
    assert found is not None
    assert found.contention == pytest.approx(0.02773, rel=1e-3)
    assert found.coherency == pytest.approx(0.0001044, rel=1e-3)
    assert found.scale == pytest.approx(89.995, rel=1e-4)
    assert found.peak_concurrency == pytest.approx(96.52, rel=1e-4)
    assert 0.98 < found.r_squared < 1
    assert 0 < found.coherency_error < found.coherency


@pytest.mark.parametrize(("contention", "coherency"), [(0.0, 0.0), (0.05, 0.001), (0.5, 0.0)])
def test_finds_what_made_the_points(contention: float, coherency: float) -> None:
    """Points that lie on the law give its parameters back, and errors near none."""
    n = np.arange(1.0, 40.0, 3.0)
    found = usl.fit(n.tolist(), usl.throughput(n, 1e5, contention, coherency).tolist())
    assert found is not None
    assert found.scale == pytest.approx(1e5, rel=1e-6)
    assert found.contention == pytest.approx(contention, abs=1e-6)
    assert found.coherency == pytest.approx(coherency, abs=1e-7)
    assert found.contention_error < 1e-5


def test_errors_cover_the_truth() -> None:
    """With noise, the truth lies within three standard errors nearly always."""
    random = np.random.default_rng(7)
    n = np.arange(1.0, 60.0, 2.0)
    clean = usl.throughput(n, 1e4, 0.03, 0.0005)
    inside = 0
    for _ in range(100):
        found = usl.fit(n.tolist(), (clean * random.normal(1, 0.01, len(n))).tolist())
        assert found is not None
        inside += abs(found.contention - 0.03) < 3 * found.contention_error
    assert inside >= 90


def test_too_little_to_go_by() -> None:
    """Three different loads do not determine three parameters and their errors."""
    assert usl.fit([1, 2, 3], [1, 2, 3]) is None
    assert usl.fit([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    assert usl.fit([], []) is None

"""Thresholds: their grammar, their units, and the paths that there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster.errors import UsageError
from blaster.scenario.threshold import parse_thresholds
from blaster.verdict.thresholds import check_known, known_paths

SIGNS = st.sampled_from(["<", "<=", ">", ">=", "==", "!="])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("latency_ms.response.p99 < 500", 500),
        ("latency_ms.response.p99<1.5s", 1500),
        ("latency_ms.response.p99 < 250us", 0.25),
        ("spans.failed == 0", 0),
        ("spans.accepted >= 10k", 10_000),
        ("violations.detection_rate > 90%", 0.9),
        ("target.cpu_percent.avg < 70%", 70),
        ("target.rss_bytes.peak <= 500MB", 5e8),
        ("target.rss_bytes.peak <= 1GiB", 2**30),
        ("recovery.target_cpu_percent.seconds < 10", 10),
        ("steady.steady == true", 1),
        ("steady.in_flight.slope_per_s > -0.5", -0.5),
        ("stages.0.latency_ms.response.p9999 < 1e3", 1000),
        ("duration_s < 2m", 120),
    ],
)
def test_numbers_are_in_the_unit_of_their_path(text: str, number: float) -> None:
    """A number's unit goes by its path, and all these paths are known."""
    (threshold,) = parse_thresholds(text)
    assert threshold.number == pytest.approx(number)
    check_known("--threshold", [threshold])


def test_and_makes_several() -> None:
    """Conditions joined by `and` are lines of their own."""
    two = parse_thresholds("spans.failed == 0 and latency_ms.service.max < 1s")
    assert [threshold.text for threshold in two] == [
        "spans.failed == 0",
        "latency_ms.service.max < 1s",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spans.failed",
        "spans.failed = 0",
        "spans.failed < ",
        "< 5",
        "spans.failed < 5 < 6",
        "spans.failed < x",
        "spans.failed < 500ms",
        "__import__('os').system('x') < 1",
        "spans.failed < spans.sent",
        "a < 1 and",
        "spans.failed < nan",
        "spans.failed < 1" + "0" * 2000,
    ],
)
def test_what_is_no_threshold_is_refused(text: str) -> None:
    """Anything else is refused in one line."""
    with pytest.raises(ValueError, match=r"must|not a number") as caught:
        parse_thresholds(text)
    assert str(caught.value).isprintable()


@given(st.text(max_size=60))
def test_any_text_is_a_threshold_or_one_line(text: str) -> None:
    """No text is evaluated, and none raises anything but a ValueError in one line."""
    said = ""
    try:
        parse_thresholds(text)
    except ValueError as error:
        said = str(error)
    assert said.isprintable()


@given(st.sampled_from(known_paths()), SIGNS, st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6))
def test_every_figure_can_be_asked_for(path, sign, number, value) -> None:
    """Every path of the results parses, is known, and compares as Python does."""
    (threshold,) = parse_thresholds(f"{path} {sign} {number}")
    check_known("--threshold", [threshold])
    assert threshold.holds(value) == eval(f"value {sign} number")


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("latency.response.p99", "latency_ms.response.p99"),
        ("spans.fail", "spans.failed"),
        ("target.cpu.avg", "target.cpu_percent.avg"),
        ("verdict.passed", ""),
        ("series.0.p99_ms", ""),
        ("stages.x.spans.failed", "stages.0.spans.failed"),
    ],
)
def test_an_unknown_path_names_the_nearest(path: str, nearest: str) -> None:
    """A path that no results have is refused, with the nearest one that they have."""
    with pytest.raises(UsageError, match="results have no figure") as caught:
        check_known("--threshold", parse_thresholds(f"{path} < 1"))
    assert nearest in str(caught.value)

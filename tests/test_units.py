"""Numbers as people write them: exact when right, refused with what would be right when not."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blaster import units

RATE = "must be a whole number of spans per second from 1 to 1G, such as 100, 10k or 1.5M, or max"
DURATION = "must be a time above 0 and up to 366d, such as 60s, 2m, 1h30m, 500ms or 60"
BYTES = "must be a whole number of bytes above 0, such as 512, 64kB, 100MB or 4MiB"
SHARE = "must be a share from 0 to 1, such as 0.1 or 10%"

S = 10**9
GARBAGE = ["", " ", "-1", "nan", "inf", "-inf", "1e3", "ten", "1,000", "0x10", "١", "1 0", "1__0"]
HUGE = ["9" * 5000, "0." + "0" * 5000 + "1", "1e999999999"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("100", 100),
        (" 100 ", 100),
        ("10k", 10_000),
        ("10K", 10_000),
        ("1.5M", 1_500_000),
        ("10_000", 10_000),
        ("0.001k", 1),
        ("1G", 10**9),
        ("max", None),
    ],
)
def test_rate(text: str, expected: int | None) -> None:
    assert units.parse_rate(text) == expected


@pytest.mark.parametrize("text", [*GARBAGE, *HUGE, "0", "1.5", "1.0005k", "1.1G", "10m", "Max"])
def test_wrong_rate(text: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        units.parse_rate(text)
    assert str(caught.value) == RATE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60s", 60 * S),
        ("60", 60 * S),
        ("0.5", S // 2),
        ("1.5s", 3 * S // 2),
        ("2m", 120 * S),
        ("24h", 86_400 * S),
        ("1d", 86_400 * S),
        ("500ms", S // 2),
        ("1h30m", 5400 * S),
        ("1m500ms", 60 * S + S // 2),
        ("3us", 3000),
        ("3µs", 3000),
        ("1ns", 1),
        ("0.000000001", 1),
        ("366d", 366 * 86_400 * S),
    ],
)
def test_duration(text: str, expected: int) -> None:
    assert units.parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", [*GARBAGE, *HUGE, "0", "0s", "0.5ns", "1s1m", "1m1m", "1h30", "s", "367d", "1y", "1S"]
)
def test_wrong_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        units.parse_duration(text)
    assert str(caught.value) == DURATION


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", 512),
        ("512B", 512),
        ("64k", 64_000),
        ("64kB", 64_000),
        ("100MB", 10**8),
        ("100 MB", 10**8),
        ("4MiB", 4 << 20),
        ("1.5GiB", 3 << 29),
        ("2TB", 2 * 10**12),
    ],
)
def test_bytes(text: str, expected: int) -> None:
    assert units.parse_bytes(text) == expected


@pytest.mark.parametrize("text", [*GARBAGE, *HUGE, "0", "0MB", "1.5", "4Mi", "1PB", "9999999TiB"])
def test_wrong_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        units.parse_bytes(text)
    assert str(caught.value) == BYTES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Fraction(0)),
        ("1", Fraction(1)),
        ("0.1", Fraction(1, 10)),
        (".5", Fraction(1, 2)),
        ("10%", Fraction(1, 10)),
        ("0.5%", Fraction(1, 200)),
        ("100%", Fraction(1)),
        ("1.0", Fraction(1)),
    ],
)
def test_share(text: str, expected: Fraction) -> None:
    assert units.parse_share(text) == expected


@pytest.mark.parametrize("text", [*GARBAGE, *HUGE, "1.1", "2", "101%", "10 %", "%", "1/3", "-0.1"])
def test_wrong_share(text: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        units.parse_share(text)
    assert str(caught.value) == SHARE


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """Any text whatever gives a number in bounds or a ValueError of one line."""
    for parse in (units.parse_rate, units.parse_duration, units.parse_bytes, units.parse_share):
        number: Fraction | int | None = None
        message = "must be"
        try:
            number = parse(text)
        except ValueError as error:
            message = str(error)
        assert message.startswith("must be")
        assert "\n" not in message
        assert number is None or 0 <= number < 2**63


@given(st.integers(1, 366 * 86_400 * S))
def test_a_formatted_duration_reads_back(duration_ns: int) -> None:
    """parse_duration reads back to the nanosecond whatever format_duration writes."""
    assert units.parse_duration(units.format_duration(duration_ns)) == duration_ns


@pytest.mark.parametrize(
    ("duration_ns", "expected"),
    [
        (0, "0s"),
        (60 * S, "1m"),
        (90 * S, "1m30s"),
        (86_400 * S, "24h"),
        (S // 2, "500ms"),
        (1500, "1500ns"),
        (61_234_500_000, "1m1.2345s"),
    ],
)
def test_format_duration(duration_ns: int, expected: str) -> None:
    assert units.format_duration(duration_ns) == expected


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (None, "max"),
        (0.5, "0.5 spans/s"),
        (1, "1 spans/s"),
        (99.96, "100 spans/s"),
        (9998.4, "9,998 spans/s"),
        (999_999.6, "1.00 M spans/s"),
        (1_250_000, "1.25 M spans/s"),
    ],
)
def test_format_rate(rate: float | None, expected: str) -> None:
    assert units.format_rate(rate) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (100_000_000, "100.0 MB"),
        (999_960_000, "1.0 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_format_bytes(size: float, expected: str) -> None:
    assert units.format_bytes(size) == expected


def test_format_count() -> None:
    assert units.format_count(1_234_567) == "1,234,567"


@given(st.text())
def test_quoted_is_one_short_line(text: str) -> None:
    """A quoted text fits into one line of an error and shows no control character."""
    assert units.quoted(text).isprintable()
    assert len(units.quoted(text)) <= 60

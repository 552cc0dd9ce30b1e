"""Durations, rates, shares and sizes as people write them, to exact numbers and back.

Every ``parse_…`` raises ValueError whose message says what would be right and nothing else, so that
the caller can put the option's or the key's name and the value before it:
``--rate -5: must be a whole number of …``.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_RATE = 1_000_000_000
"""Spans per second: a bound for typing errors, far above what one machine can send."""

MAX_DURATION_NS = 366 * 86_400 * 10**9

_LONGEST = 40  # no number that is meant needs more characters; int() of a huge text is slow

_NUMBER = r"[0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?"
_COUNT = re.compile(rf"({_NUMBER})([kKMG]?)")
_COUNT_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}
_DURATION_NS = {
    "d": 86_400 * 10**9,
    "h": 3_600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "µs": 10**3,
    "ns": 1,
}
_DURATION_PART = re.compile(rf"({_NUMBER})(d|h|ms|m|s|us|µs|ns)")
_BYTES = re.compile(rf"({_NUMBER}) ?(?:([kKMGT]?)B?|([KMGT]i)B)")
_BYTE_FACTORS = {
    **_COUNT_FACTORS,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})(%?)")

_RATE_WANTED = (
    "must be a whole number of spans per second from 1 to 1G, such as 100, 10k or 1.5M, or max"
)
_LOAD_WANTED = "must be a rate such as 100spans/s, 50req/s or 10MB/s, at most 1TB/s"
_DURATION_WANTED = "must be a time above 0 and up to 366d, such as 60s, 2m, 1h30m, 500ms or 60"
_BYTES_WANTED = "must be a whole number of bytes above 0, such as 512, 64kB, 100MB or 4MiB"
_SHARE_WANTED = "must be a share from 0 to 1, such as 0.1 or 10%"


def parse_count(text: str, least: int = 0, most: int = MAX_RATE) -> int | None:
    """A whole number with an optional k, M or G (thousands), or None where ``text`` is none.

    None also where it lies outside ``least`` … ``most``: only the caller knows the right words.
    """
    text = text.strip()
    match = _COUNT.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return None
    number = Fraction(match[1]) * _COUNT_FACTORS[match[2]]
    if number.denominator != 1 or not least <= number <= most:
        return None
    return int(number)


def parse_rate(text: str) -> int | None:
    """Spans per second, an integer of at least 1; None for ``max``. ValueError otherwise."""
    if text.strip() == "max":
        return None
    rate = parse_count(text, least=1)
    if rate is None:
        raise ValueError(_RATE_WANTED)
    return rate


UNITS = ("spans", "requests", "bytes")
"""What a rate can count."""

_LOAD = re.compile(r"\s*(?P<number>.*?)\s*(?P<unit>spans?|req|requests?|)/s\s*", re.DOTALL)


def parse_load(text: str) -> tuple[int | None, str]:
    """A rate and what it counts, one of UNITS: ``100``, ``100spans/s``, ``50req/s``, ``10MB/s``;
    (None, "spans") for ``max``. ValueError otherwise."""
    match = _LOAD.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        return parse_rate(text), "spans"
    if match["unit"]:
        unit = "spans" if match["unit"].startswith("span") else "requests"
        rate = parse_count(match["number"], least=1)
        if rate is None:
            raise ValueError(f"must be a whole number of {unit} per second from 1 to 1G")
        return rate, unit
    try:
        size = parse_bytes(match["number"]) if match["number"].endswith("B") else 0
    except ValueError:
        size = 0
    if not 0 < size <= 1000 * MAX_RATE:
        raise ValueError(_LOAD_WANTED)
    return size, "bytes"


def parse_duration(text: str) -> int:
    """Nanoseconds, above 0. A bare number is seconds; units go from large to small: ``1h30m``."""
    text = text.strip()
    if not text or len(text) > _LONGEST:
        raise ValueError(_DURATION_WANTED)
    if re.fullmatch(_NUMBER, text):
        text += "s"
    total, at, last = Fraction(0), 0, MAX_DURATION_NS
    while at < len(text):
        match = _DURATION_PART.match(text, at)
        if match is None or _DURATION_NS[match[2]] >= last:
            raise ValueError(_DURATION_WANTED)
        last = _DURATION_NS[match[2]]
        total += Fraction(match[1]) * last
        at = match.end()
    if total.denominator != 1 or not 0 < total <= MAX_DURATION_NS:
        raise ValueError(_DURATION_WANTED)
    return int(total)


def parse_bytes(text: str) -> int:
    """Bytes, above 0: kB, MB, GB are powers of 1000; KiB, MiB, GiB powers of 1024."""
    text = text.strip()
    match = _BYTES.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(_BYTES_WANTED)
    number = Fraction(match[1]) * _BYTE_FACTORS[match[2] or match[3] or ""]
    if number.denominator != 1 or not 0 < number < 2**63:
        raise ValueError(_BYTES_WANTED)
    return int(number)


def parse_share(text: str) -> Fraction:
    """A share from 0 to 1, exactly as its decimal text says: ``0.1`` and ``10%`` are 1/10."""
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        raise ValueError(_SHARE_WANTED)
    share = Fraction(match[1]) / (100 if match[2] else 1)
    if share > 1:
        raise ValueError(_SHARE_WANTED)
    return share


def format_count(count: int) -> str:
    """``1,234,567``."""
    return f"{count:,d}"


def format_rate(rate: float | None) -> str:
    """``10,000 spans/s``; ``1.25 M spans/s`` from a million on; ``max`` for None."""
    if rate is None:
        return "max"
    if rate >= 999_999.5:
        return f"{rate / 1e6:,.2f} M spans/s"
    if rate >= 99.95 or rate == int(rate):
        return f"{rate:,.0f} spans/s"
    return f"{rate:.1f} spans/s"


def format_load(rate: int | None, unit: str) -> str:
    """:func:`format_rate` for what ``unit`` counts: ``50 requests/s``, ``10.0 MB/s``."""
    if rate is None or unit == "spans":
        return format_rate(rate)
    return f"{format_bytes(rate)}/s" if unit == "bytes" else f"{rate:,d} requests/s"


def format_bytes(size: float) -> str:
    """``512 B``, ``1.5 kB``, ``104.9 MB``: powers of 1000, as :func:`parse_bytes` reads them."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:,.1f} TB"


def format_duration(duration_ns: int) -> str:
    """``24h``, ``1m30s``, ``500ms``: exact, so that :func:`parse_duration` gives it back."""
    if duration_ns < 10**9:
        for unit in ("ms", "us", "ns"):
            if duration_ns % _DURATION_NS[unit] == 0 and duration_ns:
                return f"{duration_ns // _DURATION_NS[unit]}{unit}"
        return "0s"
    minutes, rest = divmod(duration_ns, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    seconds, fraction = divmod(rest, 10**9)
    if fraction:
        return f"{text}{seconds}.{fraction:09d}".rstrip("0") + "s"
    return f"{text}{seconds}s" if seconds else text


def quoted(value: object) -> str:
    """``value`` for one line of an error: text in quotes, control characters escaped, cut at 60."""
    text = repr(value) if isinstance(value, str) else str(value)
    if not text.isprintable():
        text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def in_line(text: str) -> str:
    """``text`` as it is where it fits into one line of an error, escaped or cut where not."""
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= 300 else f"{text[:297]}..."

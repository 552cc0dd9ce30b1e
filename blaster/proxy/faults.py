"""The proxy's faults, and their grammar.

    KIND[=VALUE][,from=5s][,for=10s][@SHARE]

Times count from the first connection. ``latency``, ``jitter`` and ``bandwidth`` (bytes a second in
each direction of each connection) apply to bytes while they are active. ``reset``: RST on the
connections open when it begins and, with ``for`` or a share, on those opened while it lasts.
``blackhole``: received bytes are discarded. ``half-open``: the target's side is closed without
notice to the sender.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blaster.errors import UsageError
from blaster.units import parse_bytes, parse_duration, parse_share, quoted

KINDS = {
    "latency": "latency=20ms",
    "jitter": "jitter=5ms",
    "bandwidth": "bandwidth=1MB",
    "reset": "reset",
    "blackhole": "blackhole",
    "half-open": "half-open",
}
"""The kinds of faults, with an example of each."""

MAX_S = 600.0
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class ProxyFault:
    """A fault. Times in seconds since the first connection; ``value``: seconds, or bytes a second;
    ``share``: the share of connections."""

    text: str
    kind: str
    value: float = 0.0
    begin_s: float = 0.0
    end_s: float = FOREVER
    share: float = 1.0

    def active(self, t_s: float) -> bool:
        """Whether it is active at a time."""
        return self.begin_s <= t_s < self.end_s


def parse_all(texts: Sequence[str]) -> tuple[ProxyFault, ...]:
    """Parse the faults. The UsageError names the option and the value."""
    faults = []
    for text in texts:
        try:
            faults.append(_parse(text))
        except ValueError as error:
            raise UsageError(f"--fault {quoted(text)}: {error}") from None
    return tuple(faults)


def _parse(text: str) -> ProxyFault:
    body, at, share_text = text.partition("@")
    share_text, comma, rest = share_text.partition(",")
    first, *keys = (body + comma + rest).split(",")
    kind, equals, value = first.partition("=")
    if kind not in KINDS:
        raise ValueError(f"the kinds are {', '.join(KINDS.values())}")
    if bool(equals) != ("=" in KINDS[kind]):
        raise ValueError(f"must be written as {KINDS[kind]}")
    share = 1.0
    if at:
        if kind in ("latency", "jitter", "bandwidth"):
            raise ValueError("applies to all connections: takes no share")
        share = _share(share_text)
    amount = 0.0
    if kind == "bandwidth":
        amount = float(parse_bytes(value))
        if amount < 1:
            raise ValueError("must be at least 1 byte a second")
    elif equals:
        amount = _seconds(value)
    times = {}
    for key in keys:
        name, _, time = key.partition("=")
        if name not in ("from", "for") or name in times:
            raise ValueError(f"{quoted(key)}: must be from=… or for=…, each at most once")
        times[name] = _seconds(time)
    begin = times.get("from", 0.0)
    end = begin + times["for"] if "for" in times else FOREVER
    return ProxyFault(text, kind, amount, begin, end, share)


def _share(text: str) -> float:
    share = float(parse_share(text)) if not text.endswith("%") else float(text[:-1]) / 100
    if not 0 < share <= 1:
        raise ValueError("the share must be above 0 and at most 100%")
    return share


def _seconds(text: str) -> float:
    seconds = parse_duration(text) / 1e9
    if seconds > MAX_S:
        raise ValueError(f"must be at most {MAX_S:g} s")
    return seconds

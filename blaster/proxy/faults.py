"""What the proxy does to the bytes, and the grammar of it.

    KIND[=VALUE][,from=5s][,for=10s][@SHARE]

Times begin with the first connection. ``latency``, ``jitter`` and ``bandwidth`` (bytes a second in
each direction of each connection) are of the bytes while they are in force. ``reset`` resets
connections with RST: those that are open at its moment, and with ``for`` or a share those that are
opened while it lasts, too. ``blackhole``: bytes are taken and go nowhere. ``half-open``: the
target's side is closed, and the sender is not told.
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
"""With an example of each."""

MAX_S = 600.0
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class ProxyFault:
    """One fault; times in seconds since the first connection. ``value``: seconds, or bytes a
    second. ``share``: of connections."""

    text: str
    kind: str
    value: float = 0.0
    begin_s: float = 0.0
    end_s: float = FOREVER
    share: float = 1.0

    def active(self, t_s: float) -> bool:
        """Whether it is in force at a time."""
        return self.begin_s <= t_s < self.end_s


def parse_all(texts: Sequence[str]) -> tuple[ProxyFault, ...]:
    """The faults. Raises UsageError, naming the option and the value."""
    faults = []
    for text in texts:
        try:
            faults.append(_parse(text))
        except ValueError as error:
            raise UsageError(f"--fault {quoted(text)}: {error}") from None
    return tuple(faults)


def _parse(text: str) -> ProxyFault:
    body, at, said = text.partition("@")
    said, comma, rest = said.partition(",")
    first, *keys = (body + comma + rest).split(",")
    kind, equals, value = first.partition("=")
    if kind not in KINDS:
        raise ValueError(f"the kinds are {', '.join(KINDS.values())}")
    if bool(equals) != ("=" in KINDS[kind]):
        raise ValueError(f"must be written as {KINDS[kind]}")
    share = 1.0
    if at:
        if kind in ("latency", "jitter", "bandwidth"):
            raise ValueError("is of all connections: no share")
        share = _share(said)
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
            raise ValueError(f"{quoted(key)}: it takes from=… and for=…, once each")
        times[name] = _seconds(time)
    begin = times.get("from", 0.0)
    end = begin + times["for"] if "for" in times else FOREVER
    return ProxyFault(text, kind, amount, begin, end, share)


def _share(text: str) -> float:
    share = float(parse_share(text)) if not text.endswith("%") else float(text[:-1]) / 100
    if not 0 < share <= 1:
        raise ValueError("a share is above 0 and at most 100%")
    return share


def _seconds(text: str) -> float:
    seconds = parse_duration(text) / 1e9
    if seconds > MAX_S:
        raise ValueError(f"at most {MAX_S:g} s")
    return seconds

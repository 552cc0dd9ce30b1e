"""The grammar of ``--fault``.

    KIND[=VALUE][,KEY=VALUE…][@SHARE]

``@SHARE`` (10% or 0.1; default all) is of requests. ``from=5s`` and ``for=10s`` bound the time in
which the fault is in force, which begins with the first request; ``at=5s`` makes it meet one
request only, the first from then on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from blaster.errors import UsageError
from blaster.otlp.status import Code
from blaster.sink.fault import ALL, FOREVER, RECEIVERS, Fault, Kind
from blaster.units import parse_bytes, parse_duration, parse_share, quoted

_T = TypeVar("_T")

MOST_FAULTS = 32
MOST_DURATION_NS = 600 * 10**9
MOST_OVERSIZE = 1 << 26

STATUSES = tuple(code.name for code in Code if code)

RESETS = {
    "NO_ERROR": 0,
    "PROTOCOL_ERROR": 1,
    "INTERNAL_ERROR": 2,
    "REFUSED_STREAM": 7,
    "CANCEL": 8,
    "ENHANCE_YOUR_CALM": 11,
}
"""HTTP/2's error codes (RFC 9113, 7) that RST_STREAM may carry here."""

Values = tuple[int, int, bool]
"""``low``, ``high`` and ``exponential`` of a Fault."""


def _delay(text: str) -> Values:
    if text.startswith("exp:"):
        mean = _duration(text.removeprefix("exp:"))
        return mean, mean, True
    first, dots, last = text.partition("..")
    low = _duration(first)
    high = _duration(last) if dots else low
    if high < low:
        raise ValueError("must go from the shorter to the longer delay, as 50ms..200ms")
    return low, high, False


def _duration(text: str) -> int:
    duration = 0 if re.fullmatch("0+[a-z]*", text) else parse_duration(text)
    if duration > MOST_DURATION_NS:
        raise ValueError(f"must be at most {MOST_DURATION_NS // 10**9} s")
    return duration


def _time(text: str) -> Values:
    duration = _duration(text)
    return duration, duration, False


def _status(text: str) -> Values:
    name = text.upper()
    if name not in STATUSES:
        raise ValueError(f"must be a status of gRPC: {', '.join(STATUSES)}")
    return Code[name], Code[name], False


def _http(text: str) -> Values:
    if not (text.isascii() and text.isdigit() and 300 <= int(text) <= 599):
        raise ValueError("must be an HTTP status from 300 to 599")
    return int(text), int(text), False


def _partial(text: str) -> Values:
    share = round(_share(text) * ALL)
    return share, share, False


def _rst(text: str) -> Values:
    if text.upper() not in RESETS:
        raise ValueError(f"must be one of {', '.join(RESETS)}")
    return RESETS[text.upper()], RESETS[text.upper()], False


def _size(text: str) -> Values:
    size = parse_bytes(text)
    if not 1 <= size <= MOST_OVERSIZE:
        raise ValueError("must be from 1 to 64MiB")
    return size, size, False


def _share(text: str) -> float:
    if text.endswith("%"):
        try:
            percent = float(text[:-1])
        except ValueError:
            percent = -1.0
        if not 0 <= percent <= 100:
            raise ValueError("must be a share such as 10% or 0.1")
        return percent / 100
    return float(parse_share(text))


@dataclass(frozen=True, slots=True)
class Grammar:
    """The syntax of one kind of fault.

    ``parse`` reads its value; None: it takes none. ``default``: the value if none is written; None:
    one must be. ``keys`` besides from, for and at. ``limitation``: why some receivers lack it.
    """

    kind: Kind
    parse: Callable[[str], Values] | None = None
    default: str | None = ""
    keys: tuple[str, ...] = ()
    limitation: str = ""


KINDS: Mapping[str, Grammar] = {
    "delay": Grammar(Kind.DELAY, _delay, default=None),
    "status": Grammar(
        Kind.STATUS,
        _status,
        default=None,
        keys=("retry",),
        limitation="only gRPC has such statuses: use http=503 over HTTP",
    ),
    "http": Grammar(
        Kind.HTTP,
        _http,
        default=None,
        keys=("retry-after", "date"),
        limitation="grpcio answers nothing but gRPC",
    ),
    "partial": Grammar(Kind.PARTIAL, _partial, default=None),
    "freeze": Grammar(Kind.FREEZE, _time, default="1s"),
    "slow-read": Grammar(
        Kind.SLOW_READ, _time, default="1s", limitation="grpcio manages its windows itself"
    ),
    "rst": Grammar(
        Kind.RST,
        _rst,
        default="INTERNAL_ERROR",
        limitation="only the native gRPC receiver sends RST_STREAM: use reset elsewhere",
    ),
    "goaway": Grammar(Kind.GOAWAY, limitation="only the native gRPC receiver sends GOAWAY"),
    "reset": Grammar(Kind.RESET, limitation="grpcio manages its sockets itself"),
    "refuse": Grammar(Kind.REFUSE, limitation="grpcio manages its sockets itself"),
    "half-close": Grammar(Kind.HALF_CLOSE, limitation="grpcio manages its sockets itself"),
    "garbage": Grammar(Kind.GARBAGE),
    "frames": Grammar(Kind.FRAMES, limitation="grpcio writes HTTP/2 only"),
    "oversize": Grammar(Kind.OVERSIZE, _size, default="8MiB"),
    "content-type": Grammar(Kind.CONTENT_TYPE, limitation="grpcio answers nothing but gRPC"),
}

_LIMITATIONS = {grammar.kind: grammar.limitation for grammar in KINDS.values()}


def parse(text: str, option: str = "--fault") -> Fault:
    """Return the fault that ``text`` specifies. Raises UsageError with the option and the value."""
    try:
        return _parse(text)
    except ValueError as error:
        raise UsageError(f"{option} {quoted(text)}: {error}") from None


def parse_all(texts: Sequence[str], option: str = "--fault") -> tuple[Fault, ...]:
    """Return the faults that ``texts`` specify. Raises UsageError, also for too many."""
    if len(texts) > MOST_FAULTS:
        raise UsageError(f"{option}: {len(texts)} faults: at most {MOST_FAULTS}")
    return tuple(parse(text, option) for text in texts)


def check_supported(
    faults: Sequence[Fault], receivers: Sequence[str], option: str = "--fault"
) -> None:
    """Raise UsageError for a fault that none of these receivers supports."""
    for fault in faults:
        if RECEIVERS[fault.kind].isdisjoint(receivers):
            where = " or ".join(receivers)
            raise UsageError(
                f"{option} {quoted(fault.text)}: not supported over {where}: "
                f"{_LIMITATIONS[fault.kind]}"
            )


def _parse(text: str) -> Fault:
    share = ALL
    words = []
    for word in text.split(","):
        body, at, percent = word.strip().partition("@")
        if at:
            if share != ALL:
                raise ValueError("has two shares")
            share = round(_labelled("@" + percent, _share, percent) * ALL)
        words.append(body)
    if share == 0:
        raise ValueError("a share of 0 never happens")
    name, equals, value = words[0].partition("=")
    if name not in KINDS:
        raise ValueError(f"the kinds are {', '.join(KINDS)}")
    grammar = KINDS[name]
    low, high, exponential = _value(grammar, name, value if equals else None)
    keys = _keys(words[1:], ("from", "for", "at", *grammar.keys))
    if "at" in keys and ("from" in keys or "for" in keys):
        raise ValueError("at=… is one moment: it takes neither from=… nor for=…")
    begin = _labelled("from", _duration, keys.get("from", keys.get("at", "0")))
    until = FOREVER
    if "for" in keys:
        until = begin + _labelled("for", _duration, keys["for"])
    retry = keys.get("retry", keys.get("retry-after"))
    if "date" in keys and retry is None:
        raise ValueError("date needs retry-after=…")
    return Fault(
        text=text,
        kind=grammar.kind,
        low=low,
        high=high,
        exponential=exponential,
        share=share,
        from_ns=begin,
        until_ns=until,
        once="at" in keys,
        retry_ns=None if retry is None else _labelled("retry", _duration, retry),
        date="date" in keys,
    )


def _value(grammar: Grammar, name: str, value: str | None) -> Values:
    if grammar.parse is None:
        if value is not None:
            raise ValueError(f"{name} takes no value")
        return 0, 0, False
    value = grammar.default if value is None else value
    if value is None:
        raise ValueError(f"{name} needs a value, as {name}=…")
    return _labelled(f"{name}={value}", grammar.parse, value)


def _keys(words: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known or bool(equals) == (key == "date"):
            wanted = ", ".join(k if k == "date" else f"{k}=…" for k in known)
            raise ValueError(f"{quoted(word)}: must be {wanted}")
        if key in keys:
            raise ValueError(f"{quoted(word)}: {key} is given twice")
        keys[key] = value
    return keys


def _labelled(label: str, parser: Callable[[str], _T], text: str) -> _T:
    """``parser(text)``; ``label`` stands before the message of its ValueError."""
    try:
        return parser(text)
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None

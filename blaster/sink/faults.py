"""Faults on purpose: their grammar, and the draw that says which of them a request meets.

    KIND[=VALUE][,KEY=VALUE…][@SHARE]

``@SHARE`` (10% or 0.1; default all) is of requests. ``from=5s`` and ``for=10s`` bound the time in
which the fault is in force, which begins with the first request; ``at=5s`` makes it meet one
request only, the first from then on. A request meets at most one fault, the first that draws it,
and any number of delays. The seed and the request's number decide the draw.

Which spans count as received: of a request that is answered with an error, none: it is thrown away
unread, so that who was refused is never counted. Where only the answer is lost or spoilt (reset,
half-close, garbage, frames, oversize), all: the request was read, and its sender can't know. A
wrong content type refuses a call of gRPC, which then has no status; over HTTP the status says 200,
and the spans count. So accepted <= sink.spans <= accepted + unknown holds for every sender that
books what it was told. native/receiver_faults.c is the twin of FaultTable.
"""

from __future__ import annotations

import base64
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, TypeVar

from blaster.errors import UsageError
from blaster.otlp.wire_format import write_varint
from blaster.units import parse_bytes, parse_duration, parse_share, quoted

_T = TypeVar("_T")

ALL = 1 << 32
"""The share of all requests, and of all spans."""
FOREVER = (1 << 63) - 1
MOST_FAULTS = 32
MOST_DURATION_NS = 600 * 10**9
MOST_OVERSIZE = 1 << 26

WIRE, GRPC, HTTP = "wire", "grpc", "http"
"""The receivers: OTLP/gRPC native and on grpcio, OTLP/HTTP."""

STATUSES = (
    *("CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED"),
    *("NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"),
    *("FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
"""gRPC's, from 1 on."""

RESETS = {
    "NO_ERROR": 0,
    "PROTOCOL_ERROR": 1,
    "INTERNAL_ERROR": 2,
    "REFUSED_STREAM": 7,
    "CANCEL": 8,
    "ENHANCE_YOUR_CALM": 11,
}
"""HTTP/2's error codes (RFC 9113, 7) that RST_STREAM may carry here."""


class Kind(IntEnum):
    """As enum fault_kind in native/receiver_faults.h."""

    DELAY = 1
    STATUS = 2
    HTTP = 3
    PARTIAL = 4
    FREEZE = 5
    SLOW_READ = 6
    RST = 7
    GOAWAY = 8
    RESET = 9
    REFUSE = 10
    HALF_CLOSE = 11
    GARBAGE = 12
    FRAMES = 13
    OVERSIZE = 14
    CONTENT_TYPE = 15


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Times in ns since the first request; ``share`` of ALL.

    ``low`` and ``high``: what the kind asks for, in ns (a delay is uniform between them), a code,
    bytes, or spans of ALL. ``exponential``: ``low`` is the mean of an exponential distribution.
    ``retry_s``: RetryInfo or Retry-After; ``date``: the latter as a date.
    """

    text: str
    kind: Kind
    low: int = 0
    high: int = 0
    exponential: bool = False
    share: int = ALL
    from_ns: int = 0
    until_ns: int = FOREVER
    once: bool = False
    retry_s: float | None = None
    date: bool = False

    def row(self) -> tuple[int, int, int, int, int, int, bool, bool, bytes]:
        """For the native receiver."""
        text = b""
        if self.retry_s is not None and self.kind == Kind.STATUS:
            text = base64.b64encode(self.status_details()).rstrip(b"=")
        elif self.retry_s is not None:
            text = str(math.ceil(self.retry_s)).encode()
        times = self.from_ns, self.until_ns
        return (
            *(int(self.kind), self.share, *times, self.low, self.high),
            *(self.exponential, self.once, text),
        )

    def status_details(self) -> bytes:
        """google.rpc.Status with the code and, in its details, RetryInfo."""
        seconds, nanos = divmod(round((self.retry_s or 0) * 1e9), 10**9)
        delay = b"\x08" + write_varint(seconds) + (b"\x10" + write_varint(nanos) if nanos else b"")
        info = b"\x0a" + write_varint(len(delay)) + delay
        url = b"type.googleapis.com/google.rpc.RetryInfo"
        anything = b"\x0a" + write_varint(len(url)) + url + b"\x12" + write_varint(len(info)) + info
        return b"\x08" + write_varint(self.low) + b"\x1a" + write_varint(len(anything)) + anything


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
        raise ValueError(f"at most {MOST_DURATION_NS // 10**9} s")
    return duration


def _time(text: str) -> Values:
    duration = _duration(text)
    return duration, duration, False


def _status(text: str) -> Values:
    name = text.upper()
    if name not in STATUSES:
        raise ValueError(f"must be a status of gRPC: {', '.join(STATUSES)}")
    code = STATUSES.index(name) + 1
    return code, code, False


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
    """What may be written of one kind. ``default``: its value where none is written; None: it must
    be. ``parse`` None: it takes none. ``keys`` besides from, for and at."""

    kind: Kind
    receivers: frozenset[str]
    parse: Callable[[str], Values] | None = None
    default: str | None = ""
    keys: tuple[str, ...] = ()
    needs: str = ""


EVERYWHERE = frozenset((WIRE, GRPC, HTTP))
SOCKETS = frozenset((WIRE, HTTP))
STREAMS = frozenset((WIRE,))

KINDS: Mapping[str, Grammar] = {
    "delay": Grammar(Kind.DELAY, EVERYWHERE, _delay, None),
    "status": Grammar(
        *(Kind.STATUS, frozenset((WIRE, GRPC)), _status, None, ("retry",)),
        needs="only gRPC has such statuses: use http=503 over HTTP",
    ),
    "http": Grammar(
        *(Kind.HTTP, SOCKETS, _http, None, ("retry-after", "date")),
        needs="grpcio answers nothing but gRPC",
    ),
    "partial": Grammar(Kind.PARTIAL, EVERYWHERE, _partial, None),
    "freeze": Grammar(Kind.FREEZE, EVERYWHERE, _time, "1s"),
    "slow-read": Grammar(
        *(Kind.SLOW_READ, SOCKETS, _time, "1s"), needs="grpcio keeps its windows to itself"
    ),
    "rst": Grammar(
        *(Kind.RST, STREAMS, _rst, "INTERNAL_ERROR"),
        needs="RST_STREAM is sent by the native gRPC receiver only: use reset elsewhere",
    ),
    "goaway": Grammar(
        *(Kind.GOAWAY, STREAMS), needs="GOAWAY is sent by the native gRPC receiver only"
    ),
    "reset": Grammar(Kind.RESET, SOCKETS, needs="grpcio keeps its sockets to itself"),
    "refuse": Grammar(Kind.REFUSE, SOCKETS, needs="grpcio keeps its sockets to itself"),
    "half-close": Grammar(Kind.HALF_CLOSE, SOCKETS, needs="grpcio keeps its sockets to itself"),
    "garbage": Grammar(Kind.GARBAGE, EVERYWHERE),
    "frames": Grammar(Kind.FRAMES, SOCKETS, needs="grpcio writes HTTP/2 only"),
    "oversize": Grammar(Kind.OVERSIZE, EVERYWHERE, _size, "8MiB"),
    "content-type": Grammar(Kind.CONTENT_TYPE, SOCKETS, needs="grpcio answers nothing but gRPC"),
}

OF_KIND = {grammar.kind: grammar for grammar in KINDS.values()}


def parse(text: str, option: str = "--fault") -> Fault:
    """One fault as it is written. Raises UsageError, naming the option and the value."""
    try:
        return _parse(text)
    except ValueError as error:
        raise UsageError(f"{option} {quoted(text)}: {error}") from None


def parse_all(texts: Sequence[str], option: str = "--fault") -> tuple[Fault, ...]:
    """All of them."""
    if len(texts) > MOST_FAULTS:
        raise UsageError(f"{option}: at most {MOST_FAULTS} of them")
    return tuple(parse(text, option) for text in texts)


def check_shown(faults: Sequence[Fault], receivers: Sequence[str], option: str = "--fault") -> None:
    """Raises UsageError for a fault that none of these receivers can show."""
    for fault in faults:
        grammar = OF_KIND[fault.kind]
        if grammar.receivers.isdisjoint(receivers):
            where = " or ".join(receivers)
            raise UsageError(
                f"{option} {quoted(fault.text)}: can't be shown over {where}: {grammar.needs}"
            )


def _parse(text: str) -> Fault:
    share = ALL
    words = []
    for word in text.split(","):
        body, at, said = word.strip().partition("@")
        if at:
            if share != ALL:
                raise ValueError("says its share twice")
            share = round(_named("@" + said, _share, said) * ALL)
        words.append(body)
    name, equals, value = words[0].partition("=")
    if name not in KINDS:
        raise ValueError(f"the kinds are {', '.join(KINDS)}")
    grammar = KINDS[name]
    low = high = 0
    exponential = False
    if grammar.parse is None:
        if equals:
            raise ValueError(f"{name} takes no value")
    elif not equals and grammar.default is None:
        raise ValueError(f"{name} needs a value, as {name}=…")
    else:
        wanted = value if equals else grammar.default or ""
        low, high, exponential = _named(f"{name}={wanted}", grammar.parse, wanted)
    keys = _keys(words[1:], ("from", "for", "at", *grammar.keys))
    begin = _named("from", _duration, keys.get("from", keys.get("at", "0")))
    until = FOREVER
    if "for" in keys:
        until = begin + _named("for", _duration, keys["for"])
    if "at" in keys and ("from" in keys or "for" in keys):
        raise ValueError("at=… is one moment: it takes neither from=… nor for=…")
    retry = keys.get("retry", keys.get("retry-after"))
    if "date" in keys and retry is None:
        raise ValueError("date needs retry-after=…")
    if share == 0:
        raise ValueError("a share of 0 never happens")
    return Fault(
        *(text, grammar.kind, low, high, exponential, share, begin, until),
        once="at" in keys,
        retry_s=None if retry is None else _named("retry", _duration, retry) / 1e9,
        date="date" in keys,
    )


def _keys(words: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if key not in known or bool(equals) == (key == "date"):
            wanted = ", ".join(k if k == "date" else f"{k}=…" for k in known)
            raise ValueError(f"{quoted(word)}: it takes {wanted}")
        if key in keys:
            raise ValueError(f"{quoted(word)}: says {key} twice")
        keys[key] = value
    return keys


def _named(name: str, parser: Callable[[str], _T], text: str) -> _T:
    try:
        return parser(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@dataclass(slots=True)
class Draw:
    """What one request meets. ``random``: 64 bits for what the fault leaves open."""

    fault: Fault | None = None
    delay_ns: int = 0
    random: int = 0


NOTHING = Draw()


class Faulty(Protocol):
    """A receiver that shows faults."""

    def fault(self, faults: Sequence[Fault], seed: int) -> None:
        """From now on these, whose time begins with the next request."""

    def fault_hits(self) -> Sequence[int]:
        """How often each was met."""


class FaultControl:
    """Sets the faults of all receivers and says which were met. Any thread may use it.

    ``names``: the kinds of the receivers: a fault that none of them shows is refused.
    """

    def __init__(self, receivers: Sequence[Faulty], names: Sequence[str]) -> None:
        self._receivers, self._names = receivers, names
        self._set: tuple[tuple[Fault, ...], int] = ((), 0)

    def set(self, texts: Sequence[str], seed: int) -> None:
        """From now on these and no others. Raises UsageError when one is none."""
        faults = parse_all(texts)
        check_shown(faults, self._names)
        if not 0 <= seed < 1 << 63:
            raise UsageError(f"--fault-seed {seed}: must be from 0 to 2^63 - 1")
        self._set = faults, seed
        for receiver in self._receivers:
            receiver.fault(faults, seed)

    def said(self) -> dict[str, Any]:
        """For JSON: the faults, and how many requests or connections met each."""
        faults, seed = self._set
        met = [sum(hits) for hits in zip(*(r.fault_hits() for r in self._receivers), strict=False)]
        return {
            "seed": seed,
            "faults": [
                {"fault": fault.text, "met": hits} for fault, hits in zip(faults, met, strict=False)
            ],
        }


@dataclass
class FaultTable:
    """The faults in force at one receiver, and how often each was met. Any thread may use it.

    Those that this receiver can't show are never met.
    """

    receiver: str
    faults: tuple[Fault, ...] = ()
    seed: int = 0
    hits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.set(self.faults, self.seed)

    @property
    def refusing(self) -> bool:
        """Whether connections are refused at times."""
        return any(fault.kind == Kind.REFUSE for fault in self.faults)

    def set(self, faults: Sequence[Fault], seed: int) -> None:
        """From now on these, whose time begins with the next request."""
        with self._lock:
            self.faults, self.seed = tuple(faults), seed
            self.hits = [0] * len(faults)
            self._requests = self._connections = 0
            self._started: int | None = None

    def draw(self, now_ns: int) -> Draw:
        """What the next request meets."""
        if not self.faults:
            return NOTHING
        drawn = Draw()
        with self._lock:
            if self._started is None:
                self._started = now_ns
            request = self._requests
            self._requests += 1
            for i, fault in enumerate(self.faults):
                delays = fault.kind == Kind.DELAY
                if fault.kind == Kind.REFUSE or (not delays and drawn.fault is not None):
                    continue
                if (random := self._hit(i, request, now_ns)) is None:
                    continue
                if delays:
                    drawn.delay_ns += _delay_of(fault, random)
                else:
                    drawn.fault, drawn.random = fault, random
        return drawn

    def refuses(self, now_ns: int) -> bool:
        """Whether a connection that comes now is to be refused."""
        with self._lock:
            if self._started is None:
                return False
            connection = self._connections
            self._connections += 1
            return any(
                fault.kind == Kind.REFUSE and self._hit(i, connection, now_ns) is not None
                for i, fault in enumerate(self.faults)
            )

    def deaf(self, now_ns: int) -> bool:
        """Whether all connections are to be refused: nobody should be listening."""
        return self._started is not None and any(
            fault.kind == Kind.REFUSE
            and fault.share == ALL
            and not fault.once
            and self._active(i, now_ns)
            for i, fault in enumerate(self.faults)
        )

    def _active(self, i: int, now_ns: int) -> bool:
        fault, since = self.faults[i], now_ns - (self._started or 0)
        if self.receiver not in OF_KIND[fault.kind].receivers:
            return False
        return fault.from_ns <= since < fault.until_ns and not (fault.once and self.hits[i])

    def _hit(self, i: int, number: int, now_ns: int) -> int | None:
        """64 random bits when the fault meets this request or connection."""
        if not self._active(i, now_ns):
            return None
        random = mix(mix(self.seed + i) ^ number)
        if random >> 32 >= self.faults[i].share:
            return None
        self.hits[i] += 1
        return mix(random)


def garbage(random: int) -> bytes:
    """16 bytes that are neither protobuf nor JSON: they begin with a wire type that there is not,
    and are not UTF-8."""
    return b"\xff" + random.to_bytes(8, "big") + b"\xff" * 7


def mix(x: int) -> int:
    """splitmix64 (Steele, Lea, Flood 2014)."""
    most = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & most
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & most
    x = (x ^ x >> 27) * 0x94D049BB133111EB & most
    return x ^ x >> 31


def _delay_of(fault: Fault, random: int) -> int:
    if fault.exponential:
        return min(round(-fault.low * math.log1p(-(random >> 11) * 2.0**-53)), 3600 * 10**9)
    return fault.low + random % (fault.high - fault.low + 1)

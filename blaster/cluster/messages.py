"""What the parent and its hosts say to each other: msgpack, each message with its length before it.

Times are ns of the host's CLOCK_MONOTONIC in what the parent says, and ns since the start of the
run in what a host says.
"""

from __future__ import annotations

import pickle
import struct
import zlib
from dataclasses import dataclass, field

import msgspec

from blaster.engine.plan import Plan
from blaster.engine.results import Configuration, HostFigures
from blaster.transport.factory import Settings

MAX_BYTES = 1 << 30
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Order:
    """What a host is to do, the same for all: the plan, of which each takes its own part, and how
    to send. ``configuration``: one host's. ``keep_outcomes``: every Outcome is sent at the end.
    ``files``: what the paths in the settings hold."""

    plan: Plan
    settings: Settings
    configuration: Configuration
    keep_outcomes: bool
    files: dict[str, bytes] = field(default_factory=dict, repr=False)


class Sealed:
    """Bytes that never show: an order holds headers, which are secrets, and what is passed through
    Dask may be printed by it."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    @classmethod
    def of(cls, order: Order) -> Sealed:
        """The order, pickled: whoever may speak to a Dask worker may run code there anyway."""
        return cls(zlib.compress(pickle.dumps(order), 1))

    def order(self) -> Order:
        """The order again."""
        order = pickle.loads(zlib.decompress(self.data))
        assert isinstance(order, Order)
        return order

    def __repr__(self) -> str:
        return f"<sealed: {len(self.data)} bytes>"

    def __reduce__(self) -> tuple[type[Sealed], tuple[bytes]]:
        return Sealed, (self.data,)


class Begin(msgspec.Struct, tag=True):
    """Fork the workers of host ``number`` and connect. ``epoch_ns``: when the host's clock was 0,
    by the parent's time of day; ``offset_ns``: the host's clock less the parent's."""

    number: int
    order: bytes
    epoch_ns: int
    offset_ns: int


class Start(msgspec.Struct, tag=True):
    """Start at ``start_ns``; send until ``lease_ns`` at most."""

    start_ns: int
    lease_ns: int


class Lease(msgspec.Struct, tag=True):
    """Sending may go on until ``until_ns``: what is not renewed ends."""

    until_ns: int


class Stop(msgspec.Struct, tag=True):
    """Stop, as on Ctrl-C."""


class Ready(msgspec.Struct, tag=True):
    """All workers are connected."""


class Failed(msgspec.Struct, tag=True):
    """The host cannot run the plan."""

    error: str
    exit_status: int


class Report(msgspec.Struct, tag=True):
    """One interval. ``words``: a LedgerDelta; ``sent``: requests of each
    worker so far; ``violations``: of what was sent so far, and the workload's own."""

    elapsed_ns: int
    words: bytes
    sent: list[int]
    violations: list[int]
    own_violations: list[int]
    cpu_s: float
    cpu_percent: float
    rss_bytes: int
    lost_workers: list[str]


class Final(msgspec.Struct, tag=True):
    """The end: balanced words as they are, and the host's own figures; the rest as in a Report.
    ``outcomes``: all of them
    by the parent's clock, compressed, where they were asked for. ``expired``: the lease ran out.
    ``ran``, ``waited``: average and peak, None where unknown."""

    words: bytes
    sent: list[int]
    violations: list[int]
    own_violations: list[int]
    messages: dict[str, str]
    lost_workers: list[str]
    cpu_s: float
    cpu_peak: float
    rss_peak: int
    throttled_ns: int
    ran: tuple[float, float] | None
    waited: tuple[float, float] | None
    outcomes: bytes
    expired: bool
    figures: HostFigures


ToHost = Begin | Start | Lease | Stop
FromHost = Ready | Failed | Report | Final

_to_host: msgspec.msgpack.Decoder[ToHost] = msgspec.msgpack.Decoder(ToHost)
_from_host: msgspec.msgpack.Decoder[FromHost] = msgspec.msgpack.Decoder(FromHost)


def frame(message: ToHost | FromHost) -> bytes:
    """The message as it goes through a pipe."""
    data = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(data)) + data


def length_of(head: bytes) -> int:
    """The length that the 4 bytes before a message say. ValueError for one that cannot be."""
    (length,) = _LENGTH.unpack(head)
    if length > MAX_BYTES:
        raise ValueError(f"a message of {length} bytes")
    return int(length)


def to_host(data: bytes) -> ToHost:
    """A message to a host. msgspec.DecodeError for what is none."""
    return _to_host.decode(data)


def from_host(data: bytes) -> FromHost:
    """A message from a host, likewise."""
    return _from_host.decode(data)

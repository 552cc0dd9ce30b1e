"""An HTTP/2 client made by hand, byte by byte, that can do what no correct client does.

ROWS is a table of such behaviours and of what a receiver has to answer. Only the standard library
is needed: the fuzzer takes its seeds from here too.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 32

NO_ERROR, PROTOCOL, INTERNAL_ERROR, FLOW, _TIMEOUT, CLOSED, SIZE, REFUSED = range(8)
COMPRESSION, CALM = 9, 11
"""Error codes of RFC 9113, section 7."""

OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 3, 4, 8
UNIMPLEMENTED, INTERNAL = 12, 13
"""Status codes of gRPC."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

MAX_MESSAGE = 1 << 20
"""The limit of the receiver that ROWS are for."""
MAX_STREAMS = 100


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame: RFC 9113, section 4.1."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


START = PREFACE + frame(SETTINGS, 0, 0)


def number(value: int, bits: int, first: int = 0) -> bytes:
    """An integer of HPACK with a prefix of some bits: RFC 7541, section 5.1."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out = [first | most]
    value -= most
    while value >= 128:
        out.append(128 | value & 127)
        value >>= 7
    return bytes([*out, value])


def literal(name: str, value: str, first: int = 0x00) -> bytes:
    """A header field, neither indexed (unless first is 0x40) nor Huffman-coded."""
    pair = (name.encode(), value.encode())
    return bytes([first]) + b"".join(number(len(text), 7) + text for text in pair)


POST, HTTP, INDEXED = b"\x83", b"\x86", 0x40
ROOT_PATH = b"\x84"


def block(
    *more: tuple[str, str], path: str = EXPORT, kind: str = "application/grpc", first: int = 0x00
) -> bytes:
    """The header block of a call."""
    pairs = ((":path", path), ("content-type", kind), ("te", "trailers"), *more)
    return POST + HTTP + b"".join(literal(name, value, first) for name, value in pairs)


def message(data: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A message with its prefix of five bytes."""
    return bytes([flag]) + (len(data) if length is None else length).to_bytes(4, "big") + data


def call(
    stream: int,
    body: bytes,
    *more: tuple[str, str],
    head: bytes | None = None,
    cut: int = 16384,
    end: bool = True,
) -> bytes:
    """The frames of one call."""
    pieces = [body[i : i + cut] for i in range(0, len(body), cut)] or [b""]
    sent = frame(HEADERS, END_HEADERS, stream, block(*more) if head is None else head)
    for i, piece in enumerate(pieces):
        last = end and i == len(pieces) - 1
        sent += frame(DATA, END_STREAM if last else 0, stream, piece)
    return sent


def nested(*numbers: int, leaf: bytes) -> bytes:
    """Messages of protobuf, one in the other."""
    for one in reversed(numbers):
        leaf = bytes([one << 3 | 2]) + number_of_protobuf(len(leaf)) + leaf
    return leaf


def number_of_protobuf(value: int) -> bytes:
    """A varint."""
    out = []
    while value > 127:
        out.append(128 | value & 127)
        value >>= 7
    return bytes([*out, value])


SPAN = nested(1, 2, 2, leaf=b"\x0a\x10" + b"t" * 16 + b"\x12\x08" + b"s" * 8)
"""An ExportTraceServiceRequest of one span; n of them, one after the other, are one of n."""
GOOD = message(SPAN)


@dataclass(frozen=True)
class Row:
    """What is sent after the connection's start, and what has to come of it.

    ``statuses``: grpc-status by stream; ``resets``: the code of RST_STREAM by stream, of those
    that have no status; ``goaway``: the code that the connection ends with, or "closed" without
    any, whatever was reset before; None: it goes on. ``spans``: how many of them count. ``raw``:
    the start is in ``sent``.
    """

    name: str
    sent: bytes
    statuses: dict[int, int] = field(default_factory=dict)
    resets: dict[int, int] = field(default_factory=dict)
    goaway: int | str | None = None
    spans: int = 0
    raw: bool = False


def heads(*ids: int, flags: int = END_HEADERS) -> bytes:
    """HEADERS of several calls."""
    return b"".join(frame(HEADERS, flags, i, block()) for i in ids)


def broken(name: str, sent: bytes, code: int) -> Row:
    """A behaviour that ends the connection."""
    return Row(name, sent, goaway=code)


def refused(name: str, sent: bytes, status: int) -> Row:
    """A behaviour that stream 1 is answered with an error for."""
    return Row(name, sent, statuses={1: status})


def malformed(name: str, head: bytes) -> Row:
    """A header block that is no request: RFC 9113, section 8.1.1."""
    return Row(f"malformed: {name}", call(1, GOOD, head=head), resets={1: PROTOCOL})


def _length(more: int) -> tuple[str, str]:
    """The content-length of GOOD, and so much more."""
    return "content-length", str(len(GOOD) + more)


_ZIP = ("grpc-encoding", "gzip")
_BIG = gzip.compress(bytes(MAX_MESSAGE + 1))
_ZSTD = ("grpc-encoding", "zstd")


def zstd(*blocks: tuple[int, bytes, int], window: int = 0x50) -> bytes:
    """A frame of zstd by hand (RFC 8878, 3.1.1): blocks of type (0: as they are, 1: a byte over and
    over), bytes and size; ``window``: its descriptor, of 1 MiB."""
    frame_ = b"\x28\xb5\x2f\xfd\0" + bytes([window])
    for number, (kind, data, size) in enumerate(blocks, 1):
        word = (number == len(blocks)) | kind << 1 | size << 3
        frame_ += word.to_bytes(3, "little") + data
    return frame_


def plain(data: bytes) -> tuple[int, bytes, int]:
    """A block of zstd that is not compressed."""
    return 0, data, len(data)


ROWS: list[Row] = [
    # what is allowed, if seldom seen
    Row("a good call", call(1, GOOD), statuses={1: OK}, spans=1),
    Row("an empty message", call(1, message(b"")), statuses={1: OK}),
    Row("frames of one byte", call(1, message(SPAN * 9), cut=1), statuses={1: OK}, spans=9),
    Row("frames of 7 bytes", call(1, message(SPAN * 999), cut=7), statuses={1: OK}, spans=999),
    Row("a large frame", call(1, message(SPAN * 9999), cut=1 << 24), statuses={1: OK}, spans=9999),
    Row("as large as allowed", call(1, message(b"\x1a\x00" * (MAX_MESSAGE // 2))), {1: OK}),
    Row(
        "the end in a frame of its own",
        call(1, GOOD, end=False) + frame(DATA, END_STREAM, 1),
        statuses={1: OK},
        spans=1,
    ),
    Row(
        "the end in trailers",
        call(1, GOOD, end=False)
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal("a-trailer", "b")),
        statuses={1: OK},
        spans=1,
    ),
    Row(
        "padding everywhere",
        frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, b"\3" + bytes(5) + block() + bytes(3))
        + frame(DATA, PADDED, 1, b"\xff" + GOOD[:9] + bytes(255))
        + frame(DATA, PADDED, 1, b"\4" + bytes(4))
        + frame(DATA, PADDED | END_STREAM, 1, b"\0" + GOOD[9:]),
        statuses={1: OK},
        spans=1,
    ),
    Row(
        "headers in three frames",
        frame(HEADERS, 0, 1, block()[:9])
        + frame(CONTINUATION, 0, 1, block()[9:30])
        + frame(CONTINUATION, END_HEADERS, 1, block()[30:])
        + frame(DATA, END_STREAM, 1, GOOD),
        statuses={1: OK},
        spans=1,
    ),
    Row(
        "headers in the HPACK table",
        call(1, GOOD, head=block(first=INDEXED))
        + call(3, GOOD, head=POST + HTTP + b"\xc0\xbf\xbe"),
        statuses={1: OK, 3: OK},
        spans=2,
    ),
    Row(
        "the same block, and what it means has changed",
        call(1, GOOD, head=block(first=INDEXED))
        + call(3, GOOD, head=POST + HTTP + b"\xc0\xbf\xbe")
        + call(5, GOOD, head=POST + HTTP + b"\xc0\xbf\xbe")
        + call(7, GOOD, head=POST + HTTP + literal(":path", "/a/B", INDEXED) + b"\xc0\xbf")
        + call(9, GOOD, head=POST + HTTP + b"\xc0\xbf\xbe"),
        statuses={1: OK, 3: OK, 5: OK, 7: UNIMPLEMENTED},
        resets={9: PROTOCOL},
        spans=3,
    ),
    Row(
        "two calls interleaved",
        heads(1, 3)
        + frame(DATA, 0, 3, message(SPAN * 2)[:20])
        + frame(DATA, END_STREAM, 1, GOOD)
        + frame(DATA, END_STREAM, 3, message(SPAN * 2)[20:]),
        statuses={1: OK, 3: OK},
        spans=3,
    ),
    Row(
        "skipped stream IDs", call(1, GOOD) + call(2**31 - 1, GOOD), {1: OK, 2**31 - 1: OK}, spans=2
    ),
    Row(
        "unknown frames, settings and priorities",
        frame(99, 255, 7, b"what?")
        + frame(SETTINGS, 0, 0, struct.pack(">HI", 0xABCD, 1))
        + frame(PRIORITY, 0, 5, bytes(5))
        + frame(GOAWAY, 0, 0, bytes(8) + b"bye")
        + call(1, GOOD),
        statuses={1: OK},
        spans=1,
    ),
    Row("content-length", call(1, GOOD, ("content-length", str(len(GOOD)))), {1: OK}, spans=1),
    Row(
        "application/grpc+proto",
        call(1, GOOD, head=block(kind="application/grpc+proto")),
        {1: 0},
        spans=1,
    ),
    # the peer's windows and tables
    Row(
        "a window of nothing, opened byte by byte",
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
        + call(1, GOOD)
        + frame(WINDOW, 0, 1, struct.pack(">I", 1)) * 5,
        statuses={1: OK},
        spans=1,
    ),
    Row(
        "a window of nothing, opened by settings",
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
        + call(1, GOOD)
        + call(3, GOOD)
        + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2))
        + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)),
        statuses={1: OK, 3: OK},
        spans=2,
    ),
    Row(
        "a window that is never opened",
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)) + call(1, GOOD),
        spans=1,
    ),
    Row(
        "an HPACK table of nothing",
        call(1, GOOD)
        + frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 0))
        + call(3, GOOD)
        + call(5, GOOD, head=block(path="/x/Y"))
        + call(7, GOOD),
        statuses={1: OK, 3: OK, 5: UNIMPLEMENTED, 7: OK},
        spans=3,
    ),
    # gzip
    Row("gzip", call(1, message(gzip.compress(SPAN * 5), 1), _ZIP), {1: OK}, spans=5),
    Row(
        "gzip of several members",
        call(1, message(gzip.compress(SPAN) + gzip.compress(SPAN * 2), 1), _ZIP),
        statuses={1: OK},
        spans=3,
    ),
    Row("gzip that was not used", call(1, GOOD, _ZIP), {1: OK}, spans=1),
    Row("identity", call(1, GOOD, ("grpc-encoding", "identity")), {1: OK}, spans=1),
    Row("an encoding that was not used", call(1, GOOD, ("grpc-encoding", "br")), {1: OK}, spans=1),
    refused("another encoding", call(1, message(SPAN, 1), ("grpc-encoding", "br")), UNIMPLEMENTED),
    refused("compressed by nothing", call(1, message(SPAN, 1)), INTERNAL),
    refused("not gzip", call(1, message(SPAN, 1), _ZIP), INTERNAL),
    refused("gzip cut short", call(1, message(gzip.compress(SPAN)[:-9], 1), _ZIP), INTERNAL),
    refused("empty gzip", call(1, message(b"", 1), _ZIP), INTERNAL),
    refused("a gzip bomb", call(1, message(_BIG, 1), _ZIP), RESOURCE_EXHAUSTED),
    refused(
        "gzip that is not protobuf",
        call(1, message(gzip.compress(b"\xff"), 1), _ZIP),
        INVALID_ARGUMENT,
    ),
    # calls that can't be answered well
    refused("another method", call(1, GOOD, head=block(path=EXPORT + "s")), UNIMPLEMENTED),
    refused("no message", call(1, b""), UNIMPLEMENTED),
    refused("no data", frame(HEADERS, END_HEADERS | END_STREAM, 1, block()), UNIMPLEMENTED),
    refused("two messages", call(1, GOOD + GOOD), UNIMPLEMENTED),
    refused("one message and a byte", call(1, GOOD + b"\0"), UNIMPLEMENTED),
    refused("a call that ends in the prefix", call(1, GOOD[:3]), INTERNAL),
    refused("a call that ends in the message", call(1, GOOD[:-1]), INTERNAL),
    refused("a flag that nobody knows", call(1, message(SPAN, 2)), INTERNAL),
    refused("not protobuf", call(1, message(b"\xff")), INVALID_ARGUMENT),
    refused("half a span", call(1, message(SPAN[:-1])), INVALID_ARGUMENT),
    refused(
        "too large", call(1, message(b"", length=MAX_MESSAGE + 1), end=False), RESOURCE_EXHAUSTED
    ),
    refused(
        "too large, and all of it sent",
        call(1, message(bytes(MAX_MESSAGE + 1)), cut=9999),
        RESOURCE_EXHAUSTED,
    ),
    refused("largest length", call(1, message(b"x", length=2**32 - 1)), RESOURCE_EXHAUSTED),
    refused("another content type", call(1, GOOD, head=block(kind="text/plain")), INTERNAL),
    refused(
        "content type of grpc-web", call(1, GOOD, head=block(kind="application/grpc-web")), INTERNAL
    ),
    refused("GET", call(1, GOOD, head=b"\x82" + block()[1:]), INTERNAL),
    Row(
        "a refused call goes on", call(1, GOOD * 99, cut=11) + call(3, GOOD), {1: 12, 3: 0}, spans=1
    ),
    Row("wrong content-length", call(1, GOOD, ("content-length", "3")), resets={1: PROTOCOL}),
    Row(
        "too many streams",
        heads(*range(1, 2 * MAX_STREAMS + 2, 2)),
        resets={2 * MAX_STREAMS + 1: REFUSED},
    ),
    Row("a call that is given up", call(1, GOOD[:9], end=False) + frame(RST, 0, 1, bytes(4))),
    malformed("no path", POST + HTTP + literal("content-type", "application/grpc")),
    malformed("no method", block()[1:]),
    malformed("no scheme", block()[:1] + block()[2:]),
    malformed("two paths", ROOT_PATH + block()),
    malformed("a pseudo-header behind the others", block((":authority", "x"))),
    malformed(
        "a pseudo-header that nobody knows", block()[:2] + literal(":what", "") + block()[2:]
    ),
    malformed("capitals", block(("Name", "x"))),
    malformed("an empty name", block(("", "x"))),
    malformed("a line break", block(("name", "x\r\ny: z"))),
    malformed("connection", block(("connection", "close"))),
    malformed("transfer-encoding", block(("transfer-encoding", "chunked"))),
    malformed("te", block(("te", "gzip"))),
    malformed("two content-types", block(("content-type", "application/grpc"))),
    malformed("a content-length that is none", block(("content-length", "-1"))),
    Row(
        "trailers without an end",
        call(1, GOOD, end=False) + frame(HEADERS, END_HEADERS, 1, literal("a", "b")),
        resets={1: PROTOCOL},
    ),
    Row(
        "pseudo-headers in trailers",
        call(1, GOOD, end=False) + frame(HEADERS, END_HEADERS | END_STREAM, 1, POST),
        resets={1: PROTOCOL},
    ),
    Row(
        "data behind the end, the answer waiting",
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)) + call(1, GOOD) + frame(DATA, 0, 1, b"x"),
        resets={1: CLOSED},
        spans=1,
    ),
    Row(
        "a window of a stream that overflows",
        heads(1) + frame(WINDOW, 0, 1, struct.pack(">I", 2**31 - 1)),
        resets={1: FLOW},
    ),
    Row(
        "a stream's window update of nothing",
        heads(1) + frame(WINDOW, 0, 1, bytes(4)),
        resets={1: PROTOCOL},
    ),
    # RFC 9113, 8.1.1: content-length is the sum of all DATA
    Row("content-length too small", call(1, GOOD, _length(-1)), resets={1: PROTOCOL}),
    Row("content-length too large", call(1, GOOD, _length(1)), resets={1: PROTOCOL}),
    Row(
        "content-length in frames of one byte",
        call(1, GOOD, _length(1), cut=1) + call(3, GOOD, _length(0), cut=1),
        statuses={3: OK},
        resets={1: PROTOCOL},
        spans=1,
    ),
    Row(
        "content-length and trailers",
        call(1, GOOD, _length(1), end=False)
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal("a", "b")),
        resets={1: PROTOCOL},
    ),
    Row(
        "content-length without data",
        frame(HEADERS, END_HEADERS | END_STREAM, 1, block(_length(0))),
        resets={1: PROTOCOL},
    ),
    Row(
        "content-length without the padding",
        frame(HEADERS, END_HEADERS, 1, block(_length(0)))
        + frame(DATA, PADDED | END_STREAM, 1, b"\4" + GOOD + bytes(4)),
        statuses={1: OK},
        spans=1,
    ),
    malformed("two content-lengths", block(_length(0), _length(0))),
    # RFC 9113, 8.1 and 8.3: trailers end the call and hold no pseudo-header
    Row(
        "a second request without an end",
        call(1, GOOD, end=False) + heads(1),
        resets={1: PROTOCOL},
    ),
    Row(
        "a pseudo-header behind a trailer",
        call(1, GOOD, end=False)
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal("a", "b") + HTTP),
        resets={1: PROTOCOL},
    ),
    Row(
        "a pseudo-header of answers in trailers",
        call(1, GOOD, end=False)
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(":status", "200")),
        resets={1: PROTOCOL},
    ),
    # RFC 9113, 6.9: an increment of nothing is an error, whatever has become of the stream
    Row(
        "a window update of nothing, the answer waiting",
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
        + call(1, GOOD)
        + frame(WINDOW, 0, 1, bytes(4)),
        resets={1: PROTOCOL},
        spans=1,
    ),
    Row(
        "a window update of nothing, within a call that is given up",
        call(1, GOOD[:9], end=False) + frame(RST, 0, 1, bytes(4)) + frame(WINDOW, 0, 1, bytes(4)),
        resets={1: PROTOCOL},
    ),
    Row(
        "window updates behind the end",
        call(1, GOOD) + frame(WINDOW, 0, 1, b"\0\0\0\1") + call(3, GOOD),
        statuses={1: OK, 3: OK},
        spans=2,
    ),
    # RFC 9113, 5.1: behind a reset of its own a client sends nothing but PRIORITY
    broken(
        "data behind a reset", heads(1) + frame(RST, 0, 1, bytes(4)) + frame(DATA, 0, 1), CLOSED
    ),
    broken("headers behind a reset", heads(1) + frame(RST, 0, 1, bytes(4)) + heads(1), CLOSED),
    Row(
        "priority and a second reset behind a reset",
        heads(1) + frame(RST, 0, 1, bytes(4)) * 2 + frame(PRIORITY, 0, 1, bytes(5)) + call(3, GOOD),
        statuses={3: OK},
        spans=1,
    ),
    Row(
        "data behind a reset, another call refused",
        call(1, message(SPAN, 2), end=False)
        + heads(3)
        + frame(RST, 0, 3, bytes(4))
        + frame(DATA, 0, 3),
        statuses={1: INTERNAL},
        goaway=CLOSED,
    ),
    Row(
        "data behind a reset of what was refused",
        call(1, message(SPAN, 2), end=False) + frame(RST, 0, 1, bytes(4)) + frame(DATA, 0, 1),
        statuses={1: INTERNAL},
        goaway=CLOSED,
    ),
    Row(
        "headers behind a reset, another call refused",
        call(1, message(SPAN, 2), end=False) + heads(3) + frame(RST, 0, 3, bytes(4)) + heads(3),
        statuses={1: INTERNAL},
        goaway=CLOSED,
    ),
    Row(
        "data behind the end of a malformed call",
        frame(HEADERS, END_HEADERS | END_STREAM, 1, POST) + frame(DATA, 0, 1),
        goaway=CLOSED,
    ),
    # RFC 9113, 5.1.2: what counts is what has not been answered
    Row(
        "more calls than streams, each answered at once",
        b"".join(call(i, GOOD) for i in range(1, 6 * MAX_STREAMS, 2)),
        statuses=dict.fromkeys(range(1, 6 * MAX_STREAMS, 2), OK),
        spans=3 * MAX_STREAMS,
    ),
    Row(
        "more calls than streams, refused at once",
        heads(*range(1, 6 * MAX_STREAMS, 2), flags=END_HEADERS | END_STREAM),
        statuses=dict.fromkeys(range(1, 6 * MAX_STREAMS, 2), UNIMPLEMENTED),
    ),
    Row(
        "too many streams, whose answers wait",
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
        + b"".join(call(i, GOOD) for i in range(1, 2 * MAX_STREAMS + 2, 2)),
        resets={2 * MAX_STREAMS + 1: REFUSED},
        spans=MAX_STREAMS,
    ),
    Row(
        "as many streams as allowed, one given up and one more",
        heads(*range(1, 2 * MAX_STREAMS, 2))
        + frame(RST, 0, 1, bytes(4))
        + call(2 * MAX_STREAMS + 1, GOOD),
        statuses={2 * MAX_STREAMS + 1: OK},
        spans=1,
    ),
    # what ends the connection
    Row("HTTP/1", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", goaway="closed", raw=True),
    Row("garbage", bytes(range(200)), goaway=PROTOCOL, raw=True),
    Row("half a preface and garbage", PREFACE[:9] + b"garbage", goaway="closed", raw=True),
    Row("no settings first", PREFACE + call(1, GOOD), goaway=PROTOCOL, raw=True),
    Row("an acknowledgement first", PREFACE + frame(SETTINGS, ACK, 0), goaway=PROTOCOL, raw=True),
    broken("an even stream", frame(HEADERS, END_HEADERS, 2, block()), PROTOCOL),
    broken("headers on stream 0", frame(HEADERS, END_HEADERS, 0, block()), PROTOCOL),
    broken("data on stream 0", frame(DATA, 0, 0, b"x"), PROTOCOL),
    broken("data of a call not opened", frame(DATA, 0, 1, b"x"), PROTOCOL),
    broken("a reset of a call not opened", frame(RST, 0, 1, bytes(4)), PROTOCOL),
    broken("a window of a call not opened", frame(WINDOW, 0, 1, b"\0\0\0\1"), PROTOCOL),
    broken("a reset of an even stream", heads(3) + frame(RST, 0, 2, bytes(4)), PROTOCOL),
    broken("a window of an even stream", heads(3) + frame(WINDOW, 0, 2, b"\0\0\0\1"), PROTOCOL),
    broken("a reset on stream 0", frame(RST, 0, 0, bytes(4)), PROTOCOL),
    broken("a reset of three bytes", heads(1) + frame(RST, 0, 1, bytes(3)), SIZE),
    broken("settings on a stream", frame(SETTINGS, 0, 1), PROTOCOL),
    broken("settings of seven bytes", frame(SETTINGS, 0, 0, bytes(7)), SIZE),
    broken("settings acknowledged at length", frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
    broken("too many settings", frame(SETTINGS, 0, 0, bytes(6 * 65)), CALM),
    broken("push", frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 2)), PROTOCOL),
    broken(
        "an initial window too large", frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)), FLOW
    ),
    broken("frames too small", frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 100)), PROTOCOL),
    broken(
        "settings that make a window overflow",
        heads(1)
        + frame(WINDOW, 0, 1, struct.pack(">I", 2**31 - 65536))
        + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65536)),
        FLOW,
    ),
    broken("a ping of seven bytes", frame(PING, 0, 0, bytes(7)), SIZE),
    broken("a ping on a stream", frame(PING, 0, 1, bytes(8)), PROTOCOL),
    broken("goaway on a stream", frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    broken("goaway of seven bytes", frame(GOAWAY, 0, 0, bytes(7)), SIZE),
    broken("priority of four bytes", frame(PRIORITY, 0, 1, bytes(4)), SIZE),
    broken("priority of stream 0", frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    broken("a push promise", frame(PUSH, END_HEADERS, 1, bytes(4)), PROTOCOL),
    broken("a window update of nothing", frame(WINDOW, 0, 0, bytes(4)), PROTOCOL),
    broken("a window update of five bytes", frame(WINDOW, 0, 0, bytes(5)), SIZE),
    broken("a window that overflows", frame(WINDOW, 0, 0, struct.pack(">I", 2**31 - 1)), FLOW),
    broken("a frame larger than allowed", b"\xff\xff\xff\0\0\0\0\0\1", SIZE),
    broken(
        "padding longer than the frame", heads(1) + frame(DATA, PADDED, 1, b"\xff123"), PROTOCOL
    ),
    broken("a padded frame of nothing", heads(1) + frame(DATA, PADDED, 1), SIZE),
    broken("headers padded away", frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff\x83"), PROTOCOL),
    broken("headers without a pad length", frame(HEADERS, END_HEADERS | PADDED, 1), SIZE),
    broken("half a priority", frame(HEADERS, END_HEADERS | PRIORITIZED, 1, bytes(3)), SIZE),
    broken("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, block()), PROTOCOL),
    broken(
        "a continuation of another stream",
        frame(HEADERS, 0, 1, block()[:5]) + frame(CONTINUATION, END_HEADERS, 3, block()[5:]),
        PROTOCOL,
    ),
    broken("a ping within headers", frame(HEADERS, 0, 1) + frame(PING, 0, 0, bytes(8)), PROTOCOL),
    broken("headers within headers", frame(HEADERS, 0, 1) + heads(3), PROTOCOL),
    Row(
        "data behind the end",
        call(1, GOOD) + frame(DATA, 0, 1, b"x"),
        {1: OK},
        goaway=CLOSED,
        spans=1,
    ),
    Row("headers behind the end", call(1, GOOD) + heads(1), {1: OK}, goaway=CLOSED, spans=1),
    Row("an older stream", call(5, GOOD) + call(3, GOOD), {5: OK}, goaway=CLOSED, spans=1),
    broken("an index of 0", frame(HEADERS, END_HEADERS, 1, b"\x80"), COMPRESSION),
    broken("an index of nothing", frame(HEADERS, END_HEADERS, 1, b"\xff\x40"), COMPRESSION),
    broken("a string cut short", frame(HEADERS, END_HEADERS, 1, b"\x00\x20abc"), COMPRESSION),
    broken(
        "bad Huffman code",
        frame(HEADERS, END_HEADERS, 1, b"\x00\x84\xff\xff\xff\xff\x00"),
        COMPRESSION,
    ),
    broken("an endless number", frame(HEADERS, END_HEADERS, 1, b"\xff" * 40), COMPRESSION),
    broken(
        "an HPACK table too large", frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\x7f"), COMPRESSION
    ),
    # floods
    broken("a flood of pings", frame(PING, 0, 0, bytes(8)) * 30000, CALM),
    broken("a flood of settings", frame(SETTINGS, 0, 0) * 30000, CALM),
    broken("a flood of acknowledgements", frame(SETTINGS, ACK, 0) * 30000, CALM),
    broken("a flood of priorities", frame(PRIORITY, 0, 1, bytes(5)) * 30000, CALM),
    broken("a flood of unknown frames", frame(99, 0, 1) * 30000, CALM),
    broken("a flood of window updates", frame(WINDOW, 0, 0, b"\0\0\0\1") * 30000, CALM),
    broken("a flood of empty data", heads(1) + frame(DATA, 0, 1) * 30000, CALM),
    broken("a flood of padding", heads(1) + frame(DATA, PADDED, 1, b"\0") * 30000, CALM),
    broken(
        "rapid reset",
        b"".join(heads(i) + frame(RST, 0, i, bytes(4)) for i in range(1, 60001, 2)),
        CALM,
    ),
    broken("streams beyond the limit", heads(*range(1, 60001, 2)), CALM),
    broken(
        "a flood of malformed calls",
        b"".join(frame(HEADERS, END_HEADERS, i, POST) for i in range(1, 60001, 2)),
        CALM,
    ),
    broken(
        "a flood of continuations",
        frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 0, 1) * 30000,
        CALM,
    ),
    broken(
        "endless headers",
        frame(HEADERS, 0, 1, block())
        + b"".join(frame(CONTINUATION, 0, 1, literal("a" * 99, "b" * 9999)) for _ in range(300)),
        CALM,
    ),
    broken("headers of 64 KiB", frame(HEADERS, END_HEADERS, 1, bytes(1 << 17)), CALM),
    broken(
        "an HPACK bomb",
        frame(HEADERS, END_HEADERS, 1, literal("a", "b" * 4000, INDEXED) + b"\xbe" * 16000),
        CALM,
    ),
]


@dataclass
class Heard:
    """What a server said on one connection."""

    statuses: dict[int, int] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)
    resets: dict[int, int] = field(default_factory=dict)
    goaway: int | str | None = None
    pongs: list[bytes] = field(default_factory=list)
    settings: dict[int, int] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    fields: dict[int, dict[str, str]] = field(default_factory=dict)


class HostileClient:
    """One connection; a context manager."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard = Heard()
        self._table: list[tuple[str, str]] = []
        self._bytes = b""
        self.first = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends it all; that the server has closed the connection meanwhile is no error."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def listen(self, until: float, ping: bytes | None = None) -> Heard:
        """Reads until that time (monotonic), the end of the connection, or the answer to a ping."""
        while self.heard.goaway is None or ping is None:
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                break
            except ConnectionResetError:
                data = b""
            self.first = (self.first + data)[:64]
            if not data:
                if self.heard.goaway is None:
                    self.heard.goaway = "closed"
                break
            self._bytes += data
            if not self.first.startswith(b"HTTP/"):
                for one in self._frames():
                    self._hear(*one)
            if ping is not None and ping in self.heard.pongs:
                break
        return self.heard

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        while len(self._bytes) >= 9:
            length = int.from_bytes(self._bytes[:3], "big")
            if len(self._bytes) < 9 + length:
                return
            kind, flags, stream = struct.unpack(">BBI", self._bytes[3:9])
            payload, self._bytes = self._bytes[9 : 9 + length], self._bytes[9 + length :]
            yield kind, flags, stream, payload

    def _hear(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        heard = self.heard
        if kind == HEADERS:
            said = heard.fields.setdefault(stream, {})
            said.update(self._decode(payload))
            if flags & END_STREAM:
                heard.statuses[stream] = int(said["grpc-status"])
                heard.messages[stream] = said.get("grpc-message", "")
        elif kind == DATA:
            heard.data[stream] = heard.data.get(stream, b"") + payload
        elif kind == RST and stream not in heard.statuses:
            heard.resets[stream] = int.from_bytes(payload, "big")
        elif kind == GOAWAY and heard.goaway is None:
            heard.goaway = int.from_bytes(payload[4:8], "big")
        elif kind == PING and flags & ACK:
            heard.pongs.append(payload)
        elif kind == SETTINGS and not flags & ACK:
            heard.settings.update(struct.iter_unpack(">HI", payload))

    def _decode(self, data: bytes) -> dict[str, str]:
        """As much of HPACK as a receiver that codes nothing may use: no Huffman code."""
        static = {8: (":status", "200"), 31: ("content-type", "")}
        said: dict[str, str] = {}
        at = 0

        def integer(bits: int) -> int:
            nonlocal at
            most = (1 << bits) - 1
            value, shift = data[at] & most, 0
            at += 1
            if value == most:
                while True:
                    byte = data[at]
                    at += 1
                    value += (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
            return value

        def text() -> str:
            nonlocal at
            assert data[at] < 128, "Huffman code"
            length = integer(7)
            at += length
            return data[at - length : at].decode("ascii")

        def entry(index: int) -> tuple[str, str]:
            return static[index] if index < 62 else self._table[index - 62]

        while at < len(data):
            if data[at] & 0x80:
                name, value = entry(integer(7))
            elif data[at] & 0xE0 == 0x20:
                assert integer(5) == 0
                self._table.clear()
                continue
            else:
                indexed = data[at] & 0x40
                index = integer(6 if indexed else 4)
                name = entry(index)[0] if index else text()
                value = text()
                if indexed:
                    self._table.insert(0, (name, value))
            said[name] = value
        return said


def behave(port: int, row: Row) -> HostileClient:
    """Does what the row says and hears the server out."""
    with HostileClient(port) as client:
        client.send(row.sent if row.raw else START + row.sent)
        client.send(frame(PING, 0, 0, b"the end."))
        client.listen(time.monotonic() + 10, ping=b"the end.")
        return client


ZSTD_ROWS: list[Row] = [
    Row("zstd", call(1, message(zstd(plain(SPAN * 5)), 1), _ZSTD), {1: OK}, spans=5),
    Row("zstd in blocks", call(1, message(zstd(*[plain(SPAN)] * 3), 1), _ZSTD), {1: OK}, spans=3),
    Row("zstd in frames", call(1, message(zstd(plain(SPAN)) * 2, 1), _ZSTD), {1: OK}, spans=2),
    Row("zstd that was not used", call(1, GOOD, _ZSTD), {1: OK}, spans=1),
    refused("not zstd", call(1, message(SPAN, 1), _ZSTD), INTERNAL),
    refused("empty zstd", call(1, message(b"", 1), _ZSTD), INTERNAL),
    refused("zstd cut short", call(1, message(zstd(plain(SPAN))[:-1], 1), _ZSTD), INTERNAL),
    refused(
        "a zstd bomb",
        call(1, message(zstd(*[(1, b"x", 1 << 17)] * (MAX_MESSAGE // (1 << 17) + 1)), 1), _ZSTD),
        RESOURCE_EXHAUSTED,
    ),
    refused(
        "a zstd window of 32 MiB",
        call(1, message(zstd(plain(SPAN), window=0x78), 1), _ZSTD),
        INTERNAL,
    ),
    refused(
        "zstd that is not protobuf",
        call(1, message(zstd(plain(b"\xff")), 1), _ZSTD),
        INVALID_ARGUMENT,
    ),
]
"""For a receiver that was built with libzstd."""

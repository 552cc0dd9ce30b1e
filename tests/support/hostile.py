"""A scripted HTTP/2 peer on a raw socket that does what no library would let it do.

Each behaviour in BEHAVIOURS gets a `Wire`, greeted and ready for requests, and does with it what
its name says; when it returns, the connection is closed. It runs again for every new connection.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = range(1, 6)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATUS_200 = b"\x88"
EMPTY_MESSAGE = bytes(5)
FLOOD = 200_000


class Gone(Exception):
    """The client closed the connection, or the test is over."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def fields(*pairs: tuple[str, str]) -> bytes:
    """An HPACK block of literals without indexing (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in pairs)


def _string(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    size, rest = bytearray([127]), len(raw) - 127
    while rest >= 128:
        size.append(rest & 127 | 128)
        rest >>= 7
    return bytes(size) + bytes([rest]) + raw


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", k, v) for k, v in values.items()))


def window(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW, 0, stream, struct.pack(">I", increment))


def reset(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST, 0, stream, struct.pack(">I", code))


def goaway(last: int, code: int = 0) -> bytes:
    """A GOAWAY frame."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code))


def headers(stream: int, block: bytes, flags: int = END_HEADERS) -> bytes:
    """A HEADERS frame."""
    return frame(HEADERS, flags, stream, block)


GRPC = STATUS_200 + fields(("content-type", "application/grpc"))


def head(stream: int) -> bytes:
    """The first HEADERS of a gRPC response."""
    return headers(stream, GRPC)


def trailers(stream: int, *pairs: tuple[str, str]) -> bytes:
    """The last HEADERS of a response."""
    return headers(stream, fields(*pairs), END_HEADERS | END_STREAM)


def answer(stream: int, message: bytes = b"", status: str = "0") -> bytes:
    """A whole gRPC response."""
    data = frame(DATA, 0, stream, struct.pack(">BI", 0, len(message)) + message)
    return head(stream) + data + trailers(stream, ("grpc-status", status))


def packed(stream: int, message: bytes, encoding: str = "gzip") -> bytes:
    """A gRPC response whose message says that it is compressed so."""
    data = frame(DATA, 0, stream, struct.pack(">BI", 1, len(message)) + message)
    begin = headers(stream, GRPC + fields(("grpc-encoding", encoding)), END_HEADERS)
    return begin + data + trailers(stream, ("grpc-status", "0"))


def answer_body(stream: int, body: bytes) -> bytes:
    """A gRPC response with these bytes in place of the length-prefixed message, and status 0."""
    parts = [frame(DATA, 0, stream, body[i : i + 16384]) for i in range(0, len(body), 16384)]
    return head(stream) + b"".join(parts) + trailers(stream, ("grpc-status", "0"))


class Decoder:
    """HPACK as far as our client uses it: no Huffman codes, some names of the static table."""

    STATIC: ClassVar = {
        1: (":authority", ""),
        3: (":method", "POST"),
        4: (":path", "/"),
        6: (":scheme", "http"),
        7: (":scheme", "https"),
        23: ("authorization", ""),
        31: ("content-type", ""),
        58: ("user-agent", ""),
    }

    def __init__(self) -> None:
        self.limit = self.size = 4096
        self.must_update = False
        self._table: list[tuple[str, str]] = []

    def change_limit(self, limit: int) -> None:
        """The client has acknowledged this SETTINGS_HEADER_TABLE_SIZE."""
        self.limit = limit
        self.must_update = self.must_update or self.size > limit

    def decode(self, block: bytes) -> list[tuple[str, str]]:
        """The fields of one block; AssertionError when RFC 7541 is broken."""
        found: list[tuple[str, str]] = []
        self._block, self._at = block, 0
        while self._at < len(block):
            first = block[self._at]
            if first & 0xE0 == 0x20:
                assert not found, "a size update after fields (4.2)"
                self.size = self._integer(5)
                assert self.size <= self.limit
                self.must_update = False
                self._evict()
                continue
            assert not self.must_update, "no size update after the limit was lowered (4.2)"
            if first & 0x80:
                found.append(self._entry(self._integer(7)))
                continue
            index = self._integer(6 if first & 0x40 else 4)
            name = self._entry(index)[0] if index else self._text()
            found.append((name, self._text()))
            if first & 0x40:
                self._table.insert(0, found[-1])
                self._evict()
        return found

    def _evict(self) -> None:
        while sum(len(n.encode()) + len(v.encode()) + 32 for n, v in self._table) > self.size:
            self._table.pop()

    def _entry(self, index: int) -> tuple[str, str]:
        return self.STATIC[index] if index < 62 else self._table[index - 62]

    def _integer(self, bits: int) -> int:
        limit = (1 << bits) - 1
        value = self._block[self._at] & limit
        self._at += 1
        shift = 0
        while value >= limit:
            byte = self._block[self._at]
            self._at += 1
            value += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return value

    def _text(self) -> str:
        assert self._block[self._at] < 128, "Huffman"
        length = self._integer(7)
        self._at += length
        return self._block[self._at - length : self._at].decode()


@dataclass
class Stream:
    """A request as it comes in."""

    fields: list[tuple[str, str]]
    block: int
    received: int = 0
    body: bytearray = field(default_factory=bytearray)
    done: bool = False


@dataclass
class Wire:
    """One connection with the client, seen from the peer."""

    socket: socket.socket
    stopping: threading.Event
    number: int
    """How many connections there were before."""
    streams: dict[int, Stream] = field(default_factory=dict)
    pongs: list[bytes] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)
    largest: int = 0
    open_windows: bool = True
    keep_bodies: bool = False
    decoder: Decoder = field(default_factory=Decoder)
    _tables: list[int | None] = field(default_factory=list)
    _given: set[int] = field(default_factory=set)

    def send(self, *parts: bytes) -> None:
        """Writes all of it; Gone when the client has had enough."""
        rest = memoryview(b"".join(parts))
        while rest:
            if self.stopping.is_set():
                raise Gone
            try:
                rest = rest[self.socket.send(rest) :]
            except TimeoutError:
                continue
            except OSError:
                raise Gone from None

    def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        got = bytearray()
        while len(got) < size:
            if self.stopping.is_set():
                raise Gone
            try:
                more = self.socket.recv(size - len(got))
            except TimeoutError:
                continue
            except OSError:
                raise Gone from None
            if not more:
                raise Gone
            got += more
        return bytes(got)

    def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame (kind, flags, stream, payload); keeps the books."""
        size, flags, stream = struct.unpack(">IBI", self.read(9))
        kind, payload = size & 255, self.read(size >> 8)
        self.largest = max(self.largest, size >> 8)
        if kind == HEADERS:
            self.streams[stream] = Stream(self.decoder.decode(payload), len(payload))
        elif kind == DATA:
            self.streams[stream].received += len(payload)
            if self.keep_bodies:
                self.streams[stream].body += payload
            self.streams[stream].done = bool(flags & END_STREAM)
            if self.open_windows and payload:
                self.send(window(0, len(payload)), window(stream, len(payload)))
        elif kind == SETTINGS and flags & ACK:
            table = self._tables.pop(0) if self._tables else None
            if table is not None:
                self.decoder.change_limit(table)
        elif kind == PING and flags & ACK:
            self.pongs.append(payload)
        elif kind == RST:
            self.resets.append(stream)
            self.streams.pop(stream, None)
        return kind, flags, stream, payload

    def opened(self) -> int:
        """The next stream whose HEADERS came, whatever of its body did."""
        while True:
            kind, _, stream, _ = self.frame()
            if kind == HEADERS:
                return stream

    def request(self) -> int:
        """The next stream that was received in full."""
        while True:
            for stream, state in self.streams.items():
                if state.done and stream not in self._given:
                    self._given.add(stream)
                    return stream
            self.frame()

    def greet(self, values: Mapping[int, int]) -> None:
        """The peer's preface; on the first connection also the answer to the empty request."""
        if self.read(len(PREFACE)) != PREFACE:
            raise Gone
        self.send(self.settings(values))
        if self.number == 0:
            self.send(answer(self.request()))

    def settings(self, values: Mapping[int, int]) -> bytes:
        """A SETTINGS frame whose acknowledgement will be waited for."""
        self._tables.append(values.get(TABLE_SIZE))
        return settings(values)

    def serve(self) -> None:
        """Answers everything from here on, as a good peer does."""
        while True:
            self.send(answer(self.request()))

    def silence(self) -> None:
        """Reads and says nothing any more."""
        while True:
            self.frame()


Behaviour = Callable[[Wire], None]


class Peer:
    """Listens on a free loopback port and runs one behaviour on every connection."""

    def __init__(
        self,
        behaviour: Behaviour,
        values: Mapping[int, int] | None,
        raw: bool,
        listener: socket.socket,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._behaviour, self._values, self._raw = behaviour, values or {}, raw
        self._context = context
        self._stopping = threading.Event()
        self._listener = listener
        self._listener.settimeout(0.02)
        self.port: int = self._listener.getsockname()[1]
        self.wires: list[Wire] = []
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(0.02)
            self.wires.append(Wire(connection, self._stopping, len(self.wires)))
            self._threads.append(threading.Thread(target=self._run, args=[self.wires[-1]]))
            self._threads[-1].start()

    def _run(self, wire: Wire) -> None:
        try:
            if self._context is not None:
                wire.socket.settimeout(5)
                wire.socket = self._context.wrap_socket(wire.socket, server_side=True)
                wire.socket.settimeout(0.02)
            if not self._raw:
                wire.greet(self._values)
            self._behaviour(wire)
        except (Gone, ssl.SSLError, ConnectionError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            with contextlib.suppress(OSError):
                wire.socket.close()

    def stop_listening(self) -> None:
        """No new connections from here on."""
        self._listener.close()

    def stop(self) -> None:
        """Ends everything."""
        self._stopping.set()
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextlib.contextmanager
def peer(
    behaviour: Behaviour,
    values: Mapping[int, int] | None = None,
    *,
    raw: bool = False,
    port: int = 0,
    listener: socket.socket | None = None,
    context: ssl.SSLContext | None = None,
) -> Iterator[Peer]:
    """A peer that does this; `values` are its SETTINGS; `raw`: without greeting the client;
    `context`: over TLS."""
    if listener is None:
        listener = socket.create_server(("127.0.0.1", port))
    running = Peer(behaviour, values, raw, listener, context)
    try:
        yield running
    finally:
        running.stop()
    if running.errors:
        raise running.errors[0]


def _each(reply: Callable[[int], bytes]) -> Behaviour:
    """Replies so to each request."""

    def behave(wire: Wire) -> None:
        while True:
            wire.send(reply(wire.request()))

    return behave


def _once(reply: Callable[[int], bytes]) -> Behaviour:
    """Replies so to the first request of each connection, and then is silent."""

    def behave(wire: Wire) -> None:
        wire.send(reply(wire.request()))
        wire.silence()

    return behave


def _flood(part: Callable[[int], bytes], start: Callable[[int], bytes] | None = None) -> Behaviour:
    """Replies with `start` and then with `part` over and over."""

    def behave(wire: Wire) -> None:
        stream = wire.request()
        if start is not None:
            wire.send(start(stream))
        block = part(stream) * 100
        for _ in range(FLOOD // 100):
            wire.send(block)
        wire.silence()

    return behave


def _close_within(reply: Callable[[int], bytes]) -> Behaviour:
    """Replies and closes the connection."""

    def behave(wire: Wire) -> None:
        wire.send(reply(wire.request()))

    return behave


def _abort(wire: Wire) -> None:
    """Closes with a TCP reset while the request comes in."""
    wire.opened()
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _half_close(wire: Wire) -> None:
    wire.request()
    wire.socket.shutdown(socket.SHUT_WR)
    wire.silence()


def _slow_bytes(wire: Wire) -> None:
    while True:
        for byte in answer(wire.request()):
            wire.send(bytes([byte]))
            time.sleep(0.0002)


def _windows_open_late(wire: Wire) -> None:
    """The streams' windows are 0 until a moment later, then opened one byte, then all the way."""
    stream = wire.opened()
    wire.send(window(stream, 1))
    time.sleep(0.05)
    wire.send(wire.settings({INITIAL_WINDOW: 1 << 20}))
    wire.serve()


def _window_goes_negative(wire: Wire) -> None:
    """The initial window shrinks under what was sent already (RFC 9113, 6.9.2)."""
    wire.open_windows = False
    stream = wire.opened()
    wire.send(wire.settings({INITIAL_WINDOW: 100}))
    time.sleep(0.05)
    wire.send(wire.settings({INITIAL_WINDOW: 1 << 20}), window(0, 1 << 30), window(stream, 1))
    wire.open_windows = True
    wire.serve()


def _window_by_dribs(wire: Wire) -> None:
    """Windows open by a few bytes at a time."""
    wire.open_windows = False
    while True:
        opened = [stream for stream, state in wire.streams.items() if not state.done]
        for stream in opened:
            wire.send(window(0, 7001), window(stream, 7001))
        wire.frame()
        for stream in opened:
            if wire.streams[stream].done:
                wire.send(answer(stream))


def _frame_size_changes(wire: Wire) -> None:
    while True:
        for size in (16384, 1 << 20, 16777215, 20000):
            wire.send(wire.settings({MAX_FRAME: size}))
            wire.send(answer(wire.request()))


def _table_size_changes(wire: Wire) -> None:
    for size in (4096, 100, 0, 4096, 60):
        wire.send(wire.settings({TABLE_SIZE: size}), answer(wire.request()))
    wire.serve()


def _streams_allowed_late(wire: Wire) -> None:
    wire.send(wire.settings({MAX_STREAMS: 0}))
    time.sleep(0.1)
    wire.send(wire.settings({MAX_STREAMS: 2}))
    wire.serve()


def _no_streams(wire: Wire) -> None:
    wire.send(wire.settings({MAX_STREAMS: 0}))
    wire.silence()


def _goaway_first_only(last: Callable[[int], int], then: Behaviour) -> Behaviour:
    """The first connection says GOAWAY on its second request; the later ones are good."""

    def behave(wire: Wire) -> None:
        if wire.number == 0:
            wire.send(answer(wire.request()))
            wire.send(goaway(last(wire.request())))
            then(wire)
        wire.serve()

    return behave


def _finish_all(wire: Wire) -> None:
    for stream, state in list(wire.streams.items()):
        if state.done:
            wire.send(answer(stream))
    wire.serve()


def _goaway_again(wire: Wire) -> None:
    wire.opened()
    wire.send(goaway(0) * 1000)
    wire.silence()


def _close(wire: Wire) -> None:
    raise Gone


def _pings_answered(wire: Wire) -> None:
    wire.send(frame(PING, 0, 0, b"abcdefgh"), answer(wire.request()))
    while b"abcdefgh" not in wire.pongs:
        wire.frame()
    wire.serve()


def _pings_unread(wire: Wire) -> None:
    """Asks for answers and does not read them."""
    stream = wire.request()
    block = frame(PING, 0, 0, bytes(8)) * 1000
    for _ in range(1000):
        wire.send(block)
    wire.send(answer(stream))


def _early_answer(wire: Wire) -> None:
    """Answers on HEADERS alone and wants no more (RFC 9113, 8.1)."""
    wire.open_windows = False
    while True:
        stream = wire.opened()
        wire.send(answer(stream, status="8"), reset(stream, 0))


def _refuses_two_of_three(wire: Wire) -> None:
    for count in itertools.count():
        stream = wire.request()
        wire.send(reset(stream, 7) if count % 3 else answer(stream))


def _resets_on_headers(wire: Wire) -> None:
    wire.open_windows = False
    while True:
        wire.send(reset(wire.opened(), 7))


def _garbage(wire: Wire) -> None:
    wire.request()
    wire.send(bytes((i * 97 + 13) % 256 for i in range(5000)))
    wire.silence()


def _halves(wire: Wire) -> None:
    """Begins responses of 3 MiB on all streams and ends none."""
    while True:
        stream = wire.request()
        body = b"\0\0\x3f\0\0" + bytes(3 << 20)
        parts = [frame(DATA, 0, stream, body[i : i + 16384]) for i in range(0, len(body), 16384)]
        wire.send(head(stream), *parts)


def _window_never_opens(wire: Wire) -> None:
    wire.open_windows = False
    wire.silence()


def retry_info() -> str:
    """grpc-status-details-bin with a RetryInfo of RETRY_DELAY_NS."""
    duration = b"\x08\x02\x10" + b"\x80\xca\xb5\xee\x01"  # 2 s, 500,000,000 ns
    info = b"\x0a" + bytes([len(duration)]) + duration
    url = b"type.googleapis.com/google.rpc.RetryInfo"
    any_ = b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(info)]) + info
    return base64.b64encode(b"\x08\x0e\x1a" + bytes([len(any_)]) + any_).decode().rstrip("=")


RETRY_DELAY_NS = 2_500_000_000
BOMB = b"\x40" + _string("x") + _string("y" * 3900) + b"\xbe" * 10_000
"""One field that fills the dynamic table, and ten thousand references to it."""


@dataclass(frozen=True)
class Case:
    """What a peer does, its SETTINGS, and the statuses that the requests may end with.

    `every`: each of `may` must occur. `large`: requests beyond the default windows.
    """

    behaviour: Behaviour
    may: str
    every: bool = False
    large: bool = False
    values: Mapping[int, int] = field(default_factory=dict)


LOST = "CONNECTION_LOST NO_ANSWER_TIMEOUT CONNECT_FAILED"
BEHAVIOURS: dict[str, Case] = {
    "serves": Case(Wire.serve, "OK"),
    "serves large requests": Case(Wire.serve, "OK", large=True),
    "serves one byte at a time": Case(_slow_bytes, "OK"),
    "allows one stream at a time": Case(Wire.serve, "OK", values={MAX_STREAMS: 1}),
    "has no dynamic table": Case(Wire.serve, "OK", values={TABLE_SIZE: 0}),
    "answers a PING with one": Case(_pings_answered, "OK"),
    # Header blocks
    "HPACK bomb": Case(_once(lambda s: headers(s, BOMB)), LOST),
    "HPACK index beyond the table": Case(_once(lambda s: headers(s, b"\xff\xff\x7f")), LOST),
    "HPACK table beyond its limit": Case(
        _once(lambda s: headers(s, b"\x3f\xe1\xff\xff\x7f" + GRPC)), LOST
    ),
    "HPACK integer without end": Case(_once(lambda s: headers(s, b"\x7f" + b"\xff" * 99)), LOST),
    "HPACK string cut off": Case(_once(lambda s: headers(s, b"\x00\x05ab")), LOST),
    "header block within itself": Case(
        _once(lambda s: headers(s, GRPC, 0) + frame(DATA, 0, s, b"x")), LOST
    ),
    "CONTINUATION flood, empty": Case(
        _flood(lambda s: frame(CONTINUATION, 0, s), lambda s: headers(s, STATUS_200, 0)), LOST
    ),
    "CONTINUATION flood, endless headers": Case(
        _flood(
            lambda s: frame(CONTINUATION, 0, s, fields(("a", "b" * 100)) * 20),
            lambda s: headers(s, STATUS_200, 0),
        ),
        LOST,
    ),
    "CONTINUATION of nothing": Case(_once(lambda s: frame(CONTINUATION, 4, s, GRPC)), LOST),
    "CONTINUATION, a few": Case(
        _each(
            lambda s: (
                headers(s, GRPC[:3], 0)
                + frame(CONTINUATION, 0, s, GRPC[3:9])
                + frame(CONTINUATION, END_HEADERS, s, GRPC[9:])
                + frame(DATA, 0, s, EMPTY_MESSAGE)
                + trailers(s, ("grpc-status", "0"))
            )
        ),
        "OK",
    ),
    "too many fields": Case(_once(lambda s: headers(s, GRPC + fields(("a", "b")) * 500)), LOST),
    "header never ends": Case(_once(lambda s: headers(s, GRPC, 0)), LOST),
    "padded and with priority": Case(
        _each(
            lambda s: (
                headers(s, b"\x03" + bytes(5) + GRPC + bytes(3), END_HEADERS | PADDED | 32)
                + frame(DATA, PADDED, s, b"\x02" + EMPTY_MESSAGE + bytes(2))
                + trailers(s, ("grpc-status", "0"))
            )
        ),
        "OK",
    ),
    # Lengths, streams and frames that must not be
    "frame too long": Case(_once(lambda s: b"\xff\xff\xff\x00\x00" + bytes(4)), LOST),
    "padding beyond DATA": Case(
        _once(lambda s: head(s) + frame(DATA, PADDED, s, b"\x09abc")), LOST
    ),
    "padding beyond HEADERS": Case(_once(lambda s: headers(s, b"\xff" + GRPC, 12)), LOST),
    "padding in empty DATA": Case(_once(lambda s: head(s) + frame(DATA, PADDED, s)), LOST),
    "PRIORITY too short in HEADERS": Case(_once(lambda s: headers(s, b"abc", 36)), LOST),
    "RST_STREAM of 3 bytes": Case(_once(lambda s: frame(RST, 0, s, b"abc")), LOST),
    "PING of 7 bytes": Case(_once(lambda s: frame(PING, 0, 0, b"1234567")), LOST),
    "SETTINGS of 5 bytes": Case(_once(lambda s: frame(SETTINGS, 0, 0, b"12345")), LOST),
    "SETTINGS ACK with a payload": Case(_once(lambda s: frame(SETTINGS, 1, 0, bytes(6))), LOST),
    "WINDOW_UPDATE of 3 bytes": Case(_once(lambda s: frame(WINDOW, 0, 0, b"123")), LOST),
    "GOAWAY of 7 bytes": Case(_once(lambda s: frame(GOAWAY, 0, 0, b"1234567")), LOST),
    "SETTINGS for a stream": Case(_once(lambda s: frame(SETTINGS, 0, s)), LOST),
    "PING for a stream": Case(_once(lambda s: frame(PING, 0, s, bytes(8))), LOST),
    "GOAWAY for a stream": Case(_once(lambda s: frame(GOAWAY, 0, s, bytes(8))), LOST),
    "DATA on stream 0": Case(_once(lambda s: frame(DATA, 0, 0, b"x")), LOST),
    "HEADERS on stream 0": Case(_once(lambda s: headers(0, GRPC)), LOST),
    "HEADERS on an even stream": Case(_once(lambda s: headers(2, GRPC)), LOST),
    "DATA on a stream never opened": Case(_once(lambda s: frame(DATA, 0, 0x7FFFFFFF)), LOST),
    "RST_STREAM of a stream never opened": Case(_once(lambda s: reset(99999, 0)), LOST),
    "WINDOW_UPDATE of a stream never opened": Case(_once(lambda s: window(99999, 1)), LOST),
    "PUSH_PROMISE": Case(_once(lambda s: frame(PUSH, 4, s, struct.pack(">I", 2) + GRPC)), LOST),
    "frames of unknown kinds": Case(
        _each(lambda s: frame(99, 255, s, b"?") + frame(200, 0, 0) + answer(s)), "OK"
    ),
    "frames after the end of a stream": Case(
        _each(
            lambda s: (
                answer(s)
                + frame(DATA, 0, s, b"more")
                + reset(s, 2)
                + window(s, 5)
                + trailers(s, ("a", "b"))
            )
        ),
        "OK",
    ),
    # SETTINGS and windows
    "enables push": Case(_once(lambda s: settings({ENABLE_PUSH: 1})), LOST),
    "initial window too large": Case(_once(lambda s: settings({INITIAL_WINDOW: 1 << 31})), LOST),
    "frame size too small": Case(_once(lambda s: settings({MAX_FRAME: 16383})), LOST),
    "frame size too large": Case(_once(lambda s: settings({MAX_FRAME: 1 << 24})), LOST),
    "window opened by 0": Case(_once(lambda s: window(0, 0)), LOST),
    "window opened too far": Case(_once(lambda s: window(0, 0x7FFFFFFF) * 2), LOST),
    "stream's window opened by 0": Case(_each(lambda s: window(s, 0)), "INVALID_RESPONSE"),
    "stream's window opened too far": Case(
        _each(lambda s: window(s, 0x7FFFFFFF) * 2), "INVALID_RESPONSE"
    ),
    "windows opened too far by SETTINGS": Case(
        _once(lambda s: window(s, 0x7FFF0000 - 65535) + settings({INITIAL_WINDOW: 1 << 30})),
        LOST + " INVALID_RESPONSE",
    ),
    "frame size changes": Case(_frame_size_changes, "OK", large=True),
    "table size changes": Case(_table_size_changes, "OK"),
    "window 0, then open": Case(_windows_open_late, "OK", large=True),
    "window below 0, then open": Case(_window_goes_negative, "OK", large=True),
    "window by dribs": Case(_window_by_dribs, "OK", large=True),
    "window never opens": Case(
        _window_never_opens,
        "NO_ANSWER_TIMEOUT",
        large=True,
    ),
    "streams allowed late": Case(_streams_allowed_late, "OK"),
    "no streams allowed": Case(_no_streams, "CONNECT_FAILED NO_ANSWER_TIMEOUT"),
    # GOAWAY
    "GOAWAY, finishes": Case(_goaway_first_only(lambda s: 0x7FFFFFFF, _finish_all), "OK"),
    "GOAWAY, none processed": Case(_goaway_first_only(lambda s: 0, Wire.silence), "OK"),
    "GOAWAY, closes": Case(_goaway_first_only(lambda s: s, _close), "OK CONNECTION_LOST"),
    "GOAWAY, again and again": Case(_goaway_again, "CONNECT_FAILED REFUSED_STREAM"),
    "GOAWAY, then silence": Case(
        _goaway_first_only(lambda s: s, Wire.silence), "OK NO_ANSWER_TIMEOUT"
    ),
    # RST_STREAM
    "refuses streams for ever": Case(
        _each(lambda s: reset(s, 7)), "REFUSED_STREAM NO_ANSWER_TIMEOUT"
    ),
    "refuses streams for ever, at once": Case(
        _resets_on_headers, "REFUSED_STREAM NO_ANSWER_TIMEOUT", large=True
    ),
    "refuses two streams of three": Case(_refuses_two_of_three, "OK"),
    "cancels streams": Case(_each(lambda s: reset(s, 8)), "STREAM_RESET", every=True),
    "resets with an unknown code": Case(_each(lambda s: reset(s, 0xFFFFFFFF)), "STREAM_RESET"),
    "resets within the response": Case(_each(lambda s: head(s) + reset(s, 2)), "STREAM_RESET"),
    "answers early": Case(_early_answer, "RESOURCE_EXHAUSTED", large=True),
    # Ends of connections
    "closes on a request": Case(_close_within(lambda s: b""), LOST),
    "closes within a frame's header": Case(_close_within(lambda s: head(s)[:5]), LOST),
    "closes within HEADERS": Case(_close_within(lambda s: head(s)[:-3]), LOST),
    "closes after HEADERS": Case(_close_within(head), LOST),
    "closes within DATA": Case(
        _close_within(lambda s: head(s) + frame(DATA, 0, s, EMPTY_MESSAGE)[:-2]), LOST
    ),
    "closes after DATA": Case(
        _close_within(lambda s: head(s) + frame(DATA, 0, s, EMPTY_MESSAGE)), LOST
    ),
    "closes after each answer": Case(_close_within(answer), "OK " + LOST),
    "aborts": Case(_abort, LOST, large=True),
    "closes its half": Case(_half_close, LOST),
    "garbage": Case(_garbage, LOST),
    "silence": Case(Wire.silence, "NO_ANSWER_TIMEOUT", every=True),
    # Floods
    "PING flood": Case(_flood(lambda s: frame(PING, 0, 0, bytes(8))), LOST),
    "PING flood, unread": Case(_pings_unread, LOST),
    "SETTINGS flood": Case(_flood(lambda s: settings({INITIAL_WINDOW: 5})), LOST),
    "empty DATA flood": Case(_flood(lambda s: frame(DATA, 0, s), head), LOST),
    "flood of unknown frames": Case(_flood(lambda s: frame(77, 0, 0)), LOST),
    "flood on a closed stream": Case(
        _flood(lambda s: frame(DATA, 0, s, b"x"), answer), "OK " + LOST
    ),
    "flood of 1xx": Case(
        _flood(lambda s: headers(s, fields((":status", "103")))),
        "INVALID_RESPONSE " + LOST,
    ),
    # Answers that are none
    "DATA before HEADERS": Case(_each(lambda s: frame(DATA, 0, s, b"x")), "INVALID_RESPONSE"),
    "no :status": Case(_each(lambda s: headers(s, fields(("a", "b")))), "INVALID_RESPONSE"),
    ":status twice": Case(_each(lambda s: headers(s, STATUS_200 + GRPC)), "INVALID_RESPONSE"),
    ":status is no number": Case(
        _each(lambda s: headers(s, fields((":status", "2x0")))), "INVALID_RESPONSE"
    ),
    ":status in the trailers": Case(
        _each(lambda s: head(s) + headers(s, GRPC, 5)), "INVALID_RESPONSE"
    ),
    "trailers that do not end": Case(_each(lambda s: head(s) + head(s)), "INVALID_RESPONSE"),
    "upper-case names": Case(
        _each(lambda s: headers(s, GRPC + fields(("A", "b")))), "INVALID_RESPONSE"
    ),
    "content-type text/html": Case(
        _each(lambda s: headers(s, STATUS_200 + fields(("content-type", "text/html")), 5)),
        "INVALID_RESPONSE",
    ),
    "no content-type": Case(_each(lambda s: headers(s, STATUS_200, 5)), "INVALID_RESPONSE"),
    "no trailers": Case(
        _each(lambda s: head(s) + frame(DATA, END_STREAM, s, EMPTY_MESSAGE)), "INVALID_RESPONSE"
    ),
    "no grpc-status": Case(_each(lambda s: head(s) + trailers(s, ("a", "b"))), "INVALID_RESPONSE"),
    "grpc-status is no number": Case(
        _each(lambda s: head(s) + trailers(s, ("grpc-status", "ok"))), "INVALID_RESPONSE"
    ),
    "OK without a message": Case(
        _each(lambda s: head(s) + trailers(s, ("grpc-status", "0"))), "INVALID_RESPONSE"
    ),
    "compressed": Case(_each(lambda s: answer_body(s, b"\1" + bytes(4))), "INVALID_RESPONSE"),
    "two messages": Case(_each(lambda s: answer_body(s, bytes(10))), "INVALID_RESPONSE"),
    "message cut off": Case(_each(lambda s: answer_body(s, b"\0\0\0\0\7abc")), "INVALID_RESPONSE"),
    "message is no protobuf": Case(_each(lambda s: answer(s, b"\xff\xff")), "INVALID_RESPONSE"),
    "rejects more than was sent": Case(
        _each(lambda s: answer(s, b"\x0a\x03\x08\xff\x7f")), "INVALID_RESPONSE"
    ),
    "rejects fewer than none": Case(
        _each(lambda s: answer(s, b"\x0a\x0b\x08" + b"\xff" * 9 + b"\x01")), "INVALID_RESPONSE"
    ),
    "response says 4 GiB": Case(
        _each(lambda s: answer_body(s, b"\0\xff\xff\xff\xff")), "INVALID_RESPONSE"
    ),
    "response of 5 MiB": Case(
        _each(lambda s: answer_body(s, b"\0\0\x50\0\0" + bytes(5 << 20))), "INVALID_RESPONSE"
    ),
    "response of 3 MiB": Case(
        _each(lambda s: answer_body(s, b"\0\0\x30\0\0" + b"\x1a\0" * (3 << 19))),
        "OK",
    ),
    "responses of 24 MiB together": Case(
        _halves, "INVALID_RESPONSE NO_ANSWER_TIMEOUT CONNECTION_LOST"
    ),
    # Answers
    "1xx, then an answer": Case(
        _each(lambda s: headers(s, fields((":status", "100"))) + answer(s)), "OK"
    ),
    "HTTP 503": Case(_each(lambda s: headers(s, fields((":status", "503")), 5)), "UNAVAILABLE"),
    "HTTP 404 with a page": Case(
        _each(lambda s: headers(s, fields((":status", "404"))) + frame(DATA, 1, s, b"<html>" * 99)),
        "UNIMPLEMENTED",
    ),
    "HTTP 418": Case(_each(lambda s: headers(s, fields((":status", "418")), 5)), "UNKNOWN"),
    "HTTP 500 with grpc-status 8": Case(
        _each(
            lambda s: headers(
                s,
                fields(
                    (":status", "500"), ("content-type", "application/grpc"), ("grpc-status", "8")
                ),
                5,
            )
        ),
        "RESOURCE_EXHAUSTED",
    ),
    "grpc-status 4711": Case(_each(lambda s: answer(s, status="4711")), "UNKNOWN"),
    "trailers only": Case(
        _each(
            lambda s: headers(
                s, GRPC + fields(("grpc-status", "14"), ("grpc-message", "caf%C3%A9 100%")), 5
            )
        ),
        "UNAVAILABLE",
    ),
    "retry info": Case(
        _each(
            lambda s: (
                head(s)
                + trailers(s, ("grpc-status", "14"), ("grpc-status-details-bin", retry_info()))
            )
        ),
        "UNAVAILABLE",
    ),
    "broken details": Case(
        _each(
            lambda s: (
                head(s) + trailers(s, ("grpc-status", "14"), ("grpc-status-details-bin", "%%%="))
            )
        ),
        "UNAVAILABLE",
    ),
    "partial success": Case(_each(lambda s: answer(s, b"\x0a\x0a\x08\x03\x12\x06too ol")), "OK"),
    "gzip partial success": Case(
        _each(lambda s: packed(s, gzip.compress(b"\x0a\x0a\x08\x03\x12\x06too ol"))), "OK"
    ),
    "gzip of nothing": Case(_each(lambda s: packed(s, gzip.compress(b""))), "OK"),
    "gzip that is not": Case(_each(lambda s: packed(s, b"\x0a\x00")), "INVALID_RESPONSE"),
    "gzip cut short": Case(
        _each(lambda s: packed(s, gzip.compress(b"\x0a\x00")[:-5])), "INVALID_RESPONSE"
    ),
    "gzip bomb": Case(
        _each(lambda s: packed(s, gzip.compress(bytes(1 << 22)))), "INVALID_RESPONSE"
    ),
    "packed by what nobody knows": Case(
        _each(lambda s: packed(s, b"\x0a\x00", "br")), "INVALID_RESPONSE"
    ),
}

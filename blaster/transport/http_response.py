"""ResponseReader: a bounded parser of HTTP/1.1 responses (RFC 9112).

The bytes are untrusted: whatever they are, they lead to a Response, to BadResponse, or to a wait
for more, and no more is kept than the bounds below.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEAD_BYTES = 32 << 10
MAX_FIELDS = 128
MAX_BODY_BYTES = 4 << 20
MAX_CHUNK_LINE = 1 << 10
MAX_INFORMATIONAL = 8

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n\0]*)?")

Fields = dict[bytes, bytes]
"""Names in lower case; several values of a name joined by a comma."""


class BadResponse(Exception):
    """Malformed HTTP/1.1, or a response beyond the bounds."""


class Response(NamedTuple):
    """A response. ``reusable``: whether the connection may carry another request."""

    status: int
    fields: Fields
    body: bytes
    reusable: bool


class _Head(NamedTuple):
    status: int
    fields: Fields
    length: int
    """Bytes of the body, or one of the two below."""
    reusable: bool


_CHUNKED, _UNTIL_CLOSE = -1, -2


class ResponseReader:
    """Reads the responses to one request at a time."""

    def __init__(self) -> None:
        # The last head, unparsed: the heads of a peer seldom differ, except for the date.
        self._last_bytes = b""
        self._last: _Head | None = None
        self.reset()

    def reset(self) -> None:
        """Discard an unfinished response."""
        self._data = bytearray()
        self._head: _Head | None = None
        self._body = bytearray()
        self._searched = 0
        self._informational = 0
        self._in_trailers = False

    @property
    def began(self) -> bool:
        """Whether part of a response was received."""
        return bool(self._data or self._head)

    def feed(self, data: bytes) -> Response | None:
        """Return the response that ends with ``data``, or None if it is incomplete. Raises
        BadResponse."""
        if not self._data and self._head is None:
            end = data.find(b"\r\n\r\n")
            head = self._last
            if (
                head is not None
                and len(data) == end + 4 + head.length
                and data[:end] == self._last_bytes
            ):
                return Response(head.status, head.fields, data[end + 4 :], head.reusable)
        self._data += data
        while True:
            if self._head is None and not self._read_head():
                return None
            head = self._head
            assert head is not None
            if head.status >= 200:
                break
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise BadResponse("more interim responses (1xx) than one request can have")
            self._head = None
        if head.length == _CHUNKED:
            return self._finish(head) if self._read_chunks() else None
        wanted = head.length if head.length >= 0 else MAX_BODY_BYTES + 1
        self._take(min(wanted - len(self._body), len(self._data)))
        if len(self._body) > MAX_BODY_BYTES:
            raise BadResponse(f"a body of more than {MAX_BODY_BYTES:,} bytes")
        return self._finish(head) if len(self._body) == wanted else None

    def end(self) -> Response | None:
        """Return the response that the end of the connection completes; None if there is none."""
        head = self._head
        if head is None or head.length != _UNTIL_CLOSE:
            return None
        return self._finish(head)

    def _finish(self, head: _Head) -> Response:
        reusable = head.reusable and not self._data
        response = Response(head.status, head.fields, bytes(self._body), reusable)
        self.reset()
        return response

    def _take(self, size: int) -> None:
        self._body += self._data[:size]
        del self._data[:size]

    def _read_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self._data)
            start = bytes(self._data[:5])
            if start != b"HTTP/"[: len(start)]:
                raise BadResponse(f"no HTTP/1.1 response: it begins with {start!r}")
            if len(self._data) > MAX_HEAD_BYTES:
                raise BadResponse(f"a head of more than {MAX_HEAD_BYTES:,} bytes")
            return False
        if end > MAX_HEAD_BYTES:
            raise BadResponse(f"a head of more than {MAX_HEAD_BYTES:,} bytes")
        raw = bytes(self._data[:end])
        del self._data[: end + 4]
        self._searched = 0
        self._head = _parse_head(raw)
        if self._head.status >= 200 and self._head.length >= 0:
            self._last_bytes, self._last = raw, self._head
        return True

    def _read_chunks(self) -> bool:
        """Take complete chunks; return whether the last one and the trailers were among them."""
        while True:
            line_end = self._data.find(b"\r\n", 0, MAX_CHUNK_LINE)
            if line_end < 0:
                if len(self._data) >= MAX_CHUNK_LINE:
                    raise BadResponse("a chunk's size or a trailer that does not end")
                return False
            line = bytes(self._data[:line_end])
            if self._in_trailers:
                del self._data[: line_end + 2]
                self._searched += line_end
                if not line:
                    return True
                if _FIELD.fullmatch(line) is None or self._searched > MAX_HEAD_BYTES:
                    raise BadResponse("malformed or too many trailers")
                continue
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise BadResponse(f"a chunk of size {line[:20]!r}")
            size = int(match[1], 16)
            if len(self._body) + size > MAX_BODY_BYTES:
                raise BadResponse(f"a body of more than {MAX_BODY_BYTES:,} bytes")
            if size == 0:
                self._in_trailers = True
                del self._data[: line_end + 2]
                continue
            begin, end = line_end + 2, line_end + 2 + size
            if len(self._data) < end + 2:
                return False
            if self._data[end : end + 2] != b"\r\n":
                raise BadResponse("a chunk that is not as long as it says")
            self._body += self._data[begin:end]
            del self._data[: end + 2]


def _parse_head(raw: bytes) -> _Head:
    first, *lines = raw.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise BadResponse(f"no HTTP/1.1 response: it begins with {first[:20]!r}")
    if len(lines) > MAX_FIELDS:
        raise BadResponse(f"more than {MAX_FIELDS} header fields")
    fields: Fields = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadResponse(f"a malformed header field: {line[:20]!r}")
        name = field[1].lower()
        fields[name] = fields[name] + b", " + field[2] if name in fields else field[2]
    status = int(match[2])
    if status == 101:
        raise BadResponse("it switches to another protocol that nobody asked for")
    options = {option.strip().lower() for option in fields.get(b"connection", b"").split(b",")}
    reusable = b"close" not in options and (match[1] == b"1" or b"keep-alive" in options)
    length = _body_length(status, fields)
    return _Head(status, fields, length, reusable and length != _UNTIL_CLOSE)


def _body_length(status: int, fields: Fields) -> int:
    """RFC 9112, section 6.3."""
    if status < 200 or status in (204, 304):
        return 0
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if coding.lower() != b"chunked" or b"content-length" in fields:
            raise BadResponse(f"transfer-encoding {coding[:20]!r}, or a length beside it")
        return _CHUNKED
    if b"content-length" not in fields:
        return _UNTIL_CLOSE
    lengths = {length.strip() for length in fields[b"content-length"].split(b",")}
    text = lengths.pop()
    if lengths or re.fullmatch(rb"[0-9]{1,18}", text) is None:
        raise BadResponse("a malformed content-length")
    if int(text) > MAX_BODY_BYTES:
        raise BadResponse(f"a body of {int(text):,} bytes, more than {MAX_BODY_BYTES:,}")
    return int(text)

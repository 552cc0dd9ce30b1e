"""A small HTTP client for untrusted answers: bounded in bytes and in time.

It follows no redirects, uses no proxy and keeps no connection alive. Its deadline covers the whole
request, from connecting to the last byte: each read waits only for the time that remains.
http.client's timeout, and that of any client built on it, applies to each read alone.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from blaster import __version__
from blaster.address import is_host, without_secrets, written
from blaster.errors import BlasterError, UsageError
from blaster.transport.headers import hide
from blaster.units import quoted

TIMEOUT_S = 5.0
MAX_BYTES = 64 << 20
MAX_EXCERPT = 200


class RequestFailed(BlasterError):
    """No usable answer; the text names the request and what came instead. ``status``: the HTTP
    status, 0 if none came."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Base:
    """The base of a system's URLs: scheme, host, port and a path that may be empty."""

    url: str
    host: str
    port: int
    path: str
    tls: bool


def parse_base(option: str, url: str, default_port: int) -> Base:
    """Return the base of an http:// or https:// URL. UsageError for anything else."""
    wanted = f"{option} {quoted(without_secrets(url))}: must be http://HOST:PORT, a path may follow"
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"{wanted}, with a port from 1 to 65535") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise UsageError(wanted)
    if not is_host(host):
        raise UsageError(f"{wanted}: the host is malformed")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"{wanted}, without user, query or fragment")
    if not text.isprintable() or " " in text:
        raise UsageError(wanted)
    tls = parts.scheme == "https"
    port = port or (443 if tls and default_port else default_port)
    return Base(text.rstrip("/"), host, port, parts.path.rstrip("/"), tls)


@dataclass(slots=True)
class Client:
    """A client of one system. ``headers`` go with every request, such as a tenant's."""

    base: Base
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = TIMEOUT_S
    max_bytes: int = MAX_BYTES

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """Return the body of a 200. RequestFailed otherwise."""
        status, body = self.request("GET", path, query)
        if status != 200:
            raise RequestFailed(
                f"{self._request_line('GET', path)}: {status} {self._excerpt(body)}", status
            )
        return body

    def get_json(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON of a 200. RequestFailed otherwise, and if it is not JSON."""
        body = self.get(path, query)
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise RequestFailed(
                f"{self._request_line('GET', path)}: no JSON: {self._excerpt(body)}", 200
            ) from None

    def request(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: Any = None
    ) -> tuple[int, bytes]:
        """Return status and body, whatever the status; ``body`` is sent as JSON. RequestFailed if
        no whole answer came by the deadline, or it was too long."""
        target = self.base.path + path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {
            "Host": self.base.host
            if self.base.port in (80, 443)
            else written(self.base.host, self.base.port),
            "User-Agent": f"blaster/{__version__}",
            "Accept": "application/json, text/plain;q=0.9, */*;q=0.1",
            "Connection": "close",
            **({"Content-Type": "application/json"} if data is not None else {}),
            **self.headers,
        }
        connection = _Connection(self.base, time.monotonic() + self.timeout_s)
        try:
            connection.request(method, target, data, headers)
            response = connection.getresponse()
            answer = response.read(self.max_bytes + 1)
            if response.length:  # Content-Length promised more
                raise RequestFailed(f"{self._request_line(method, path)}: the answer was cut short")
        except TimeoutError:
            raise RequestFailed(
                f"{self._request_line(method, path)}: no whole answer within {self.timeout_s:g} s"
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RequestFailed(
                f"{self._request_line(method, path)}: {self._excerpt(why.encode())}"
            ) from None
        finally:
            connection.close()
        if len(answer) > self.max_bytes:
            raise RequestFailed(
                f"{self._request_line(method, path)}: more than {self.max_bytes:,} bytes"
            )
        return response.status, answer

    def _excerpt(self, body: bytes) -> str:
        """The beginning of an answer, without our headers' values, which it may repeat."""
        return hide(excerpt(body), tuple(self.headers.items()))

    def _request_line(self, method: str, path: str) -> str:
        return f"{method} {self.base.url}{path}"


def excerpt(body: bytes) -> str:
    """The beginning of an answer, as one printable line."""
    text = " ".join(body[: 4 * MAX_EXCERPT].decode(errors="replace").split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= MAX_EXCERPT else text[:MAX_EXCERPT] + "…"


class _Connection(http.client.HTTPConnection):
    """A connection whose every wait ends at ``until`` (of time.monotonic())."""

    def __init__(self, base: Base, until: float) -> None:
        super().__init__(base.host, base.port)
        self._base, self._until = base, until

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), _left(self._until))
        if self._base.tls:
            context = ssl.create_default_context()
            context.sslsocket_class = _DeadlineTlsSocket
            sock: Any = context.wrap_socket(plain, server_hostname=self.host)
        else:
            sock = _DeadlineSocket(fileno=plain.detach())
        sock.until = self._until
        sock.settimeout(_left(self._until))
        self.sock = sock


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _DeadlineSocket(socket.socket):
    until = 0.0

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(_left(self.until))
        return super().recv_into(*arguments)


class _DeadlineTlsSocket(ssl.SSLSocket):
    until = 0.0

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(_left(self.until))
        return super().recv_into(*arguments)

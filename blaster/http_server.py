"""HttpServer: a small HTTP server inside a process, bounded in connections and in time."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import socketserver
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from blaster.address import family
from blaster.text import clean

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
"""The type of Prometheus' text format."""

CONNECTIONS = 64
"""The most open connections; others are closed at once."""
TIMEOUT_S = 10.0
"""The time limit for sending a request, and for an idle connection."""
TURN_S = 30.0
"""The time limit of a connection for one request: idle time, request and answer."""
POLL_S = 0.1
"""How often the server checks whether to stop."""


_AUTHORITY = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[\w.-]+)(?::[0-9]{0,5})?", re.ASCII)
_LENGTH = re.compile("[0-9]{1,18}", re.ASCII)


class HttpServer(ThreadingHTTPServer):
    """Listens at once, and serves from :meth:`start` on, with a thread for each connection. OSError
    if it cannot listen on the address."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # with socketserver's 5 a burst of clients waits for SYN to be resent

    def __init__(self, host: str, port: int, handler: type[HttpHandler]) -> None:
        self.address_family = family(host)
        self._turns: dict[socket.socket, float] = {}
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._serving = False
        self._host = host.lower()
        super().__init__((host, port), handler)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    def refusal(self, hosts: Sequence[str], origin: str | None) -> tuple[int, str] | None:
        """Return the status and the reason for which a request is refused; None: it isn't.

        A web page must not use what only those on this machine should reach. A browser says in
        ``Origin`` which page sends a request, and in ``Host`` by which name: a name that the page's
        owner may have pointed here (DNS rebinding) is neither an address nor localhost.
        """
        if len(hosts) != 1:
            return 400, "exactly one Host, please"
        local = self._is_own_name(hosts[0])
        if origin is not None and not (local and origin.lower() == f"http://{hosts[0].lower()}"):
            return 403, f"not for pages of another origin: Origin {origin}"
        if not local and ipaddress.ip_address(str(self.server_address[0])).is_loopback:
            return 403, f"Host {hosts[0]}: must be localhost or an address"
        return None

    def _is_own_name(self, authority: str) -> bool:
        """Whether ``authority`` (HOST or HOST:PORT) has an address, localhost or our own host."""
        host = _AUTHORITY.fullmatch(authority.lower())
        if host is None:
            return False
        name = host["name"].strip("[]")
        if name in (self._host, "localhost") or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def start(self) -> None:
        """Serve from now on; clients that connected before have waited. Later calls do nothing."""
        if not self._serving:
            self._serving = True
            threading.Thread(target=self.serve_forever, args=(POLL_S,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening; answers in progress are cut off."""
        if self._serving:
            self.shutdown()
        self.server_close()

    def begin(self, connection: socket.socket) -> None:
        """Start the time limit of a request: see TURN_S."""
        self._turns[connection] = time.monotonic()

    def end(self, connection: socket.socket) -> None:
        """Stop the time limit: the request was answered, or the connection ended."""
        self._turns.pop(connection, None)

    def service_actions(self) -> None:
        """Close connections past their time limit, such as those that send a byte now and then."""
        until = time.monotonic() - TURN_S
        for connection, begun in list(self._turns.items()):
            if begun < until:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        # Not HTTPServer's, which looks up its own name in the DNS.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class HttpHandler(BaseHTTPRequestHandler):
    """A connection of an HttpServer."""

    sys_version = ""
    timeout = TIMEOUT_S
    disable_nagle_algorithm = True  # else the body waits until the head is acknowledged
    server: HttpServer

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        refusal = self._refusal()
        if refusal is None:
            return True
        self.close_connection = True
        self.answer(refusal[0], "text/plain", f"{clean(refusal[1])}\n".encode())
        return False

    def _refusal(self) -> tuple[int, str] | None:
        """The status and the reason for which the head of the request is refused."""
        if "Transfer-Encoding" in self.headers:
            return 501, "Transfer-Encoding is not supported: Content-Length, please"
        lengths = set(self.headers.get_all("Content-Length", []))
        if len(lengths) > 1 or not all(_LENGTH.fullmatch(length) for length in lengths):
            return 400, "Content-Length: must be one number"
        hosts = self.headers.get_all("Host", [])
        if not hosts and self.request_version != "HTTP/1.1":  # RFC 9112, 3.2
            return None if "Origin" not in self.headers else (403, "not for web pages")
        return self.server.refusal(hosts, self.headers.get("Origin"))

    def handle_one_request(self) -> None:
        self.server.begin(self.connection)
        try:
            super().handle_one_request()
        finally:
            self.server.end(self.connection)

    def answer(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
        """Send the whole answer; without the body for HEAD."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

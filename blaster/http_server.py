"""HttpServer: by HTTP a process says what it knows, to few who ask, and to nobody for too long."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from blaster.address import family

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
"""The type of Prometheus' text format."""

CONNECTIONS = 64
"""At most so many at a time; more are closed at once."""
TIMEOUT_S = 10.0
"""How long a client may take to send a request, and an idle connection stays open."""
TURN_S = 30.0
"""How long a connection may take for one request, its idle time before and the answer included."""
POLL_S = 0.1
"""How often the server looks whether it is to stop."""


class HttpServer(ThreadingHTTPServer):
    """Listens at once, and serves from :meth:`start` on, a thread for each connection. OSError when
    the address can't be listened on."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # with socketserver's 5 a burst of clients waits for SYN to be resent

    def __init__(self, host: str, port: int, handler: type[HttpHandler]) -> None:
        self.address_family = family(host)
        self._turns: dict[socket.socket, float] = {}
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._serving = False
        super().__init__((host, port), handler)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def start(self) -> None:
        """Answers from now on; whoever connected before has waited. Once is enough."""
        if not self._serving:
            self._serving = True
            threading.Thread(target=self.serve_forever, args=(POLL_S,), daemon=True).start()

    def stop(self) -> None:
        """Stops listening; answers in flight are cut."""
        if self._serving:
            self.shutdown()
        self.server_close()

    def begin(self, connection: socket.socket) -> None:
        """Waits for a request from now on: see TURN_S."""
        self._turns[connection] = time.monotonic()

    def end(self, connection: socket.socket) -> None:
        """The request was answered, or the connection ended."""
        self._turns.pop(connection, None)

    def service_actions(self) -> None:
        """Ends the connections that keep a thread for too long, a byte now and then."""
        until = time.monotonic() - TURN_S
        for connection, begun in list(self._turns.items()):
            if begun < until:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        # Past HTTPServer's, which looks its own name up in the DNS.
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
        """A client that went away is no news."""


class HttpHandler(BaseHTTPRequestHandler):
    """One connection of an HttpServer's."""

    sys_version = ""
    timeout = TIMEOUT_S
    disable_nagle_algorithm = True  # the body is not to wait until the head has been acknowledged
    server: HttpServer

    def handle_one_request(self) -> None:
        self.server.begin(self.connection)
        try:
            super().handle_one_request()
        finally:
            self.server.end(self.connection)

    def answer(self, status: int, content_type: str, body: bytes, **headers: str) -> None:
        """The whole answer; to HEAD without the body."""
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
        """Quiet: being asked is no event."""

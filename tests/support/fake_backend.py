"""An HTTP server that answers as a test says: shapes as recorded, and every way to go wrong."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote


@dataclass
class Reply:
    """An answer: ``body`` as it is, or as JSON. ``drip_s``: a pause before each of its bytes;
    ``promised``: more bytes than there are; ``silent``: none at all, the connection stays open."""

    status: int = 200
    body: Any = b""
    drip_s: float = 0.0
    promised: int = 0
    silent: bool = False


Answerer = Callable[[str, str, dict[str, str], Any], Any]


@dataclass
class Fake:
    """``answer(method, path, query, body)`` gives a Reply, a body, or None for a 404."""

    url: str
    answer: Answerer
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def fake_backend(answer: Answerer) -> Iterator[Fake]:
    """Serves on a free port of loopback until the context is left."""
    ending = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, text = self.path.partition("?")
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            query = dict(parse_qsl(text))
            fake.asked.append((self.command, unquote(path), query, body))
            fake.headers.append(dict(self.headers))
            said = fake.answer(self.command, unquote(path), query, body)
            reply = said if isinstance(said, Reply) else Reply(404 if said is None else 200, said)
            if reply.silent:
                ending.wait(30)
                return
            data = reply.body
            if not isinstance(data, bytes):
                data = data.encode() if isinstance(data, str) else json.dumps(data).encode()
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(data) + reply.promised))
            self.end_headers()
            if not reply.drip_s:
                self.wfile.write(data)
                return
            for byte in data:
                if ending.wait(reply.drip_s):
                    return
                self.wfile.write(bytes([byte]))

        do_POST = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    fake = Fake(f"http://127.0.0.1:{server.server_address[1]}", answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        ending.set()
        server.shutdown()
        server.server_close()
        thread.join()

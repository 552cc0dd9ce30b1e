"""Metrics of a run in progress: a port to scrape, and pushes over OTLP/HTTP.

The run's own loop makes the metrics, once an interval; threads only serve them. They are started
with the first interval, after the workers were forked.
"""

from __future__ import annotations

import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from blaster.address import is_host, without_secrets, written
from blaster.engine.control import Progress
from blaster.engine.plan import Plan
from blaster.engine.results import Configuration
from blaster.errors import UsageError
from blaster.http_server import PROMETHEUS, HttpHandler, HttpServer
from blaster.listener import Listener
from blaster.report import otlp_metrics
from blaster.report.metrics import Metric, exposition, metrics
from blaster.units import quoted

TIMEOUT_S = 5.0
"""The time limit of a push."""
PUSH_S = 5.0
"""The interval between pushes; there is one more at the end."""


class MetricsExporter(Listener):
    """Serves and pushes metrics, whichever is asked for. A context manager."""

    def __init__(self, address: str | None, otlp_url: str | None, *, quiet: bool = False) -> None:
        """Listen at once, so that a port that is taken is known before the run, and print where,
        unless ``quiet``. Raises UsageError."""
        self._url = None if otlp_url is None else _push_url(otlp_url)
        self._server = None if address is None else _listen(address, quiet)
        self._configuration: Configuration | None = None
        self._latest: list[Metric] = []
        self._started_ns = 0
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._over = False
        self._failed = 0

    def __enter__(self) -> MetricsExporter:
        return self

    def __exit__(self, *raised: object) -> None:
        self._over = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(2 * TIMEOUT_S)
        if self._server is not None:
            self._server.stop()
        if self._failed:
            url = quoted(without_secrets(self._url or ""))
            print(f"blaster: --otlp-metrics {url}: {self._failed} pushes failed", file=sys.stderr)

    def begin(self, plan: Plan, configuration: Configuration) -> None:
        """Keep the configuration, whose values label all metrics."""
        self._configuration = configuration

    def update(self, progress: Progress) -> None:
        """Make the metrics of an interval; serve them from the first one on."""
        if self._server is None and self._url is None:
            return
        assert self._configuration is not None
        endpoint, transport = self._configuration.endpoint, self._configuration.transport
        self._latest = metrics(progress, endpoint, transport)
        if self._server is not None:
            self._server.text = exposition(self._latest).encode()
            self._server.start()
        if self._url is not None and self._thread is None:
            self._started_ns = time.time_ns() - round(progress.point.t * 1e9)
            self._thread = threading.Thread(target=self._push, daemon=True)
            self._thread.start()

    def _push(self) -> None:
        while True:
            over = self._over
            body = otlp_metrics.request(self._latest, self._started_ns, time.time_ns())
            self._failed += not _post(self._url or "", body)
            if over:
                return
            self._wake.wait(PUSH_S)


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""As the transports: http_proxy and https_proxy are not used."""


def _post(url: str, body: bytes) -> bool:
    headers = {"Content-Type": "application/x-protobuf", "User-Agent": "blaster"}
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            return bool(200 <= answer.status < 300)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def _push_url(text: str) -> str:
    """The URL, with OTLP/HTTP's path of metrics if it has none."""
    try:
        parts = urllib.parse.urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.port != 0 and parts.username is None
        good = good and parts.hostname is not None and is_host(parts.hostname)
    except ValueError:
        good = False
    if not good or any(c.isspace() or not c.isprintable() for c in text):
        raise UsageError(
            f"--otlp-metrics {quoted(without_secrets(text))}: must be http://HOST:PORT of a "
            "receiver of OTLP/HTTP, such as http://localhost:4318"
        )
    path = parts.path if parts.path not in ("", "/") else "/v1/metrics"
    return urllib.parse.urlunsplit(parts._replace(path=path))


def _listen(address: str, quiet: bool) -> _Server:
    host, colon, port = address.rpartition(":")
    host = host.strip("[]") if colon else "127.0.0.1"
    if not port.isdigit() or int(port) > 65535 or not host:
        raise UsageError(
            f"--metrics-port {quoted(address)}: must be a port, 0 for a free one, or HOST:PORT"
        )
    try:
        server = _Server(host, int(port))
    except OSError as error:
        raise UsageError(
            f"--metrics-port {quoted(address)}: can't listen there: {error.strerror or error}"
        ) from None
    if not quiet:
        print(
            f"metrics at http://{written(host, server.port)}/metrics", file=sys.stderr, flush=True
        )
    return server


class _Server(HttpServer):
    def __init__(self, host: str, port: int) -> None:
        self.text = b""
        super().__init__(host, port, _Handler)


class _Handler(HttpHandler):
    server_version = "blaster"
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] in ("/", "/metrics"):
            self.answer(200, PROMETHEUS, self.server.text)
        else:
            self.answer(404, "text/plain", b"not found; see /metrics\n")

    do_HEAD = do_GET

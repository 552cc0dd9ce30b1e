"""The sink's HTTP API: what it counted, as JSON and for Prometheus; a freeze on request; and what
BeTrace's API offers."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote

from blaster.address import cannot_listen
from blaster.errors import UsageError
from blaster.http_server import PROMETHEUS, HttpHandler, HttpServer
from blaster.sink.betrace import Betrace
from blaster.sink.counts import SinkCounts
from blaster.sink.fault_control import FaultControl
from blaster.sink.ingest import MOST_BYTES

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
MOST_FREEZE_S = 600.0


def prometheus(counts: SinkCounts, more: list[str]) -> str:
    """The counts, and lines of others, in Prometheus' text format, version 0.0.4."""
    lines = list(more)

    def metric(name: str, kind: str, what: str, *samples: tuple[str, float]) -> None:
        lines.append(f"# HELP {name} {what}")
        lines.append(f"# TYPE {name} {kind}")
        lines.extend(f"{name}{labels} {value}" for labels, value in samples)

    def counter(name: str, what: str, value: float) -> None:
        metric(name, "counter", what, ("", value))

    counter("blaster_sink_requests_total", "Well-formed requests.", counts.requests)
    counter(
        "blaster_sink_malformed_requests_total",
        "Requests that were no ExportTraceServiceRequest.",
        counts.malformed,
    )
    counter("blaster_sink_bytes_total", "Bytes of the well-formed requests.", counts.bytes)
    counter("blaster_sink_spans_total", "Spans of the well-formed requests.", counts.spans)
    counter(
        "blaster_sink_duplicate_spans_total",
        "Spans whose trace and span ID came before, of those checked.",
        counts.duplicates,
    )
    counter(
        "blaster_sink_invalid_spans_total",
        "Spans with a missing, zero or mis-sized ID.",
        counts.invalid,
    )
    metric(
        "blaster_sink_violations_total",
        "counter",
        "Spans that break a rule.",
        *((f'{{rule="{rule}"}}', n) for rule, n in counts.violations_by_rule.items()),
    )
    metric(
        "blaster_sink_duplicate_sampling_ratio",
        "gauge",
        "Share of the IDs that are checked for duplicates; 1 is exact.",
        ("", 1 / counts.sampling),
    )
    counter("process_cpu_seconds_total", "CPU time of this process.", time.process_time())
    resident = _resident_bytes()
    if resident is not None:
        metric("process_resident_memory_bytes", "gauge", "Resident memory.", ("", resident))
    return "\n".join(lines) + "\n"


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


class ApiServer:
    """Serves the counts over HTTP from threads of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        betrace: Betrace,
        freeze: Callable[[float], None],
        faults: FaultControl,
    ) -> None:
        """``freeze`` (for so many seconds) is called from any thread."""
        self._host = host
        self._port = port
        self._betrace = betrace
        self._freeze = freeze
        self._faults = faults
        self._server: _Server | None = None

    def start(self) -> int:
        """Listens; returns the port. Raises UsageError when the address can't be listened on."""
        try:
            self._server = _Server(
                self._host, self._port, self._betrace, self._freeze, self._faults
            )
        except OSError as error:
            raise cannot_listen("--api-port", self._host, self._port, error) from None
        self._server.start()
        return self._server.port

    def stop(self) -> None:
        """Stops listening; answers in flight are cut."""
        if self._server is not None:
            self._server.stop()


class _Server(HttpServer):
    def __init__(
        self,
        host: str,
        port: int,
        betrace: Betrace,
        freeze: Callable[[float], None],
        faults: FaultControl,
    ) -> None:
        self.betrace = betrace
        self.freeze = freeze
        self.faults = faults
        super().__init__(host, port, _Handler)


class _Handler(HttpHandler):
    protocol_version = "HTTP/1.1"
    server_version = "blaster-sink"
    server: _Server

    def do_GET(self) -> None:
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # a body that nobody asked for is not read
        path = self.path.partition("?")[0]
        if path in ("/", "/v1/counts"):
            self._answer(200, JSON, json.dumps(self.server.betrace.counts().as_dict()) + "\n")
        elif path == "/metrics":
            betrace = self.server.betrace
            self._answer(200, PROMETHEUS, prometheus(betrace.counts(), betrace.metrics()))
        elif path == "/v1/faults":
            self._answer(200, JSON, json.dumps(self.server.faults.status()) + "\n")
        elif path == "/healthz":
            self._answer(200, TEXT, "ok\n")
        elif not self._answered_by_betrace("GET", None):
            known = (
                "/v1/counts, /v1/faults, /v1/rules, /v1/violations, /v1/health, /metrics, /healthz"
            )
            self._answer(404, TEXT, f"nothing here; there are {known}\n")

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.close_connection = True
        self._answer(405, TEXT, "only GET and HEAD\n", Allow="GET, HEAD")

    def _answered_by_betrace(self, method: str, body: Any) -> bool:
        path, _, text = self.path.partition("?")
        query = {key: values[0] for key, values in parse_qs(text).items()}
        answer = self.server.betrace.answer(method, unquote(path), query, body)
        if answer is None:
            return False
        self._answer(answer[0], JSON, json.dumps(answer[1]) + "\n")
        return True

    def _body(self) -> Any:
        """The JSON of the request's body. ValueError where there is none, or too much of it."""
        self.close_connection = True  # until the body has been read
        length = int(self.headers.get("Content-Length") or "-1")
        if not 0 <= length <= MOST_BYTES:
            raise ValueError(f"a body with Content-Length, of at most {MOST_BYTES:,} bytes, please")
        data = self.rfile.read(length)
        if len(data) < length:
            raise ValueError("the body ended early")
        self.close_connection = self.headers.get("Connection", "").lower() == "close"
        return json.loads(data)

    def do_DELETE(self) -> None:
        self.close_connection = True  # a body is not read
        if not self._answered_by_betrace("DELETE", None):
            self._refuse()

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        if path in ("/v1/rules", "/v1/spans"):
            try:
                body = self._body()
            except (ValueError, RecursionError) as error:
                said = {"code": 3, "message": str(error), "details": []}
                self._answer(400, JSON, json.dumps(said) + "\n")
                return
            self._answered_by_betrace("POST", body)
            return
        if path == "/v1/faults":
            self._set_faults()
            return
        if path != "/v1/freeze":
            self._refuse()
            return
        self.close_connection = True  # a body is not read
        try:
            (text,) = parse_qs(query).get("seconds", ["1"])
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= MOST_FREEZE_S:
            self._answer(400, TEXT, f"seconds: 0 to {MOST_FREEZE_S:g}\n")
            return
        self.server.freeze(seconds)
        self._answer(200, JSON, json.dumps({"seconds": seconds}) + "\n")

    def _set_faults(self) -> None:
        """Takes {"faults": ["delay=5ms", …], "seed": 0}; what was in force is no more."""
        try:
            body = self._body()
            if not isinstance(body, dict) or not body.keys() <= {"faults", "seed"}:
                raise ValueError('an object, please: {"faults": ["delay=5ms"], "seed": 0}')
            texts, seed = body.get("faults", []), body.get("seed", 0)
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError("faults: a list of texts, please")
            if type(seed) is not int:
                raise ValueError("seed: an integer, please")
            self.server.faults.set(texts, seed)
        except (ValueError, RecursionError, UsageError) as error:
            self._answer(400, TEXT, f"{error}\n")
            return
        self._answer(200, JSON, json.dumps(self.server.faults.status()) + "\n")

    do_PUT = do_PATCH = do_OPTIONS = _refuse

    def _answer(self, status: int, content_type: str, text: str, **headers: str) -> None:
        self.answer(status, content_type, text.encode(), **headers)

"""Peers for the tests, each in a process of its own: receivers and reverse proxies.

Receivers: the Collector, Jaeger, rotel and a plain recorder. Proxies: nginx and haproxy.

Every one listens on free loopback ports, is ready when its context is entered, and is gone when
the context is left, even where the tests themselves are killed.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

if TYPE_CHECKING:
    from support.certificates import Pair

TRACES = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

P = TypeVar("P", bound="Peer")

READY_S = 15.0
STOP_S = 10.0

# Becomes the peer, after asking the kernel (PR_SET_PDEATHSIG, 1) to kill it with its parent. Not a
# preexec_fn: that would run Python between fork and exec of a process that may have threads.
_TIED_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


class PeerFailed(Exception):
    """A peer ended or did not get ready; says so with the end of its log."""


class Peer:
    """A receiver in a process of its own."""

    grpc_port: int
    http_port: int

    def __init__(
        self, command: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self._log = folder / f"{Path(command[0]).name}.log"
        # No variable of the tests' own environment may configure a peer.
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self._env = {**base, **(env or {})}
        self._start(command)

    def _start(self, command: Sequence[str | Path]) -> None:
        tied = [sys.executable, "-ISc", _TIED_TO_PARENT, str(os.getpid()), *map(str, command)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                tied, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=self._env
            )

    @property
    def pid(self) -> int:
        """The peer's process ID."""
        return self._process.pid

    @property
    def endpoint(self) -> str:
        """The URL of its OTLP/gRPC receiver."""
        return f"http://127.0.0.1:{self.grpc_port}"

    def log(self) -> str:
        """Return all that the peer has printed so far."""
        return self._log.read_text(errors="replace")

    def wait_until_ready(self) -> None:
        """Returns once the peer takes requests; raises PeerFailed where it does not get there."""
        raise NotImplementedError

    def metrics(self) -> dict[str, float]:
        """The peer's own counters, by name without `_total`, summed over their labels."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the peer: SIGTERM, and SIGKILL where that does not help. Once or more."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Ends the peer with SIGKILL, as a crash would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(STOP_S)

    def wait_for(self, name: str, value: float, timeout_s: float = 15.0) -> dict[str, float]:
        """Waits until the counter `name` is at least `value`; returns all, reached or not."""
        until = time.monotonic() + timeout_s
        while (found := self.metrics()).get(name, 0) < value and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def _wait_until_open(self, *ports: int) -> None:
        until = time.monotonic() + READY_S
        for port in ports:
            while not _is_open(port):
                self._check(until)
                time.sleep(0.02)
        # Something else may have answered on the port that the peer could not get.
        self._check(until)

    def _check(self, until: float) -> None:
        if self._process.poll() is not None:
            raise PeerFailed(
                f"{self._log.name}: ended with {self._process.returncode}: {self._end()}"
            )
        if time.monotonic() > until:
            raise PeerFailed(f"{self._log.name}: not ready in {READY_S} s: {self._end()}")

    def _end(self) -> str:
        return self.log()[-2000:]


class Collector(Peer):
    """The OpenTelemetry Collector. Its counters: `otelcol_receiver_accepted_spans`,
    `otelcol_receiver_refused_spans`, `otelcol_exporter_sent_spans` and so on."""

    def __init__(self, binary: Path, folder: Path, config: Mapping[str, Any]) -> None:
        self.grpc_port, self.http_port, self.metrics_port = free_ports(3)
        file = folder / "collector.json"
        protocols = {
            "grpc": {"endpoint": f"127.0.0.1:{self.grpc_port}"},
            "http": {"endpoint": f"127.0.0.1:{self.http_port}"},
        }
        prometheus = {"host": "127.0.0.1", "port": self.metrics_port}
        readers = [{"pull": {"exporter": {"prometheus": prometheus}}}]
        ports = {
            "receivers": {"otlp": {"protocols": protocols}},
            "service": {"telemetry": {"metrics": {"level": "detailed", "readers": readers}}},
        }
        file.write_text(json.dumps(merged(ports, config), indent=1))
        super().__init__([binary, "--config", file], folder)

    def wait_until_ready(self) -> None:
        self._wait_until_open(self.metrics_port, self.grpc_port, self.http_port)

    def metrics(self) -> dict[str, float]:
        return prometheus_sums(_get(f"http://127.0.0.1:{self.metrics_port}/metrics"))


class Jaeger(Peer):
    """Jaeger v2 with its storage in memory. Its counters are a Collector's."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.grpc_port, self.http_port, self.query_port, query_grpc, self.metrics_port = free_ports(
            5
        )
        prometheus = {"host": "127.0.0.1", "port": self.metrics_port}
        readers = [{"pull": {"exporter": {"prometheus": prometheus}}}]
        protocols = {
            "grpc": {"endpoint": f"127.0.0.1:{self.grpc_port}"},
            "http": {"endpoint": f"127.0.0.1:{self.http_port}"},
        }
        config = {
            "extensions": {
                "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 100_000}}}},
                "jaeger_query": {
                    "storage": {"traces": "memory"},
                    "http": {"endpoint": f"127.0.0.1:{self.query_port}"},
                    "grpc": {"endpoint": f"127.0.0.1:{query_grpc}"},
                },
            },
            "receivers": {"otlp": {"protocols": protocols}},
            "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
            "service": {
                "extensions": ["jaeger_storage", "jaeger_query"],
                "telemetry": {"metrics": {"level": "detailed", "readers": readers}},
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
                },
            },
        }
        file = folder / "jaeger.json"
        file.write_text(json.dumps(config, indent=1))
        super().__init__([binary, "--config", file], folder)

    def wait_until_ready(self) -> None:
        self._wait_until_open(self.metrics_port, self.query_port, self.grpc_port, self.http_port)

    def metrics(self) -> dict[str, float]:
        return prometheus_sums(_get(f"http://127.0.0.1:{self.metrics_port}/metrics"))


class CountingReceiver(Peer):
    """A receiver that keeps every request; see receiver.py."""

    def __init__(self, folder: Path, status: int, response: bytes, delay_s: float) -> None:
        self._records = folder / "requests"
        script = Path(__file__).with_name("receiver.py")
        options = ["--status", str(status), "--response", response.hex(), "--delay", str(delay_s)]
        super().__init__([sys.executable, script, self._records, *options], folder)

    def wait_until_ready(self) -> None:
        until = time.monotonic() + READY_S
        while not (said := self.log()).endswith("\n"):
            self._check(until)
            time.sleep(0.02)
        try:
            self.grpc_port = int(said)
        except ValueError:
            raise PeerFailed(f"receiver.py: {said}") from None

    def payloads(self, method: str = TRACES) -> list[bytes]:
        """The bytes of every request to `method` so far, as they came in."""
        data = self._records.read_bytes()
        found = []
        at = 0
        while at + 8 <= len(data):
            name_length, length = struct.unpack_from("<II", data, at)
            start = at + 8 + name_length
            at = start + length
            # The last one may still be in the writing.
            if at <= len(data) and data[start - name_length : start] == method.encode():
                found.append(data[start:at])
        return found

    def requests(self) -> list[ExportTraceServiceRequest]:
        """Every trace request so far, decoded with opentelemetry-proto."""
        return [ExportTraceServiceRequest.FromString(payload) for payload in self.payloads()]

    def spans(self) -> list[Span]:
        """Every span so far."""
        return [
            span
            for request in self.requests()
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> dict[str, float]:
        return {"requests": len(self.payloads()), "spans": len(self.spans())}


class Proxy(Peer):
    """A reverse proxy: `grpc_port` speaks HTTP/2 and passes gRPC on, `http_port` HTTP/1.1.

    A port whose upstream isn't given is 0.
    """

    def __init__(
        self, command: Sequence[str | Path], folder: Path, grpc_port: int, http_port: int
    ) -> None:
        self.grpc_port, self.http_port = grpc_port, http_port
        super().__init__(command, folder)

    def wait_until_ready(self) -> None:
        self._wait_until_open(*filter(None, (self.grpc_port, self.http_port)))


class Haproxy(Proxy):
    """haproxy, whose configuration can be reloaded."""

    def __init__(self, binary: Path, config: Path, grpc_port: int, http_port: int) -> None:
        self._command = [binary, "-db", "-f", config]
        self._retired: list[subprocess.Popen[bytes]] = []
        super().__init__(self._command, config.parent, grpc_port, http_port)

    def reload(self) -> None:
        """Start a successor on the same ports and end this process as a reload does: it accepts no
        more connections and sends GOAWAY(NO_ERROR) on those that it has."""
        self._retired.append(self._process)
        self._start([*self._command, "-sf", str(self.pid)])

    def stop(self) -> None:
        super().stop()
        for process in self._retired:
            process.kill()
            process.wait(STOP_S)


class Rotel(Peer):
    """rotel. Its counters: `rotel_receiver_accepted_spans`, `rotel_receiver_refused_spans`,
    `rotel_exporter_sent_spans`; it gives them every 10 s, and the last ones when it is stopped."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        own: CountingReceiver,
        exporter_endpoint: str | None,
        options: Sequence[str],
    ) -> None:
        self._own = own
        self.grpc_port, self.http_port = free_ports(2)
        env = {"ROTEL_EXPORTER_OWN_ENDPOINT": own.endpoint}
        if exporter_endpoint is not None:
            env["ROTEL_EXPORTER_OUT_ENDPOINT"] = exporter_endpoint
        settings = {
            "pid-file": folder / "rotel.pid",
            "otlp-grpc-endpoint": f"127.0.0.1:{self.grpc_port}",
            "otlp-http-endpoint": f"127.0.0.1:{self.http_port}",
            "exporters": f"own:otlp,out:{'otlp' if exporter_endpoint else 'blackhole'}",
            "exporters-traces": "out",
            "exporters-metrics": "own",
        }
        given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        given += ["--enable-internal-telemetry", *options]
        super().__init__([binary, "start", *given], folder, env)

    def wait_until_ready(self) -> None:
        self._wait_until_open(self.grpc_port, self.http_port)

    def metrics(self) -> dict[str, float]:
        latest: dict[tuple[str, bytes], float] = {}
        for payload in self._own.payloads(METRICS):
            for resource in ExportMetricsServiceRequest.FromString(payload).resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in metric.sum.data_points:
                            labels = b"".join(
                                sorted(label.SerializeToString() for label in point.attributes)
                            )
                            latest[metric.name, labels] = point.as_int or point.as_double
        sums: dict[str, float] = defaultdict(float)
        for (name, _labels), value in latest.items():
            sums[name] += value
        return dict(sums)


@contextmanager
def collector(
    binary: Path,
    *,
    exporter_endpoint: str | None = None,
    queue_size: int | None = None,
    file: Path | None = None,
    memory_limit_mib: int | None = None,
    tail_sampling: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Iterator[Collector]:
    """Runs the Collector that `tests/collector/build` built (the fixture `collector_binary`).

    exporter_endpoint: spans go on to this OTLP/gRPC URL; otherwise nowhere.
    queue_size: requests that the queue before that exporter holds.
    file: spans are also written here as lines of OTLP JSON.
    memory_limit_mib: the memory limiter refuses above it; 1 refuses everything.
    tail_sampling: the settings of that processor.
    overrides: anything else of the Collector's configuration, merged into it last.
    """
    processors: dict[str, Any] = {}
    if memory_limit_mib is not None:
        processors["memory_limiter"] = {
            "check_interval": "100ms",
            "limit_mib": memory_limit_mib,
            "spike_limit_mib": memory_limit_mib // 5,
        }
    if tail_sampling is not None:
        processors["tail_sampling"] = tail_sampling
    exporters: dict[str, Any] = {}
    if exporter_endpoint is not None:
        exporters["otlp_grpc"] = {"endpoint": exporter_endpoint, "tls": {"insecure": True}}
        if queue_size is not None:
            exporters["otlp_grpc"]["sending_queue"] = {"queue_size": queue_size}
    if file is not None:
        exporters["file"] = {"path": str(file), "flush_interval": "100ms"}
    exporters = exporters or {"nop": {}}
    config = {
        "processors": processors,
        "exporters": exporters,
        "service": {
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": list(processors),
                    "exporters": list(exporters),
                }
            }
        },
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="collector-")))
        yield _started(stack, Collector(binary, folder, merged(config, overrides or {})))


@contextmanager
def jaeger(binary: Path) -> Iterator[Jaeger]:
    """Runs the Jaeger that `tests/jaeger/build` built (the fixture `jaeger_binary`)."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jaeger-")))
        yield _started(stack, Jaeger(binary, folder))


@contextmanager
def rotel(
    binary: Path, *, exporter_endpoint: str | None = None, options: Sequence[str] = ()
) -> Iterator[Rotel]:
    """Runs rotel (the fixture `rotel_binary`); its spans go on to `exporter_endpoint` (OTLP/gRPC)
    or nowhere.

    `options` are more of the options of `rotel-agent start`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rotel-")))
        own = stack.enter_context(counting_receiver())
        yield _started(stack, Rotel(binary, folder, own, exporter_endpoint, options))


@contextmanager
def nginx(
    binary: Path,
    *,
    grpc_upstream: int | None = None,
    http_upstream: int | None = None,
    tls: Pair | None = None,
    keepalive_requests: int = 1000,
    settings: Sequence[str] = (),
) -> Iterator[Proxy]:
    """Run Debian's nginx (the fixture `nginx_binary`) in front of these ports on loopback.

    tls: the certificate of both of its ports; otherwise they are plaintext.
    keepalive_requests: after so many requests a connection ends with GOAWAY(NO_ERROR) and the last
        stream's ID, or with `Connection: close`; 1000 is nginx's own default.
    settings: more directives of its `http` block, as `client_max_body_size 0`.
    """
    ports = _proxy_ports(grpc_upstream, http_upstream)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nginx-")))
        certificate = ""
        if tls:
            certificate = f"ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key};"
        passes = (
            ("grpc", grpc_upstream, ports[0], "http2", "grpc_pass grpc://grpc;"),
            (
                *("http", http_upstream, ports[1], ""),
                'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://http;',
            ),
        )
        servers = [
            f"upstream {name} {{ server 127.0.0.1:{upstream}; keepalive 64; }}\n"
            f"server {{ listen 127.0.0.1:{port} {protocol} {'ssl' if tls else ''}; {certificate}"
            f" location / {{ {passing} }} }}\n"
            for name, upstream, port, protocol, passing in passes
            if upstream is not None
        ]
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
        more = "".join(f"{setting};\n" for setting in settings)
        config = folder / "nginx.conf"
        # One process, so that none is left where the tests are killed. As root it would give up
        # its rights, and with them its own folder.
        config.write_text(
            f"daemon off; master_process off; pid {folder / 'pid'};\n"
            f"{'user root;' if os.geteuid() == 0 else ''}\n"
            "events {}\n"
            f"http {{ access_log off; {temporary}\nkeepalive_requests {keepalive_requests};\n"
            f"{more}{''.join(servers)}}}\n"
        )
        command = [binary, "-p", folder, "-c", config, "-e", "stderr"]
        yield _started(stack, Proxy(command, folder, *ports))


@contextmanager
def haproxy(
    binary: Path,
    *,
    grpc_upstream: int | None = None,
    http_upstream: int | None = None,
    tls: Pair | None = None,
    keepalive_requests: int | None = None,
) -> Iterator[Haproxy]:
    """Run Debian's haproxy (the fixture `haproxy_binary`) in front of these ports on loopback.

    tls: the certificate of both of its ports; otherwise they are plaintext.
    keepalive_requests: after so many requests an HTTP/1.1 connection ends with `Connection: close`.
        It has no such limit for HTTP/2; there `reload` makes it send GOAWAY.
    """
    ports = _proxy_ports(grpc_upstream, http_upstream)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="haproxy-")))
        secured = ""
        if tls:
            pem = folder / "server.pem"
            pem.write_text(Path(tls.certificate).read_text() + Path(tls.key).read_text())
            secured = f" ssl crt {pem} alpn "
        config = (
            "global\n  nbthread 1\n  maxconn 1000\n"
            "defaults\n  mode http\n"
            "  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n"
        )
        if grpc_upstream is not None:
            bind = f"{secured}h2" if tls else " proto h2"
            config += (
                f"listen grpc\n  bind 127.0.0.1:{ports[0]}{bind}\n"
                f"  server upstream 127.0.0.1:{grpc_upstream} proto h2\n"
            )
        if http_upstream is not None:
            bind = f"{secured}http/1.1" if tls else ""
            config += f"listen http\n  bind 127.0.0.1:{ports[1]}{bind}\n"
            if keepalive_requests is not None:
                config += (
                    "  http-request set-var(sess.n) int(0) unless { var(sess.n) -m found }\n"
                    "  http-request set-var(sess.n) var(sess.n),add(1)\n"
                    "  http-after-response set-header Connection close"
                    f" if {{ var(sess.n) -m int ge {keepalive_requests} }}\n"
                )
            config += f"  server upstream 127.0.0.1:{http_upstream}\n"
        file = folder / "haproxy.cfg"
        file.write_text(config)
        yield _started(stack, Haproxy(binary, file, *ports))


def _proxy_ports(*upstreams: int | None) -> list[int]:
    free = free_ports(len(upstreams))
    return [0 if upstream is None else port for upstream, port in zip(upstreams, free, strict=True)]


@contextmanager
def counting_receiver(
    *, status: int = 0, response: bytes = b"", delay_s: float = 0.0
) -> Iterator[CountingReceiver]:
    """Runs a grpcio server that records all requests; for small tests only.

    Every request is answered after `delay_s` with the gRPC code `status` or, where that is 0, with
    the bytes `response`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="receiver-")))
        yield _started(stack, CountingReceiver(folder, status, response, delay_s))


def free_ports(count: int) -> list[int]:
    """Different free ports on loopback, below those that clients' connections are given."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(15_000, 32_000)
            one = stack.enter_context(socket.socket())
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with what `over` says; mappings are merged, anything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        mappings = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = merged(cast("Mapping[str, Any]", old), value) if mappings else value
    return result


def prometheus_sums(text: str) -> dict[str, float]:
    """A Prometheus page without its buckets: by name less `_total`, summed over labels."""
    sums: dict[str, float] = defaultdict(float)
    for name, value in re.findall(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)", text, re.MULTILINE):
        if not name.endswith("_bucket"):
            sums[name.removesuffix("_total")] += float(value)
    return dict(sums)


def _started(stack: ExitStack, peer: P) -> P:
    stack.callback(peer.stop)
    peer.wait_until_ready()
    return peer


def _is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _get(url: str) -> str:
    # Never by way of a proxy that the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as response:
        text: str = response.read().decode()
    return text

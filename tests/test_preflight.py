"""The preflight: what an answer to the empty export means, by one rule for all transports."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from support import cli, hostile
from support.certificates import Authority
from support.hostile import (
    Wire,
    answer,
    fields,
    frame,
    goaway,
    head,
    headers,
    peer,
    reset,
    trailers,
)
from support.http_peer import peer as http_peer
from support.http_peer import response, says

from blaster.errors import TargetUnreachable
from blaster.transport.base import Chunk, SendCounts, Status
from blaster.transport.choice import wire_is_built
from blaster.transport.grpc import GrpcTransport
from blaster.transport.otlp_options import OtlpOptions
from blaster.transport.otlp_settings import resolve
from blaster.transport.probe import probe
from blaster.transport.tls import Tls

END = hostile.END_HEADERS | hostile.END_STREAM
TRANSPORTS = [*(["wire"] if wire_is_built() else []), "grpc"]

Reply = Callable[[int], bytes]


def status(number: int, message: str = "full") -> Reply:
    """A gRPC status without a message (Trailers-Only)."""
    pairs = fields(("grpc-status", str(number)), ("grpc-message", message))
    return lambda stream: headers(stream, hostile.GRPC + pairs, END)


def plain(number: int) -> Reply:
    """An answer of a server or a proxy that is not gRPC's."""
    block = fields((":status", str(number)), ("content-type", "text/html"))
    return lambda stream: (
        headers(stream, block) + frame(hostile.DATA, hostile.END_STREAM, stream, b"<html>")
    )


ANSWERS: dict[str, tuple[Reply, str]] = {
    "OK": (answer, ""),
    "INVALID_ARGUMENT": (status(3), ""),
    "RESOURCE_EXHAUSTED": (status(8), ""),
    "UNAVAILABLE": (status(14), ""),
    "PERMISSION_DENIED": (status(7), "it refuses an empty request with PERMISSION_DENIED: full"),
    "UNIMPLEMENTED": (status(12), "it speaks gRPC but does not take OTLP traces: full"),
    "no message": (
        lambda stream: head(stream) + trailers(stream, ("grpc-status", "0")),
        "its answer to an empty export is invalid: grpc-status 0 without a response message",
    ),
    "502": (plain(502), "a proxy answers 502: UNAVAILABLE"),
    "404": (plain(404), "it speaks HTTP/2 but not gRPC: HTTP status 404"),
    "a page": (plain(200), "it speaks HTTP/2 but not gRPC: "),
}
"""By name: what every empty export is answered with, and the error; empty where it is a target."""


def transport(name: str, port: int, tls: Tls | None = None, host: str = "127.0.0.1") -> object:
    """A transport of one connection."""
    counts, stop = SendCounts.zeros(), np.zeros(1, np.int64)
    if name == "grpc":
        return GrpcTransport(
            target=f"{host}:{port}",
            tls=tls,
            connections=1,
            in_flight=8,
            timeout_s=5.0,
            metadata=(),
            counts=counts,
            stop=stop,
        )
    from blaster.transport.wire import WireTransport

    return WireTransport(
        host=host,
        port=port,
        tls=tls,
        connections=1,
        in_flight=8,
        timeout_s=5.0,
        metadata=(),
        counts=counts,
        stop=stop,
    )


def replying(reply: Reply) -> Callable[[Wire], None]:
    """A peer that answers so, the empty export included."""

    def behave(wire: Wire) -> None:
        wire.read(len(hostile.PREFACE))
        wire.send(wire.settings({}))
        while True:
            wire.send(reply(wire.request()))

    return behave


def run(name: str, port: int, scheme: str = "http", **more: str) -> CompletedProcess[str]:
    """Run a hundred spans over a transport from the command line."""
    return cli.blaster(
        *("run", "--endpoint", f"{scheme}://127.0.0.1:{port}", "--transport", name),
        *("--workers", "1", "--rate", "100", "--duration", "1s"),
        **more,
    )


def held(ran: CompletedProcess[str], error: str, status: int) -> None:
    """The exit status is this, and for an unreachable target (3) the error says this much."""
    assert ran.returncode == status, ran.stderr
    assert error in ran.stderr


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("case", ANSWERS)
def test_one_rule(case: str, name: str) -> None:
    """The same answer makes the same outcome, in the same words: a backend that is busy, or minds
    that an export is empty, is one, and the run begins."""
    reply, error = ANSWERS[case]
    with peer(replying(reply), raw=True) as target:
        held(run(name, target.port), error, 3 if error else int(case != "OK"))


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("200 OK", ""),
        ("400 Bad Request", ""),
        ("429 Too Many Requests", ""),
        ("503 Service Unavailable", ""),
        ("403 Forbidden", "/v1/traces answers an empty export with 403 Forbidden"),
        ("404 Not Found", "/v1/traces answers an empty export with 404 Not Found"),
        ("502 Bad Gateway", "a proxy answers 502 Bad Gateway"),
        ("504 Gateway Timeout", "a proxy answers 504 Gateway Timeout"),
        ("307 Go", "redirects to https://other.example/v1/traces; redirects are not followed"),
    ],
)
def test_one_rule_over_http(line: str, error: str) -> None:
    """A busy backend is one, a gateway without its backend is none; a redirect says where to."""
    refusal = says(response(line, b"", "Location: https://other.example/v1/traces"))
    with http_peer(refusal, greets=False) as target:
        held(run("http", target.port), error, 3 if error else int(line != "200 OK"))


@pytest.mark.parametrize("name", [*TRANSPORTS, "http"])
def test_no_proxy_is_used(name: str, tmp_path: Path) -> None:
    """http_proxy and https_proxy name a proxy that nobody runs: no transport asks it."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        where = f"http://127.0.0.1:{proxy.getsockname()[1]}"
    out = tmp_path / "results.json"
    ran = cli.blaster(
        *("run", "--embedded", "--transport", name, "--workers", "1", "--rate", "100"),
        *("--duration", "1s", "--json", str(out)),
        **dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY"), where),
    )
    assert ran.returncode == 0, ran.stderr
    assert cli.results(out)["spans"]["accepted"] == 100


@pytest.mark.parametrize("name", TRANSPORTS)
def test_a_refused_stream_is_asked_again(name: str) -> None:
    """One REFUSED_STREAM says nothing: the request was not processed."""
    seen: list[int] = []

    def refuse_first(stream: int) -> bytes:
        seen.append(stream)
        return reset(stream, 7) if len(seen) == 1 else answer(stream)

    with peer(replying(refuse_first), raw=True) as target:
        made = transport(name, target.port)
        made.connect(10)
        made.close()
    assert len(seen) == 2


def _refuse(wire: Wire, streams: list[int]) -> None:
    wire.send(*(reset(stream, 7) for stream in streams[1:]), answer(streams[0]))


def _leave(wire: Wire, streams: list[int]) -> None:
    wire.send(goaway(streams[0]), answer(streams[0]))
    wire.silence()


@pytest.mark.parametrize("refuse", [_refuse, _leave], ids=["REFUSED_STREAM", "GOAWAY"])
def test_what_was_not_processed_is_sent_again_uncounted(
    refuse: Callable[[Wire, list[int]], None],
) -> None:
    """Streams above GOAWAY's last, and refused ones, end with the answer to their next try: each
    has one Outcome, and counts as one request."""

    def behave(wire: Wire) -> None:
        if wire.number == 0:
            refuse(wire, [wire.request() for _ in range(4)])
        wire.serve()

    with peer(behave) as target:
        made = transport("grpc", target.port)
        made.connect(10)
        spans = np.full(4, 10, np.int64)
        made.send(Chunk.of([bytes(40)] * 4, np.full(4, 1, np.int64), spans), FAR)
        made.drain(FAR)
        outcomes = made.outcomes()
        made.close()
    assert outcomes["status"].tolist() == [Status.OK] * 4
    assert sorted(outcomes["number"].tolist()) == [0, 1, 2, 3]
    assert made._counts.sent_requests == 4 and made._counts.retried_requests == 0


def test_what_may_have_been_processed_is_not_sent_again() -> None:
    """The stream that GOAWAY names was perhaps processed: unknown, and not repeated."""
    requests: list[int] = []

    def behave(wire: Wire) -> None:
        if wire.number == 0:
            streams = [wire.request() for _ in range(4)]
            requests.extend(streams)
            wire.send(goaway(streams[0]))
            return
        while True:
            requests.append(wire.request())
            wire.send(answer(requests[-1]))

    with peer(behave) as target:
        made = transport("grpc", target.port)
        made.connect(10)
        spans = np.full(4, 10, np.int64)
        made.send(Chunk.of([bytes(40)] * 4, np.full(4, 1, np.int64), spans), FAR)
        made.drain(FAR)
        statuses = made.outcomes()["status"].tolist()
        made.close()
    assert sorted(statuses) == [0] * (len(requests) - 4) + [Status.CONNECTION_LOST] * (
        8 - len(requests)
    )
    assert Status.CONNECTION_LOST in statuses


FAR = 2**62


@contextmanager
def server(text: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port that answers whatever comes with ``text``; ``context``: over TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        if context is not None:
                            connection = context.wrap_socket(connection, server_side=True)
                        connection.recv(4096)
                        connection.sendall(text)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


NGINX = (
    b"HTTP/1.1 400 Bad Request\r\nServer: nginx/1.22.1\r\nDate: Sat, 28 Nov 2026 14:00:00 GMT\r\n"
    b"Content-Type: text/html\r\nContent-Length: 255\r\nConnection: close\r\n\r\n<html>\r\n<head>"
    b"<title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n"
)


@pytest.mark.parametrize("name", [*TRANSPORTS, "http"])
def test_plaintext_to_nginxs_tls_port(name: str) -> None:
    """nginx says so, and the scheme is suggested."""
    with (
        server(NGINX) as port,
        pytest.raises(TargetUnreachable, match="try an https:// endpoint"),
    ):
        probe(resolve(OtlpOptions(endpoint=f"http://127.0.0.1:{port}", transport=name, environ={})))


@pytest.mark.parametrize("name", [*TRANSPORTS, "http"])
def test_an_intermediate_authority_alone_is_trusted(name: str, tmp_path: Path) -> None:
    """--ca-cert may hold an intermediate authority without its root, on all transports; another
    authority's certificate is refused all the same."""
    root = Authority(tmp_path, "root")
    intermediate = Authority(tmp_path, "intermediate", root)
    pair = intermediate.issue("leaf")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["http/1.1" if name == "http" else "h2"])
    stranger = Authority(tmp_path, "stranger").file
    if name == "http":
        answered = response("200 OK")
        for ca, trusted in ((intermediate.file, True), (stranger, False)):
            with server(answered, context) as port:
                settings = resolve(
                    OtlpOptions(
                        endpoint=f"https://127.0.0.1:{port}",
                        transport="http",
                        ca_cert=ca,
                        environ={},
                    )
                )
                with nullcontext() if trusted else pytest.raises(TargetUnreachable):
                    probe(settings)
        return
    for ca, trusted in ((intermediate.file, True), (stranger, False)):
        with peer(Wire.serve, context=context) as target:
            made = transport(name, target.port, Tls(ca))
            try:
                with nullcontext() if trusted else pytest.raises(TargetUnreachable):
                    made.connect(5 if trusted else 1)
            finally:
                made.close()

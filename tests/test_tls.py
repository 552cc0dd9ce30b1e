"""TLS and mTLS against the real Collector, and what is said where it cannot be had."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support import certificates, cli, http_peer, peers
from support.certificates import DAY, NOW, Authority, Pair

from blaster.errors import TargetUnreachable
from blaster.transport.choice import wire_speaks_tls
from blaster.transport.otlp_options import OtlpOptions
from blaster.transport.otlp_settings import resolve
from blaster.transport.probe import probe
from blaster.transport.tls import Tls

TRANSPORTS = ["grpc", "http", *(["wire"] if wire_speaks_tls() else [])]


@contextlib.contextmanager
def tls_collector(
    binary: Path, pair: Pair, client_ca: str | None = None
) -> Iterator[peers.Collector]:
    """The Collector with a certificate on both receivers; ``client_ca``: it asks for one, too."""
    tls: dict[str, Any] = {"cert_file": pair.certificate, "key_file": pair.key}
    if client_ca is not None:
        tls["client_ca_file"] = client_ca
    protocols = {"grpc": {"tls": tls}, "http": {"tls": tls}}
    overrides = {"receivers": {"otlp": {"protocols": protocols}}}
    with peers.collector(binary, overrides=overrides) as peer:
        yield peer


def port_of(peer: peers.Collector, transport: str) -> int:
    return peer.http_port if transport == "http" else peer.grpc_port


def test_runs_against_the_collector(
    collector_binary: Path, tmp_path: Path, authority: Authority, server: Pair
) -> None:
    """With mTLS every span of a run is accepted, over each transport; without our certificate
    the run ends before it begins, and says what is missing."""
    client = authority.issue("client")
    with tls_collector(collector_binary, server, authority.file) as peer:
        sent = 0
        for transport in TRANSPORTS:
            endpoint = f"https://127.0.0.1:{port_of(peer, transport)}"
            out = tmp_path / f"{transport}.json"
            encoding = "json" if transport == "http" else "protobuf"
            run = ("run", "--transport", transport, "--encoding", encoding, "--rate", "2k")
            run += ("--endpoint", endpoint)
            ran = cli.blaster(
                *(*run, "--duration", "1s", "--json", str(out)),
                OTEL_EXPORTER_OTLP_CERTIFICATE=authority.file,
                OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE=client.certificate,
                OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY=client.key,
            )
            assert ran.returncode == 0, ran.stderr
            read = cli.results(out)
            sent += read["spans"]["accepted"]
            assert read["configuration"]["tls"]
            assert not read["configuration"]["insecure_skip_verify"]
            ran = cli.blaster(*run, "--ca-cert", authority.file)
            assert ran.returncode == 3 and "client certificate" in ran.stderr
            assert len(ran.stderr.splitlines()) == 1
        counted = peer.wait_for("otelcol_receiver_accepted_spans", sent)
    assert counted["otelcol_receiver_accepted_spans"] == sent == 2000 * len(TRANSPORTS)


WRONG = {
    "expired": "has expired",
    "wrong-name": "is for another address",
    "self-signed": "is self-signed",
    "stranger": "comes from an authority that is not trusted",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_certificates(
    collector_binary: Path, tmp_path: Path, authority: Authority, name: str
) -> None:
    """A certificate that is not right ends the run before any span, and the fault is named; over
    HTTP it can be passed over when that is asked for, which the results say."""
    wrong = {
        "expired": lambda: authority.issue("expired", until=NOW - DAY),
        "wrong-name": lambda: authority.issue("wrong-name", address="127.0.0.2"),
        "self-signed": lambda: certificates.self_signed(tmp_path),
        "stranger": lambda: Authority(tmp_path, "stranger").issue("foreign"),
    }
    with tls_collector(collector_binary, wrong[name]()) as peer:
        for transport in TRANSPORTS:
            options = OtlpOptions(
                endpoint=f"https://127.0.0.1:{port_of(peer, transport)}",
                transport=transport,
                ca_cert=authority.file,
                environ={},
            )
            with pytest.raises(TargetUnreachable, match=f"the server's certificate {WRONG[name]}"):
                probe(resolve(options))
        if name != "expired":
            return
        out = tmp_path / "r.json"
        endpoint = f"https://127.0.0.1:{peer.http_port}"
        run = ("run", "--endpoint", endpoint, "--rate", "500", "--duration", "1s")
        ran = cli.blaster(
            *run, *("--transport", "http", "--insecure-skip-verify", "--json", str(out))
        )
        assert ran.returncode == 0, ran.stderr
        read = cli.results(out)
        assert read["spans"]["accepted"] == 500
        assert read["configuration"]["insecure_skip_verify"]
        assert any("not verified" in note for note in read["notes"])
        ran = cli.blaster(*run, "--transport", "grpc", "--insecure-skip-verify")
        assert ran.returncode == 2 and "--insecure-skip-verify" in ran.stderr


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_tls_where_none_is_and_none_where_tls_is(
    collector_binary: Path, authority: Authority, server: Pair, transport: str
) -> None:
    """A peer in plaintext behind https, and one with TLS behind http, are told apart."""

    def said(scheme: str, port: int, over: str = transport) -> str:
        ca = authority.file if scheme == "https" else None
        endpoint = f"{scheme}://127.0.0.1:{port}"
        with pytest.raises(TargetUnreachable) as raised:
            probe(
                resolve(OtlpOptions(endpoint=endpoint, transport=over, ca_cert=ca, environ={})),
                timeout_s=3,
            )
        return str(raised.value)

    with peers.collector(collector_binary) as peer:
        clear = said("https", port_of(peer, transport))
        assert "http://" in clear and ("plaintext" in clear or "instead of" in clear)
    with tls_collector(collector_binary, server) as peer:
        assert "https://" in said("http", port_of(peer, transport))
        if transport == "http":  # the other way round there is HTTP/2 on both ports
            assert "OTLP/gRPC port" in said("https", peer.grpc_port)


def test_the_encrypted_transport_loses_nothing(server: Pair, authority: Authority) -> None:
    """Large requests over TLS, by way of a server that reads them slowly, arrive whole."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    bodies = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            with context.wrap_socket(plain, server_side=True) as connection:
                reader = connection.makefile("rb")
                for _ in range(4):
                    head = b""
                    while not head.endswith(b"\r\n\r\n"):
                        head += reader.readline()
                    length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
                    time.sleep(0.1)
                    bodies.append(reader.read(length))
                    connection.sendall(http_peer.OK)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        with http_peer.Sender(port, tls=Tls(authority.file), timeout_s=30) as sender:
            sender.transport.connect(5)
            until = time.monotonic_ns() + 30_000_000_000
            sender.transport.send(http_peer.chunk(3, size=3 << 20), until)
            sender.transport.drain(until)
            assert sender.statuses(sender.transport.outcomes()) == {"OK": 3}
        thread.join(10)
    assert [len(body) for body in bodies] == [0, *[3 << 20] * 3]


def test_grpcio_keeps_to_the_roots_that_it_is_given(authority: Authority) -> None:
    """The grpc transport trusts whom --ca-cert names, and by default whom the system trusts."""
    assert Tls(authority.file).roots() == Path(authority.file).read_bytes()
    system = Tls().roots()
    assert system is None or b"BEGIN CERTIFICATE" in system
    pair = authority.issue("pair")
    certificate, key = Tls(None, pair.certificate, pair.key).certificate_and_key()
    assert grpc.ssl_channel_credentials(system, key, certificate) is not None

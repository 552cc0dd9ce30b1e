"""Identifies the server at an endpoint before any worker is forked and any span is offered.

Speaks just enough HTTP/2 (RFC 9113, section 3.4) or HTTP/1.1 to tell an OTLP receiver from other
servers, on a plain socket: grpcio must not be imported before the fork.
"""

from __future__ import annotations

import re
import socket
import ssl
from contextlib import closing

from blaster.errors import TargetUnreachable
from blaster.transport.endpoint import Endpoint
from blaster.transport.otlp_settings import OtlpSettings
from blaster.transport.tls import Tls

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_FRAME_HEADER = 9
_SETTINGS, _GOAWAY = 4, 7
_ENOUGH = 1024
_REST_S, _SECOND_LOOK_S = 0.3, 1.0

_WANTS_TLS = re.compile(rb"HTTPS server|HTTPS port|SSL-enabled server")
"""Part of the plaintext answer of the TLS servers of Go, nginx and Apache."""

# X509_verify_cert's reasons (openssl/x509_vfy.h).
_CERTIFICATE_FAULTS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed, and not one that --ca-cert trusts",
    19: "comes from an authority that is not trusted; --ca-cert names the one to trust",
    20: "comes from an authority that is not trusted; --ca-cert names the one to trust",
    21: "comes from an authority that is not trusted; --ca-cert names the one to trust",
    62: "is for another name",
    64: "is for another address",
}


def probe(settings: OtlpSettings, timeout_s: float = 5.0) -> None:
    """Return when a server of the protocol, gRPC or HTTP/1.1, answers at the endpoint.

    Raises TargetUnreachable, which says what kind of server seems to be there instead.
    """
    endpoint, tls = settings.endpoint, settings.tls
    where = endpoint.authority
    http = settings.protocol == "http"
    hello = _head(endpoint) if http else _PREFACE + _EMPTY_SETTINGS
    try:
        with closing(_connected(endpoint, timeout_s)) as plain:
            connection = plain if tls is None else _encrypted(plain, endpoint, tls, http)
            with closing(connection):
                connection.sendall(hello)
                answer = _read(connection)
    except socket.gaierror as error:
        raise TargetUnreachable(f"{where}: the name does not resolve ({error.strerror})") from None
    except TimeoutError:
        raise TargetUnreachable(f"{where}: nobody answers within {timeout_s:g} s") from None
    except ConnectionRefusedError:
        raise TargetUnreachable(f"{where}: nobody listens there (connection refused)") from None
    except ssl.SSLError as error:
        raise TargetUnreachable(f"{where}: {_tls_fault(error)}") from None
    except OSError as error:
        raise TargetUnreachable(f"{where}: {error.strerror or error}") from None
    if _is_http1(answer) if http else _is_http2(answer):
        return
    seems = _seems(answer, http)
    if tls is None and not answer and _speaks_tls(endpoint):
        seems = "speaks TLS; try an https:// endpoint"
    protocol = "OTLP/HTTP" if http else "OTLP/gRPC"
    raise TargetUnreachable(f"{where} does not speak {protocol}: it {seems}")


def _connected(endpoint: Endpoint, timeout_s: float) -> socket.socket:
    connection = socket.create_connection((endpoint.host, endpoint.port), timeout=timeout_s)
    connection.settimeout(timeout_s)
    return connection


def _encrypted(
    connection: socket.socket, endpoint: Endpoint, tls: Tls, http: bool
) -> ssl.SSLSocket:
    wanted = "http/1.1" if http else "h2"
    try:
        wrapped = tls.context([wanted]).wrap_socket(connection, server_hostname=endpoint.host)
    except (ConnectionResetError, ssl.SSLEOFError):
        raise TargetUnreachable(
            f"{endpoint.authority}: it closes the connection instead of speaking TLS; "
            "is it an http:// endpoint?"
        ) from None
    if not http and wrapped.selected_alpn_protocol() != wanted:
        wrapped.close()
        raise TargetUnreachable(
            f"{endpoint.authority} does not speak OTLP/gRPC: it speaks TLS, but takes no HTTP/2 "
            "(ALPN); is this the OTLP/HTTP port (4318)?"
        )
    return wrapped


def _head(endpoint: Endpoint) -> bytes:
    """A request that every HTTP server answers and that exports nothing."""
    return (
        f"OPTIONS {endpoint.path} HTTP/1.1\r\nHost: {endpoint.authority}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()


def _read(connection: socket.socket) -> bytes:
    """The first bytes of the answer: enough to tell what it is."""
    answer = b""
    while len(answer) < _ENOUGH and not _is_http2(answer) and not answer.startswith(_PREFACE):
        try:
            data = connection.recv(_ENOUGH)
        except (TimeoutError, ConnectionResetError, ssl.SSLEOFError):
            break
        if not data:
            break
        answer += data
        # The rest of a first answer comes with it.
        connection.settimeout(_REST_S)
    return answer


def _is_http1(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.") and not _WANTS_TLS.search(answer)


def _is_http2(answer: bytes) -> bool:
    """A server's preface is a SETTINGS frame on stream 0 (RFC 9113, section 3.4)."""
    if len(answer) < _FRAME_HEADER:
        return False
    length = int.from_bytes(answer[:3], "big")
    return answer[3] == _SETTINGS and answer[5:9] == bytes(4) and length % 6 == 0


def _speaks_tls(endpoint: Endpoint) -> bool:
    context = Tls(verify=False).context(["h2", "http/1.1"])
    try:
        with (
            closing(_connected(endpoint, _SECOND_LOOK_S)) as connection,
            context.wrap_socket(connection, server_hostname=endpoint.host),
        ):
            return True
    except ssl.SSLError as error:
        # An alert is TLS, too.
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _tls_fault(error: ssl.SSLError) -> str:
    """The reason that a handshake failed, or the connection right after it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _CERTIFICATE_FAULTS.get(error.verify_code, error.verify_message)
        return f"the server's certificate {fault}"
    reason = error.reason or "no reason given"
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "it answers in plaintext, not in TLS; try an http:// endpoint"
    if reason in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"):
        return "it asks for a client certificate: --client-cert and --client-key"
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return f"it refuses our certificate ({reason.partition('ALERT_')[2].lower()})"
    if reason == "TLSV1_ALERT_NO_APPLICATION_PROTOCOL":
        return "it speaks TLS, but not this protocol on it; gRPC and HTTP are on different ports"
    return f"TLS fails: {reason.replace('_', ' ').lower()}"


def _seems(answer: bytes, http: bool) -> str:
    sent = b"OPTIONS " if http else _PREFACE
    signs = (
        (
            not answer,
            "accepts the connection and says nothing, or closes it"
            + ("; is this the OTLP/gRPC port (4317)?" if http else ""),
        ),
        (_WANTS_TLS.search(answer), "asks for HTTPS; try an https:// endpoint"),
        (
            answer.startswith((b"HTTP/", b"<")),
            "answers as an HTTP/1 server; is this the OTLP/HTTP port (4318)?",
        ),
        (sent.startswith(answer[: len(sent)]), "sends back what it is sent: a plain TCP echo"),
        (answer[:1] in (b"\x15", b"\x16"), "answers with a TLS record; try an https:// endpoint"),
        (_is_http2(answer), "answers as an HTTP/2 server; is this the OTLP/gRPC port (4317)?"),
        (answer[3:4] == bytes([_GOAWAY]), "speaks HTTP/2 and says GOAWAY at once"),
    )
    return next((seems for holds, seems in signs if holds), f"answers with {answer[:16]!r}")

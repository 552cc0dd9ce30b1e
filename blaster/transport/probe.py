"""Finds out who listens at an endpoint, before any worker is forked and any span is offered.

Speaks just enough HTTP/2 (RFC 9113, section 3.4) to tell a gRPC server from anything else, on a
plain socket: grpcio must not be imported before the fork.
"""

from __future__ import annotations

import socket

from blaster.errors import TargetUnreachable

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
_FRAME_HEADER = 9
_SETTINGS, _GOAWAY = 4, 7
_ENOUGH = 64


def probe(host: str, port: int, timeout_s: float = 5.0) -> None:
    """Returns when an HTTP/2 server answers at host:port in the clear.

    Raises TargetUnreachable, saying who seems to be there instead.
    """
    where = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(_PREFACE + _EMPTY_SETTINGS)
            answer = _read(connection)
    except socket.gaierror as error:
        raise TargetUnreachable(f"{where}: the name does not resolve ({error.strerror})") from None
    except TimeoutError:
        raise TargetUnreachable(f"{where}: nobody answers within {timeout_s:g} s") from None
    except ConnectionRefusedError:
        raise TargetUnreachable(f"{where}: nobody listens there (connection refused)") from None
    except OSError as error:
        raise TargetUnreachable(f"{where}: {error.strerror or error}") from None
    if not _is_http2(answer):
        raise TargetUnreachable(f"{where} does not speak OTLP/gRPC: it {_seems(answer)}")


def _read(connection: socket.socket) -> bytes:
    """The first bytes of the answer: enough to tell what it is."""
    answer = b""
    while len(answer) < _ENOUGH and not _is_http2(answer) and not answer.startswith(_PREFACE):
        try:
            data = connection.recv(_ENOUGH)
        except TimeoutError:
            break
        except ConnectionResetError:
            break
        if not data:
            break
        answer += data
    return answer


def _is_http2(answer: bytes) -> bool:
    """A server's preface is a SETTINGS frame on stream 0 (RFC 9113, section 3.4)."""
    if len(answer) < _FRAME_HEADER:
        return False
    length = int.from_bytes(answer[:3], "big")
    return answer[3] == _SETTINGS and answer[5:9] == bytes(4) and length % 6 == 0


def _seems(answer: bytes) -> str:
    if answer.startswith((b"HTTP/", b"<")):
        return "answers as an HTTP/1 server; is this the OTLP/HTTP port (4318)?"
    if answer.startswith(_PREFACE[: max(len(answer), 1)]) and answer:
        return "sends back what it is sent: a plain TCP echo"
    if answer[:1] == b"\x15" or answer[:1] == b"\x16":
        return "answers with a TLS record; try an https:// endpoint"
    if answer[3:4] == bytes([_GOAWAY]):
        return "speaks HTTP/2 and says GOAWAY at once"
    if not answer:
        return "accepts the connection and says nothing, or closes it"
    return f"answers with {answer[:16]!r}"

"""A host and a port, as they are written, and what is said when nobody can listen there."""

from __future__ import annotations

import socket

from blaster.errors import UsageError


def written(host: str, port: int) -> str:
    """HOST:PORT, an address of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def family(host: str) -> socket.AddressFamily:
    """Of the socket that listens there."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def cannot_listen(option: str, host: str, port: int, reason: OSError | str) -> UsageError:
    """What is raised where the port that ``option`` gives can't be listened on."""
    why = (reason.strerror or reason) if isinstance(reason, OSError) else reason
    return UsageError(
        f"{option} {port}: can't listen on {written(host, port)}: {why}; choose another port, or 0 "
        "for a free one"
    )

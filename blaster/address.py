"""Hosts and ports: how they are written, and what is wrong with them."""

from __future__ import annotations

import re
import socket

from blaster.errors import UsageError


def written(host: str, port: int) -> str:
    """Return HOST:PORT, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def family(host: str) -> socket.AddressFamily:
    """Return the family of the socket that listens there."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_host(host: str) -> bool:
    """Whether ``host`` can be looked up: no label is empty or longer than 63 letters."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def without_secrets(url: str) -> str:
    """Return the URL as a message may show it: user, password and query may be secret."""
    return re.sub(r"\?.*", "?…", re.sub(r"(^|://)[^/?#]*@", r"\1…@", url))


def cannot_listen(option: str, host: str, port: int, reason: OSError | str) -> UsageError:
    """Return the error for a port, given by ``option``, that can't be listened on."""
    why = (reason.strerror or reason) if isinstance(reason, OSError) else reason
    return UsageError(
        f"{option} {port}: can't listen on {written(host, port)}: {why}; choose another port, or 0 "
        "for a free one"
    )

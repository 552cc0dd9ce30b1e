"""Headers that the user adds to every request. Their values are secrets: no message shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

from blaster.errors import UsageError
from blaster.units import quoted

VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")

Headers = tuple[tuple[str, str], ...]
"""Names in lower case, and values."""

HIDDEN = "…"

_SHORTEST = 4
"""The shortest value that is hidden; shorter ones occur in too many texts."""

_RESERVED = frozenset(
    [
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    ]
)
"""Headers that a transport sets itself, or that must not be set."""


def resolve(options: Sequence[str], environ: Mapping[str, str]) -> Headers:
    """Resolve the headers of the environment and of --header, which takes precedence.

    The variable is a list in the form of W3C baggage, without properties: NAME=VALUE, separated by
    commas, values percent-encoded. Raises UsageError; its text holds no value.
    """
    found: dict[str, str] = {}
    variable = next((name for name in VARIABLES if environ.get(name)), None)
    if variable is not None:
        for number, member in enumerate(environ[variable].split(","), 1):
            if member.strip():
                name, value = _split(f"{variable}, member {number}", member)
                found[name] = _decoded(f"{variable} {quoted(name)}", value)
    for number, option in enumerate(options, 1):
        name, value = _split("--header" if len(options) == 1 else f"--header, no. {number}", option)
        found[name] = value
    for name, value in found.items():
        if not (value.isascii() and value.isprintable()):
            raise UsageError(f"header {quoted(name)}: its value must be printable ASCII")
    return tuple(found.items())


def hide(text: str, headers: Headers) -> str:
    """Return ``text`` without the headers' values, which a peer may have echoed."""
    for _, value in sorted(headers, key=lambda header: -len(header[1])):
        for part in (value, value.rpartition(" ")[2]):
            if len(part) >= _SHORTEST:
                text = text.replace(part, HIDDEN)
    return text


def _split(source: str, text: str) -> tuple[str, str]:
    # The part before "=" may belong to a secret, too, unless it looks like a name.
    name, equals, value = text.partition("=")
    name = name.strip().lower()
    if not equals or not re.fullmatch(r"[0-9a-z_.-]+", name):
        raise UsageError(
            f"{source}: must be NAME=VALUE, the name of letters, digits, -, _ and . only"
        )
    if name in _RESERVED or name.startswith("grpc-"):
        raise UsageError(f"{source} {quoted(name)}: blaster sets it itself")
    if name.endswith("-bin"):
        raise UsageError(f"{source} {quoted(name)}: binary metadata cannot be given")
    return name, value.strip()


def _decoded(source: str, value: str) -> str:
    if re.search(r"%(?![0-9a-fA-F]{2})", value):
        raise UsageError(f"{source}: a % without two hexadecimal digits")
    return unquote_to_bytes(value).decode("utf-8", "replace")

"""Tls: whom to trust, and who we are, on encrypted connections."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blaster.errors import UsageError
from blaster.units import quoted


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: ``ca`` the authorities to trust (None: the system's), ``certificate`` and ``key``
    our own (None: none). ``verify`` False: the server may be anybody."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True

    def context(self, protocols: Sequence[str]) -> ssl.SSLContext:
        """A client's context that offers these protocols (ALPN). The files were checked before."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            context.load_verify_locations(self.ca)
        else:
            context.load_default_certs()
        if self.certificate is not None:
            # A password that is asked for at the terminal would stop everything.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        context.set_alpn_protocols(list(protocols))
        return context

    def roots(self) -> bytes | None:
        """The authorities to trust, in PEM; None where the system keeps them in no one file."""
        path = self.ca or ssl.get_default_verify_paths().cafile
        return Path(path).read_bytes() if path is not None else None

    def pair(self) -> tuple[bytes | None, bytes | None]:
        """Our certificate and its key, in PEM."""
        if self.certificate is None or self.key is None:
            return None, None
        return Path(self.certificate).read_bytes(), Path(self.key).read_bytes()

    def check(self, sources: Sequence[str]) -> None:
        """Raises UsageError, naming the source (of ``ca``, ``certificate``, ``key``), for a file
        that is not what it should be."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for source, path in zip(sources, (self.ca, self.certificate, self.key), strict=True):
            try:
                if path is not None:
                    Path(path).read_bytes()
            except OSError as error:
                raise UsageError(f"{source} {quoted(path)}: {error.strerror}") from None
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
        except ssl.SSLError:
            raise UsageError(
                f"{sources[0]} {quoted(self.ca)}: must hold certificates in PEM"
            ) from None
        if (self.certificate is None) != (self.key is None):
            given, other = (1, 2) if self.key is None else (2, 1)
            path = self.certificate or self.key
            raise UsageError(f"{sources[given]} {quoted(path)}: needs {sources[other]}, too")
        try:
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except ssl.SSLError as error:
            why = "must be a certificate in PEM and its key, not encrypted"
            if error.reason == "KEY_VALUES_MISMATCH":
                why = f"{sources[2]} {quoted(self.key)} is not its key"
            raise UsageError(f"{sources[1]} {quoted(self.certificate)}: {why}") from None

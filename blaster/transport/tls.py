"""Tls: trust anchors and client certificate of encrypted connections."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blaster.errors import UsageError
from blaster.units import quoted


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: ``ca``, the CA bundle (None: the system's); ``certificate`` and ``key`` of the
    client (None: none). ``verify``: whether the server's certificate is checked."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True

    def context(self, protocols: Sequence[str]) -> ssl.SSLContext:
        """A client's context that offers these protocols (ALPN). Call :meth:`check` first."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            context.load_verify_locations(self.ca)
        else:
            context.load_default_certs()
        if self.certificate is not None:
            # OpenSSL would ask for a password at the terminal and block.
            context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        # An intermediate CA in the bundle is trusted without its root, as grpcio does.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.set_alpn_protocols(list(protocols))
        return context

    def roots(self) -> bytes | None:
        """The CA bundle in PEM; None if the system has no single file of it."""
        path = self.ca or ssl.get_default_verify_paths().cafile
        return Path(path).read_bytes() if path is not None else None

    def certificate_and_key(self) -> tuple[bytes | None, bytes | None]:
        """The client's certificate and key, in PEM; None: none."""
        if self.certificate is None or self.key is None:
            return None, None
        return Path(self.certificate).read_bytes(), Path(self.key).read_bytes()

    def check(self, sources: Sequence[str]) -> None:
        """Raise UsageError for a file that is missing or malformed. ``sources``: the options or
        variables that gave ``ca``, ``certificate`` and ``key``."""
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

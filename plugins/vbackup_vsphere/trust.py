"""TLS connections to a host that is who it should be: by a CA, or by the thumbprint of its certificate."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from http.client import HTTPSConnection

from vbackup.api import AccessDenied, ConfigError, NotFound, Unavailable
from vbackup_vsphere.options import VsphereOptions

CONNECTING = 30.0
"""Seconds that connecting may take."""

SILENCE = 900.0
"""Seconds after which an answer that does not come is given up: QueryChangedDiskAreas may take minutes."""

_DIGESTS = {40: "sha1", 64: "sha256", 128: "sha512"}  # length in hex digits


def plain(thumbprint: str) -> str:
    """Return a thumbprint as lower case hex digits without colons."""
    return thumbprint.replace(":", "").lower()


def thumbprint(certificate: bytes, algorithm: str) -> str:
    """Return the thumbprint of a DER certificate as vSphere shows it: ``AA:BB:...``."""
    digest = hashlib.new(algorithm, certificate, usedforsecurity=False).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


class TrustedConnection(HTTPSConnection):
    """Connects, and is closed again before anything is sent if the certificate is not the pinned one.

    pyvmomi's own check of thumbprints is not used: it is skipped where some CA vouches for the host, and on all
    connections but the first.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext, pin: str | None) -> None:
        super().__init__(host, port, timeout=CONNECTING, context=context)
        self._pin = pin
        self.certificate = b""

    def connect(self) -> None:
        """See `HTTPConnection.connect`. Raises: `AccessDenied`, `Unavailable`."""
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            raise self._untrusted(error.verify_message) from error
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be one
            self.close()
            raise Unavailable(f"cannot connect to {self.host}:{self.port}: {error}") from error
        sock = self.sock
        self.certificate = sock.getpeercert(True) or b""
        if self._pin is not None and plain(thumbprint(self.certificate, _DIGESTS[len(self._pin)])) != self._pin:
            self.close()
            seen = thumbprint(self.certificate, _DIGESTS[len(self._pin)])
            raise AccessDenied(
                f"the certificate of {self.host}:{self.port} has the thumbprint {seen}, not the configured one",
                hint="somebody may be in between; if its certificate was renewed, set `thumbprint`",
            )
        sock.settimeout(SILENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _untrusted(self, why: str) -> AccessDenied:
        self.close()
        return AccessDenied(
            f"the certificate of {self.host}:{self.port} is not trusted: {why}",
            hint="give the CA's certificate with `ca` (https://HOST/certs/download.zip), or its `thumbprint`",
        )


class Trust:
    """Whom to trust, from the options."""

    def __init__(self, options: VsphereOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self.pin = plain(options.thumbprint) if options.thumbprint is not None else None
        if self.pin is not None and len(self.pin) not in _DIGESTS:
            raise ConfigError(f"`thumbprint` has {len(self.pin)} hex digits; SHA-1 has 40, SHA-256 64, SHA-512 128")

    def connection(self, host: str, port: int, pin: str | None = None) -> TrustedConnection:
        """Return a connection, not connected yet. ``pin`` is what somebody trusted says of this host's certificate."""
        pin = plain(pin) if pin else self.pin
        if pin is not None and len(pin) not in _DIGESTS:
            raise AccessDenied(f"{pin!r} is no thumbprint of a certificate of {host}")
        return TrustedConnection(host, port, self._context(verify=pin is None), pin)

    def _context(self, *, verify: bool) -> ssl.SSLContext:
        with self._lock:  # reading the system's CAs takes longer than connecting
            if verify not in self._contexts:
                self._contexts[verify] = self._new_context(verify=verify)
            return self._contexts[verify]

    def _new_context(self, *, verify: bool) -> ssl.SSLContext:
        if not verify:  # the thumbprint is the proof
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        try:
            return ssl.create_default_context(cafile=self._options.ca)
        except FileNotFoundError as error:
            raise NotFound(f"the CA file {self._options.ca} is not there") from error
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"the CA file {self._options.ca} cannot be used: {error}") from error

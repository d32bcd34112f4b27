"""Plain HTTPS requests beside the SOAP API: files of datastores, disks of leases, the tags' REST API."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from email.message import Message
from http.client import HTTPException, HTTPResponse, IncompleteRead
from urllib.parse import urlsplit

from vbackup.api import AccessDenied, NoSpace, NotFound, Unavailable, Unsupported, VBackupError
from vbackup_vsphere.trust import Trust, TrustedConnection

Body = Iterable[bytes] | bytes | None
Peer = tuple[str, int, str | None]
"""Host, port, and the thumbprint of its certificate if it has another one than the session's host."""

_IDLE_SECONDS = 20.0  # below what servers and proxies in between keep an idle connection for
_IDLE_CONNECTIONS = 16


class Answer:
    """An answer whose body may still be coming. `read` raises `Unavailable` when it is cut short."""

    def __init__(self, response: HTTPResponse, what: str) -> None:
        self._response = response
        self._what = what

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Message:
        """Its headers; names in any case."""
        return self._response.headers

    def read(self, size: int | None = None) -> bytes:
        """Read up to ``size`` bytes, or all; empty at the end."""
        try:
            data = self._response.read(size)
        except (IncompleteRead, HTTPException, OSError) as error:
            raise self._cut(error) from error
        if not data and size != 0:
            self._check_end()
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Read into ``buffer``; 0 at the end."""
        try:
            count = self._response.readinto(buffer)
        except (IncompleteRead, HTTPException, OSError) as error:
            raise self._cut(error) from error
        if not count:
            self._check_end()
        return count

    def _check_end(self) -> None:
        if self._response.length:
            raise self._cut(f"{self._response.length} bytes are missing")

    def _cut(self, why: object) -> Unavailable:
        return Unavailable(f"{self._what}: the connection was cut: {why}")


class Web:
    """HTTPS connections, kept for a while for the next request. Used by many threads."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._lock = threading.Lock()
        self._idle: list[tuple[float, Peer, TrustedConnection]] = []

    def send(
        self, peer: Peer, method: str, path: str, headers: Mapping[str, str], body: Body
    ) -> tuple[TrustedConnection, HTTPResponse]:
        """Send a request and return what it came by and the answer. Raises: `Unavailable`, `AccessDenied`."""
        what = f"{method} https://{peer[0]}:{peer[1]}{path.partition('?')[0]}"
        kept = self._take(peer) if body is None else None
        if kept is not None:
            try:
                return kept, _exchange(kept, method, path, headers, body)
            except (OSError, HTTPException):  # the server may have closed it long ago
                kept.close()
        connection = self._trust.connection(*peer)
        try:
            return connection, _exchange(connection, method, path, headers, body)
        except (OSError, HTTPException) as error:
            connection.close()
            raise Unavailable(f"{what}: the connection was cut: {error or type(error).__name__}") from error
        except BaseException:
            connection.close()
            raise

    def give_back(self, peer: Peer, connection: TrustedConnection, response: HTTPResponse) -> None:
        """Keep a connection whose answer was read to its end, close any other."""
        if response.length == 0:  # to HEAD, say: nothing follows
            response.read()
        ended = response.isclosed() and not response.will_close
        response.close()
        with self._lock:
            if ended and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append((time.monotonic(), peer, connection))
                return
        connection.close()

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, _, connection in idle:
            connection.close()

    def _take(self, peer: Peer) -> TrustedConnection | None:
        oldest = time.monotonic() - _IDLE_SECONDS
        with self._lock:
            stale = [c for since, _, c in self._idle if since < oldest]
            self._idle = [entry for entry in self._idle if entry[0] >= oldest]
            found = next((i for i in reversed(range(len(self._idle))) if self._idle[i][1] == peer), None)
            taken = self._idle.pop(found)[2] if found is not None else None
        for connection in stale:
            connection.close()
        return taken


def peer_of(url: str, host: str, port: int, thumbprint: str | None) -> tuple[Peer, str]:
    """Return whom a URL is for, and its path. One without a host, or with ``*``, is for ``host`` and ``port``."""
    parts = urlsplit(url)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    named = parts.hostname or "*"
    if url.startswith("/") or named == "*" or (named, parts.port or 443) == (host, port):
        return (host, port, None), url if url.startswith("/") else path
    return (named, parts.port or 443, thumbprint or None), path


def _exchange(
    connection: TrustedConnection, method: str, path: str, headers: Mapping[str, str], body: Body
) -> HTTPResponse:
    connection.request(method, path, body=body, headers=dict(headers))
    return connection.getresponse()


def refusal(status: int, what: str, said: str) -> VBackupError | None:
    """Return the error that an HTTP status stands for; None if it is none."""
    message = f"{what}: {status} {said}".rstrip()
    if 200 <= status < 300:
        return None
    if status < 400:  # a page to log in at, say, which is not what was asked for
        return Unavailable(message, hint="is a proxy or a single sign-on in between?", transient=False)
    if status in {401, 403}:
        needs = "; it takes the privileges Datastore.Browse and Datastore.FileManagement" if "/folder/" in what else ""
        return AccessDenied(message + needs)
    if status in {404, 410}:
        return NotFound(message)
    if status == 405:
        return Unsupported(message)
    if status == 507:
        return NoSpace(message)
    return Unavailable(message, transient=status >= 500 or status in {408, 429})

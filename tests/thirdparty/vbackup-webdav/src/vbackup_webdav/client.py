"""Requests to one collection: each is made once, and ends in its whole answer or in one of our errors."""

from __future__ import annotations

import math
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, cast
from urllib.parse import urlsplit

import urllib3

from vbackup.api import ConfigError, Unavailable
from vbackup_webdav.failures import told
from vbackup_webdav.options import WebDavOptions

_CONNECTIONS = 16
_PIECE = 256 << 10
_SLOWEST = 16 << 10
"""Bytes a second. A line that is slower than that is taken for none."""
_NEEDED = {200, 206, 207}
"""Answers whose body matters."""


class Answer(NamedTuple):
    """What a server answered: all of it."""

    status: int
    headers: urllib3.HTTPHeaderDict
    body: bytes


class Client:
    """Makes requests below ``options.url``. For many threads at once; what is asked after `close` connects again."""

    def __init__(self, options: WebDavOptions) -> None:
        self._options = options
        self._base = urlsplit(options.url).path
        self._lock = threading.Lock()
        self._connected: tuple[urllib3.HTTPConnectionPool, dict[str, str]] | None = None

    def ask(
        self,
        method: str,
        path: str,
        action: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: memoryview | None = None,
        most: int | None = None,
    ) -> Answer:
        """Make a request for ``path`` ("" or "/name") below the collection; ``action`` is what errors say.

        An answer that says how long it is has just that length. Of one with more than ``most`` bytes only those are
        read. Raises: `Unavailable`.
        """
        patience = _Patience(self._options.timeout, action)
        pool, login = self._pool()
        upload = None if body is None else _Upload(body, patience)
        length = {} if upload is None else {"Content-Length": str(upload.left)}
        with told(action):
            response = pool.urlopen(
                method,
                self._base + path,
                body=cast("Iterable[bytes] | None", upload),  # a memoryview is as good
                headers={"Accept-Encoding": "identity", **login, **length, **(headers or {})},
                retries=False,  # of redirects, too
                timeout=urllib3.Timeout(connect=self._options.timeout, read=self._options.timeout),
                pool_timeout=math.ceil(self._options.timeout),
                preload_content=False,
                decode_content=False,
            )
            try:
                answer = Answer(response.status, response.headers, b"".join(_body(response, method, most, patience)))
            except BaseException:
                response.close()  # what is left of it must not be taken for the next answer
                raise
            finally:
                response.release_conn()
        if upload is not None and upload.left and answer.status < 300:  # urllib3 hides that the line broke meanwhile
            raise Unavailable(f"cannot {action}: the server answered before it had everything")
        return answer

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            if self._connected is not None:
                self._connected[0].close()
            self._connected = None

    def _pool(self) -> tuple[urllib3.HTTPConnectionPool, dict[str, str]]:
        with self._lock:
            if self._connected is None:
                self._connected = connections(self._options), authorization(self._options)
            return self._connected


def connections(options: WebDavOptions) -> urllib3.HTTPConnectionPool:
    """Return a pool of connections to the server; none is made yet. Raises: `ConfigError`."""
    parts = urlsplit(options.url)
    host = parts.hostname or ""
    if parts.scheme == "http":
        return urllib3.HTTPConnectionPool(host, parts.port, maxsize=_CONNECTIONS, block=True)
    return urllib3.HTTPSConnectionPool(host, parts.port, maxsize=_CONNECTIONS, block=True, ssl_context=trust(options))


def trust(options: WebDavOptions) -> ssl.SSLContext:
    """Return what certificates are checked by. Raises: `ConfigError`."""
    try:
        return ssl.create_default_context(cafile=None if options.ca is None else str(options.ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot read the certificate authorities in {options.ca}: {error.strerror}") from None


def authorization(options: WebDavOptions) -> dict[str, str]:
    """Return the headers that say who we are (RFC 7617). Raises: `ConfigError`, and what a secret raises."""
    if options.user is None or options.password is None:
        return {}
    try:
        password = options.password.resolve().decode()
    except UnicodeDecodeError:
        raise ConfigError(f"the password from {options.password} is not UTF-8") from None
    if any(letter < " " or letter == "\x7f" for letter in password):
        raise ConfigError(f"the password from {options.password} has a control character, which HTTP cannot send")
    return {"Authorization": "Basic " + b64encode(f"{options.user}:{password}".encode()).decode()}


class _Patience:
    """How long one request may take: its timeout, and what its bytes take on the slowest line."""

    def __init__(self, seconds: float, action: str) -> None:
        self._end = time.monotonic() + seconds
        self.action = action

    def grant(self, size: int) -> None:
        """Count bytes that went over. Raises: `Unavailable` when all together took too long."""
        self._end += size / _SLOWEST
        if time.monotonic() > self._end:
            raise Unavailable(f"cannot {self.action}: the line is slower than {_SLOWEST >> 10} KiB/s")


class _Upload:
    """A body in pieces: each has the timeout for itself; a socket would grant all of it only one."""

    def __init__(self, body: memoryview, patience: _Patience) -> None:
        self.left = body.nbytes
        """Bytes that were not sent yet."""
        self._body = body
        self._patience = patience

    def __iter__(self) -> Iterator[memoryview]:
        for offset in range(0, self._body.nbytes, _PIECE):
            piece = self._body[offset : offset + _PIECE]
            yield piece
            self._patience.grant(piece.nbytes)
            self.left -= piece.nbytes


def _body(response: urllib3.BaseHTTPResponse, method: str, most: int | None, patience: _Patience) -> Iterator[bytes]:
    """Read the body. Raises: `Unavailable` if it is not as it is stored, or nothing tells whether it is all."""
    if method != "HEAD" and response.status in _NEEDED:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Unavailable(f"cannot {patience.action}: the answer is compressed, unasked", transient=False)
        if "Content-Length" not in response.headers and not response.chunked:
            raise Unavailable(f"cannot {patience.action}: the answer does not say how long it is")
    left = most
    while piece := response.read1(_PIECE):  # what is there: `read` would wait for all of it, however slowly it drips
        patience.grant(len(piece))
        yield piece if left is None else piece[:left]
        if left is not None:
            left -= len(piece)
            if left <= 0 and response.length_remaining != 0:
                response.close()  # more would come
                return

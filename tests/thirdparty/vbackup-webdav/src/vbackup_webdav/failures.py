"""What a status of HTTP, or the lack of an answer, means to vbackup.

Statuses: RFC 9110, section 15, and RFC 4918, section 11. What a server says beside its status is not repeated: it may
hold anything.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from urllib3 import exceptions as failed

from vbackup.api import AccessDenied, NoSpace, Unavailable, Unsupported, VBackupError

_PASSING = {408, 423, 425, 429, 500, 502, 503, 504}
_LONGEST_PAUSE = 3600.0
_HINTS = {
    401: "check `user` and `password`",
    403: "check what this user may do there, and that the server lets anybody write",
    405: "is WebDAV switched on at this address? check `url`",
    407: "a proxy asks for credentials: this transport knows no proxies",
    413: "let the server take requests of 100 MiB (LimitRequestBody, client_max_body_size ...)",
    423: "another client holds a lock of WebDAV on it, which ends by itself",
    501: "the server lacks this of WebDAV",
    507: "free some space or raise the quota",
}


def refused(status: int, headers: urllib3.HTTPHeaderDict, action: str) -> VBackupError:
    """Return what it means that ``action`` ("store x in https://..." or the like) was answered by ``status``."""
    message, hint = f"cannot {action}: the server answered HTTP {status}", _HINTS.get(status, "")
    if 300 <= status < 400:
        hint = "redirects are not followed: set `url` to where the collection is"
        return Unavailable(f"{message}, a redirect", hint=hint, transient=False)
    if status in (401, 403, 407):
        return AccessDenied(message, hint=hint)
    if status == 507:
        return NoSpace(message, hint=hint)
    if status in (405, 413, 501, 505):
        return Unsupported(message, hint=hint)
    wait = headers.get("Retry-After", "")
    pause = min(float(wait), _LONGEST_PAUSE) if wait.isascii() and wait.isdigit() else None
    transient = status in _PASSING or status > 507
    return Unavailable(message, hint=hint, transient=transient, retry_after=pause if transient else None)


@contextmanager
def told(action: str) -> Iterator[None]:
    """Turn errors of urllib3 into ours. Its own text is left out where it repeats what we sent."""
    try:
        yield
    except failed.HTTPError as error:
        raise _no_answer(error, action) from error


def _no_answer(error: failed.HTTPError, action: str) -> VBackupError:
    message, hint = f"cannot {action}", "check `url`, the server and the network"
    cause = error.args[-1] if error.args else error
    if isinstance(error, failed.SSLError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = "set `ca` to its certificate authority, and use the name in `url` that it is for"
            return Unavailable(f"{message}: the certificate of the server is not trusted", hint=hint, transient=False)
        if "WRONG_VERSION_NUMBER" in str(error):
            hint = "use http:// in `url`, or set up TLS there"
            return Unavailable(f"{message}: the server does not speak TLS", hint=hint, transient=False)
        return Unavailable(f"{message}: TLS failed ({type(cause).__name__})", hint=hint)
    if isinstance(error, failed.NameResolutionError):
        passing = getattr(error.__cause__, "errno", None) == socket.EAI_AGAIN
        return Unavailable(f"{message}: the server's name has no address", hint=hint, transient=passing)
    if isinstance(error, failed.NewConnectionError):
        return Unavailable(f"{message}: the server takes no connection", hint=hint)
    if isinstance(error, failed.TimeoutError | failed.EmptyPoolError):
        return Unavailable(f"{message}: the server did not answer in time", hint=hint)
    return Unavailable(f"{message}: the connection broke, or the answer was none of HTTP", hint=hint)

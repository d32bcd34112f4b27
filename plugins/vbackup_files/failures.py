"""What an errno of a file system means to vbackup."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from vbackup.api import AccessDenied, NoSpace, Unavailable, Unsupported, VBackupError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
UNHEARD = {
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.EPIPE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENETRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
}
"""There was no answer: asking the server for more would only take as long again."""

_PASSING = {
    *UNHEARD,
    errno.EIO,
    errno.ESTALE,
    errno.ENODEV,
    errno.ENXIO,
    errno.EBUSY,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOENT,
}
"""A disk or server that comes back, something of the system that is used up for now, or a file that was taken away
under us. That an object is not there is dealt with before it comes to this."""

ANSWERS = {
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
"""What a server says over a connection that works. After anything else the connection is not used again."""

NOT_HERE = (FileNotFoundError, NotADirectoryError)
"""A key, or a part of it, is not there. Opening a symbolic link as a directory fails like this too."""


@contextmanager
def told(action: str) -> Iterator[None]:
    """Turn an `OSError` into the error that says so; ``action`` is "store packs/ab under /srv/vbackup" or the like."""
    try:
        yield
    except OSError as error:
        raise as_ours(error, action) from error


def as_ours(error: OSError, action: str) -> VBackupError:
    """Return what ``error`` means when doing ``action``."""
    message = f"cannot {action}: {error.strerror}"
    if error.errno in _FULL:
        return NoSpace(message, hint="free some space or raise the quota")
    if error.errno in _DENIED:
        return AccessDenied(message, hint="check owner, mode and mount options of the directory")
    if error.errno == errno.ENOTSUP:
        return Unsupported(message)
    return Unavailable(message, transient=error.errno in _PASSING)

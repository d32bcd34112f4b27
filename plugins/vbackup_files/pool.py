"""Connections that threads borrow, one at a time each."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

C = TypeVar("C")

_ANSWERS = {
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
}
"""What a server says over a connection that works. After anything else the connection is not used again."""


class Pool(Generic[C]):
    """At most ``size`` connections, made when they are needed and used again."""

    def __init__(self, connect: Callable[[], C], close: Callable[[C], None], size: int) -> None:
        self._connect = connect
        self._close = close
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[C] = []

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection; waits while all are lent."""
        with self._free:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._connect()
            works = False
            try:
                yield connection
                works = True
            except OSError as error:
                works = error.errno in _ANSWERS
                raise
            finally:
                if works:
                    with self._lock:
                        self._idle.append(connection)
                else:
                    self._close(connection)

    def close(self) -> None:
        """Close all connections that are not lent."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            self._close(connection)

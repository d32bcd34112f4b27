"""Connections that threads borrow, one at a time each."""

from __future__ import annotations

import errno
import threading
from collections import deque
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
    errno.ELOOP,
}
"""What a server says over a connection that works. After anything else the connection is not used again."""


class Pool(Generic[C]):
    """At most ``size`` connections, made when they are needed and used again."""

    def __init__(self, connect: Callable[[], C], close: Callable[[C], None], size: int) -> None:
        self._connect = connect
        self._close = close
        self._turns = _Turns(size)
        self._lock = threading.Lock()
        self._idle: list[C] = []

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection; waits while all are lent. Who asks first is served first."""
        with self._turns:
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
                    self.close()  # what broke one has broken the others, or will: the next call connects anew

    def close(self) -> None:
        """Close all connections that are not lent."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            self._close(connection)


class _Turns:
    """A semaphore that is fair: with `threading.Semaphore` a few busy readers keep a writer out for ever."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._left = count
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._left:
                self._left -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            turn.wait()
        except BaseException:  # interrupted
            with self._lock:
                if not turn.is_set():
                    self._waiting.remove(turn)
                    raise
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._left += 1

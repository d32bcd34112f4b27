"""Connections that threads borrow, one at a time each."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from vbackup.api.turns import Turns
from vbackup_files.failures import ANSWERS

C = TypeVar("C")


class Pool(Generic[C]):
    """At most ``size`` connections, made when they are needed and used again.

    Where a server was silent for one, those that waited for a connection meanwhile fail as that one did: one after the
    other they would wait many times as long.
    """

    def __init__(self, connect: Callable[[], C], close: Callable[[C], None], size: int) -> None:
        self._connect = connect
        self._close = close
        self._turns = Turns(size)
        self._lock = threading.Lock()
        self._idle: list[C] = []
        self._silences = 0

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection; waits while all are lent. Who asks first is served first."""
        silences = self._silences
        with self._turns:
            if self._silences != silences:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            works = False
            connection: C | None = None
            try:
                connection = self._idle_one()
                if connection is None:
                    connection = self._connect()
                yield connection
                works = True
            except OSError as error:
                works = error.errno in ANSWERS
                self._silences += error.errno == errno.ETIMEDOUT
                raise
            finally:
                if connection is not None:
                    self._take_back(connection, works=works)

    def close(self) -> None:
        """Close all connections that are not lent."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            self._close(connection)

    def _idle_one(self) -> C | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _take_back(self, connection: C, *, works: bool) -> None:
        if works:
            with self._lock:
                self._idle.append(connection)
        else:
            self._close(connection)
            self.close()  # what broke one has broken the others, or will: the next call connects anew

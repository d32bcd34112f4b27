"""Counting: what a store is asked, and how many functions of Python run."""

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from vbackup.api import Transport
from vbackup.api.hypervisor import Buffer
from vbackup.api.wrapper import Wrapper

T = TypeVar("T")


class CountingTransport(Wrapper):
    """Counts operations by their names, and the bytes that were ``sent`` and ``fetched``."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`."""
        super().put(key, data, if_absent=if_absent)
        self._count("sent", memoryview(data).nbytes)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        data = super().get(key, offset, length)
        self._count("fetched", len(data))
        return data

    def around(self, operation: str, key: str, action: Callable[[], T]) -> T:
        """Act, and count it."""
        self._count(operation, 1)
        return super().around(operation, key, action)

    def _count(self, what: str, number: int) -> None:
        with self._lock:
            self.counts[what] += number


class Calls:
    """Counts calls of functions that are written in Python, of all threads that are started from now on.

    A generator that goes on is a call, too; a function of C is none.
    """

    def __init__(self) -> None:
        self._calls = itertools.count()
        self._taken = 0
        threading.setprofile(self._hear)
        sys.setprofile(self._hear)

    def take(self) -> int:
        """Return how many there were since this was last asked."""
        now = next(self._calls)  # counts itself, which is the one too many below
        since, self._taken = now - self._taken, now + 1
        return since

    def stop(self) -> None:
        """Count no longer."""
        sys.setprofile(None)
        threading.setprofile(None)

    def _hear(self, _frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            next(self._calls)  # in one step: no thread comes between

"""A bound on bytes that are under way."""

from __future__ import annotations

import threading


class ByteBudget:
    """Bytes that may be held at once by all stages together. Waiters are served as bytes come back."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._condition = threading.Condition()

    def acquire(self, size: int) -> None:
        """Wait until ``size`` bytes fit; a request above the limit waits until nothing else is held."""
        with self._condition:
            self._condition.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size

    def release(self, size: int) -> None:
        """Give bytes back."""
        with self._condition:
            self._used -= size
            self._condition.notify_all()

"""Locks on stores that have them: nothing that a point needs can be deleted before the point may be, by whomever.

Objects are locked for a fourth longer than asked for, and again only when less than that is left: a store of ten
thousand packs sees ten thousand requests once in a fourth of the time, and not each night.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from vbackup.api import Transport, clock
from vbackup.repository.cache import Cache

_AT_ONCE = 8


class Locks:
    """Extends locks. ``days`` is how long each point is kept from being deleted; None: not at all. Thread-safe."""

    def __init__(self, transport: Transport, cache: Cache, days: int | None) -> None:
        self._transport = transport
        self._cache = cache
        self._days = days

    def extend(self, keys: Iterable[str]) -> datetime | None:
        """See that objects are locked for the time of a point made now; return until when that is.

        Raises: `AccessDenied`, `NotFound`, `Unavailable`: then no point may be made that counts on it.
        """
        if self._days is None:
            return None
        now = clock.now()
        until, longer = now + timedelta(days=self._days), now + timedelta(days=1.25 * self._days)
        known = self._cache.locks()
        short = [key for key in keys if known.get(key, 0.0) < until.timestamp()]
        with ThreadPoolExecutor(_AT_ONCE, "locks") as pool:
            for _ in pool.map(lambda key: self._transport.lock(key, longer), short):
                pass
        self._cache.set_locks({key: longer.timestamp() for key in short})
        return until

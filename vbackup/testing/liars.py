"""Stores that lie, or do not do all that they are asked, as wrappers around others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vbackup.api import AccessDenied, ObjectInfo, Transport
from vbackup.api.hypervisor import Buffer
from vbackup.testing.transports import FaultyTransport

Gives = Callable[[str, bytes], bytes]
"""What a get gives for a key, and what is stored there whole."""


class Liar(FaultyTransport):
    """Gives other bytes than are stored: flipped, cut short, of another object; passes the rest on."""

    def __init__(self, inner: Transport, gives: Gives) -> None:
        super().__init__(inner)
        self.gives = gives

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self.gives(key, self.inner.get(key))
        return data[offset:] if length is None else data[offset : offset + length]

    def size(self, key: str) -> int:
        return len(self.gives(key, self.inner.get(key)))


class WrongSizes(FaultyTransport):
    """Lists objects with sizes of its own."""

    def __init__(self, inner: Transport, size: Callable[[str, int], int]) -> None:
        super().__init__(inner)
        self._size = size

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return (ObjectInfo(info.key, self._size(info.key, info.size)) for info in self.inner.list(prefix))


class History:
    """What became of a store, as all its `Stale` clients have changed it: for lists that are late."""

    def __init__(self) -> None:
        self._changes: list[tuple[str, int | None]] = []
        self._lock = threading.Lock()

    def note(self, key: str, size: int | None) -> None:
        """An object has that size now; None: it is gone."""
        with self._lock:
            self._changes.append((key, size))

    def sizes(self, lag: int) -> dict[str, int]:
        """Objects as they were ``lag`` changes ago."""
        with self._lock:
            changes = self._changes[: max(0, len(self._changes) - lag)]
        return {key: size for key, size in dict(changes).items() if size is not None}


class Stale(FaultyTransport):
    """Its lists miss what was put in the last ``lag`` changes, by whomever, and still show what was deleted."""

    def __init__(self, inner: Transport, history: History, lag: int = 0) -> None:
        super().__init__(inner)
        self._history = history
        self.lag = lag

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self.inner.put(key, data, if_absent=if_absent)
        self._history.note(key, len(data))

    def delete(self, key: str) -> None:
        self.inner.delete(key)
        self._history.note(key, None)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        sizes = self._history.sizes(self.lag)
        return (ObjectInfo(k, s) for k, s in sizes.items() if not prefix or k == prefix or k.startswith(f"{prefix}/"))

    @contextmanager
    def late(self, lag: int) -> Iterator[None]:
        """Have another lag for the time of the context."""
        before, self.lag = self.lag, lag
        try:
            yield
        finally:
            self.lag = before


class AppendOnly(FaultyTransport):
    """A credential that may add and read; objects that are there can be neither deleted nor replaced."""

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if any(info.key == key for info in self.inner.list(key)):
            raise AccessDenied(f"object {key} may not be replaced")
        self.inner.put(key, data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        raise AccessDenied(f"object {key} may not be deleted", hint="this credential only adds")

"""Chunks that were read lately, and may be asked for again at once: a disk is looked into a few KiB at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

_MOST = 96 << 20


class Decoded:
    """Plain bytes of chunks by id, `_MOST` bytes of them; those go first that were not asked for longest. Thread-safe.

    An id stands for its bytes for ever, so nothing here gets old.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._chunks: OrderedDict[bytes, bytes] = OrderedDict()
        self._size = 0

    def find(self, ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return those of ``ids`` that are here."""
        found: dict[bytes, bytes] = {}
        with self._lock:
            for chunk in ids:
                data = self._chunks.get(chunk)
                if data is not None:
                    self._chunks.move_to_end(chunk)
                    found[chunk] = data
        return found

    def add(self, chunks: Mapping[bytes, bytes]) -> None:
        """Keep chunks; older ones make room."""
        with self._lock:
            for chunk, data in chunks.items():
                if chunk not in self._chunks:
                    self._chunks[chunk] = data
                    self._size += len(data)
            while self._size > _MOST:
                self._size -= len(self._chunks.popitem(last=False)[1])

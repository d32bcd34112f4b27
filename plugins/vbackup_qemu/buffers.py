"""Memory for reads that is used again.

New memory costs a page fault for every 4 KiB, and Python clears it while holding its lock: together a twentieth of
a full backup's time.
"""

from __future__ import annotations

import sys
import threading

_SIZE = 4 << 20
"""What the engine reads at once where a disk has enough data in one place; other sizes are not kept."""
_MOST = 64
"""Buffers that are kept: what a dozen disks have under way at once."""


def _references(buffers: list[bytearray]) -> list[int]:
    return [sys.getrefcount(buffer) for buffer in buffers]


_UNUSED = _references([bytearray(1)])[0]
"""References to a buffer that only the list has, as this interpreter counts them."""


class Buffers:
    """Buffers, each either with us alone or with somebody who reads from it. Thread-safe.

    That nobody holds a buffer any more is told by its count of references: views of it count, and so do reads that
    were abandoned while the library may still write to it. Nobody has to give anything back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buffers: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """Return a buffer of ``size`` bytes with anything in it."""
        if size != _SIZE:
            return bytearray(size)
        with self._lock:
            for buffer, references in zip(self._buffers, _references(self._buffers), strict=True):
                if references == _UNUSED:
                    return buffer
            fresh = bytearray(size)
            if len(self._buffers) < _MOST:
                self._buffers.append(fresh)
            return fresh


BUFFERS = Buffers()
"""Of all disks of this process."""

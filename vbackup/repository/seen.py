"""Which chunks were met before, in little memory."""

from __future__ import annotations

from collections import defaultdict

_MOST = 1 << 23
"""Chunks that are remembered, in about 100 MB: 1 TiB of them by default. Others count as new each time."""


class Seen:
    """A set of chunk ids, of each of which 10 bytes are looked at: ids are random, so no more is needed."""

    def __init__(self) -> None:
        self._parts: defaultdict[bytes, bytearray] = defaultdict(bytearray)
        self._count = 0

    def __contains__(self, chunk: bytes) -> bool:
        return chunk[2:10] in self._parts[chunk[:2]]

    def add(self, chunk: bytes) -> None:
        """Remember a chunk."""
        if self._count < _MOST:
            self._count += 1
            self._parts[chunk[:2]] += chunk[2:10]

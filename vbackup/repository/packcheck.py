"""Packs read in full: a pack that hashes to its name holds what was stored; of any other each blob is looked at.

The hash needs no key that reads, so a host that only writes can check all data. Which chunks of a damaged pack are
bad only a key that reads can tell, except for nodes of disk maps.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from blake3 import blake3

from vbackup.api import Corrupt, NotFound, Unsupported, WrongKey
from vbackup.repository.cache import Cache
from vbackup.repository.layout import pack_key
from vbackup.repository.needs import Place
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.store import ChunkStore

_STEP = 8 << 20  # bytes of a request
_AT_ONCE = 4  # packs


class Broken(NamedTuple):
    """A pack that is there and does not hold what it should."""

    reason: str
    unreadable: frozenset[bytes]
    """Ids of chunks that cannot be read from it, or of which this key cannot tell."""


class PackCheck:
    """Reads packs of one store. ``progress`` gets bytes that were read, from any thread."""

    def __init__(self, store: ChunkStore, progress: Callable[[int], None]) -> None:
        self._store = store
        self._progress = progress

    def read(self, packs: Sequence[bytes], sizes: Mapping[bytes, int]) -> Iterator[tuple[bytes, Broken | None]]:
        """Yield packs in order with what is wrong with them, several being read ahead; those that are gone are left
        out. Errors of the store are raised, and are no damage.
        """
        with ThreadPoolExecutor(_AT_ONCE, "check") as pool:
            pending: deque[tuple[bytes, Future[bool | None]]] = deque()
            try:
                for name in packs:
                    pending.append((name, pool.submit(self._is_whole, name, sizes[name])))
                    if len(pending) > _AT_ONCE:
                        yield from self._result(*pending.popleft(), sizes)
                while pending:
                    yield from self._result(*pending.popleft(), sizes)
            finally:
                for _, future in pending:
                    future.cancel()

    def _result(
        self, name: bytes, future: Future[bool | None], sizes: Mapping[bytes, int]
    ) -> Iterator[tuple[bytes, Broken | None]]:
        whole = future.result()
        if whole is not None:
            yield name, None if whole else self.examine(name, sizes[name])

    def _is_whole(self, name: bytes, size: int) -> bool | None:
        """Whether a pack hashes to its name; None: it is gone."""
        hasher, at, key = blake3(), 0, pack_key(name)
        try:
            while at < size and (part := self._store.transport.get(key, at, min(_STEP, size - at))):
                hasher.update(part)
                at += len(part)
                self._progress(len(part))
        except NotFound:
            return None
        return hasher.digest() == name

    def examine(self, name: bytes, size: int) -> Broken | None:
        """Look at each blob of a pack that is doubtful; return what is wrong. Nothing is believed that is seen once."""
        whole = self._is_whole(name, size)
        if whole is None:
            return None
        bad: set[bytes] = set()
        unknown: set[bytes] = set()
        for group in _groups(_places(self._store.cache, name)):
            data = memoryview(self._get(name, group[0].offset, _end(group) - group[0].offset))
            for place in group:
                start = place.offset - group[0].offset
                verdict = self.verdict(place, data[start : start + place.length])
                if verdict is False and not self.verdict(place, self._get(name, place.offset, place.length)):
                    bad.add(place.id)
                if verdict is None:
                    unknown.add(place.id)
        if whole:
            unknown.clear()
        if whole and not bad:
            return None
        which = ", and only a key that reads can tell which of its chunks are affected" if unknown else ""
        return Broken(f"pack {pack_key(name)} is not what was stored{which}", frozenset(bad | unknown))

    def _get(self, name: bytes, offset: int, length: int) -> bytes:
        try:
            return self._store.transport.get(pack_key(name), offset, length)
        except NotFound:
            return b""

    def verdict(self, place: Place, blob: bytes | memoryview) -> bool | None:
        """Whether a blob is good; None: this key, or this installation, cannot tell."""
        try:
            chain = self._store.chains.of(place.origin)
            chain.decode(ChunkKind(place.kind), place.id, blob, place.size)
        except (WrongKey, Unsupported):
            return None
        except (Corrupt, ValueError):
            return False
        return True


def _places(cache: Cache, pack: bytes) -> list[Place]:
    """Return all that is said to be in a pack, in its order."""
    query = (
        "SELECT c.id, c.kind, p.name, o.data, c.start, c.length, c.size FROM packs p "
        "JOIN chunks c ON c.pack = p.number JOIN origins o ON o.number = c.origin WHERE p.name = ? ORDER BY c.start"
    )

    def select(db: sqlite3.Connection) -> list[Place]:
        db.execute("CREATE INDEX IF NOT EXISTS chunks_of_packs ON chunks (pack)")
        return [Place(*row) for row in db.execute(query, (pack,))]

    return cache.reading(select)


def _groups(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Cut a pack's blobs into what one request fetches."""
    group: list[Place] = []
    for place in places:
        if group and _end([place]) - group[0].offset > _STEP:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _end(group: Sequence[Place]) -> int:
    return group[-1].offset + group[-1].length

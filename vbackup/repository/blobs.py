"""Blobs read as they are stored, for another repository of the family: nothing is decoded that need not be.

What is handed out is what was stored. A pack that is read whole must hash to its name, and its own list says where
what is; blobs that are picked out of a pack must decode. A key that only writes can do only the former.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from blake3 import blake3

from vbackup.api import Corrupt, NotFound
from vbackup.repository.cache import Location
from vbackup.repository.fetch import PackGone, grouped
from vbackup.repository.layout import pack_key
from vbackup.repository.packs import open_pack
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.session import Blob
from vbackup.repository.store import ChunkStore

_SPARSE = 4
"""A pack of which less than this part is wanted is not read whole, if blobs can be checked one by one."""
_AHEAD = 2
"""Packs that are fetched ahead, of about 32 MiB each."""
_ATTEMPTS = 8

Places = Mapping[bytes, Location]


class _Fetched(NamedTuple):
    blobs: list[Blob]
    failures: dict[bytes, Corrupt]
    read: int


class BlobReader:
    """Reads blobs of one repository. Used by one thread."""

    def __init__(self, store: ChunkStore) -> None:
        self._store = store
        self._sizes: dict[bytes, int] = {}
        self.read = 0
        """Bytes that were read."""

    def blobs(self, kind: ChunkKind, ids: Sequence[bytes]) -> Iterator[Blob]:
        """Yield the blobs of chunks, in any order. Raises: `Corrupt` naming the pack, `Unavailable`.

        A pack that is gone may have been pruned after its place was looked up: then what it held is elsewhere.
        """
        left = dict.fromkeys(ids)
        places: dict[bytes, list[Location]] = {}
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._store.look()
            before, places = places, self._store.locate(list(left))
            if attempt and places == {i: before[i] for i in left if i in before}:
                break
            failures = {i: Corrupt(f"chunk {i.hex()} is in no pack of the repository") for i in left if i not in places}
            for rank in range(max(map(len, places.values()), default=0)):
                wanted = {i: place[rank] for i, place in places.items() if i in left and rank < len(place)}
                for fetched in self._fetch_all(kind, wanted):
                    self.read += fetched.read
                    failures |= fetched.failures
                    for blob in fetched.blobs:
                        del left[blob.id]
                        yield blob
            if not left:
                return
        raise failures[next(iter(left))]

    def _fetch_all(self, kind: ChunkKind, places: Places) -> Iterator[_Fetched]:
        """Fetch blobs pack by pack, a few packs ahead."""
        packs: dict[bytes, dict[bytes, Location]] = defaultdict(dict)
        for chunk, place in places.items():
            packs[place.pack][chunk] = place
        if not packs.keys() <= self._sizes.keys():
            self._sizes = {name: known.size for name, known in self._store.cache.packs().items()}
        with ThreadPoolExecutor(_AHEAD, "packs") as pool:
            pending: deque[Future[_Fetched]] = deque()
            try:
                for name in sorted(packs):
                    pending.append(pool.submit(self._fetch, kind, name, packs[name]))
                    if len(pending) > _AHEAD:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _fetch(self, kind: ChunkKind, name: bytes, places: Places) -> _Fetched:
        can_pick = self._store.keys.can_read
        try:
            if can_pick and sum(place.length for place in places.values()) * _SPARSE < self._sizes.get(name, 0):
                return self._picked(kind, places)
            data = self._store.transport.get(pack_key(name))
            if blake3(data).digest() == name:
                return self._from_pack(kind, name, data, places)
            self._store.cache.suspect([name])
            if can_pick:
                return self._picked(kind, places)
            wrong = Corrupt(f"pack {pack_key(name)} is not what was stored")
            return _Fetched([], dict.fromkeys(places, wrong), len(data))
        except NotFound:
            return _Fetched([], dict.fromkeys(places, PackGone(f"pack {pack_key(name)} is missing")), 0)

    def _from_pack(self, kind: ChunkKind, name: bytes, data: bytes, places: Places) -> _Fetched:
        pack = open_pack(data, self._store.keys, name)
        blobs = [
            Blob(entry.id, pack.origins[entry.origin], data[entry.offset : entry.offset + entry.length], entry.size)
            for entry in pack.entries
            if entry.id in places and entry.kind == kind
        ]
        there = {blob.id for blob in blobs}
        wrong = Corrupt(f"pack {pack_key(name)} does not hold what the index says")
        return _Fetched(blobs, {chunk: wrong for chunk in places if chunk not in there}, len(data))

    def _picked(self, kind: ChunkKind, places: Places) -> _Fetched:
        """Fetch blobs of one pack with a request for each run of them, and see that they decode."""
        blobs: list[Blob] = []
        failures: dict[bytes, Corrupt] = {}
        read = 0
        for group in grouped(places):
            start, last = places[group[0]].offset, places[group[-1]]
            key = pack_key(last.pack)
            data = self._store.transport.get(key, start, last.offset + last.length - start)
            read += len(data)
            for chunk in group:
                place = places[chunk]
                blob = data[place.offset - start :][: place.length]
                try:
                    self._store.chains.of(place.origin).decode(kind, chunk, blob, place.size)
                    blobs.append(Blob(chunk, place.origin, blob, place.size))
                except Corrupt as error:
                    failures[chunk] = Corrupt(f"pack {key} at {place.offset}+{place.length}: {error.message}")
                    self._store.cache.suspect([place.pack])
        return _Fetched(blobs, failures, read)

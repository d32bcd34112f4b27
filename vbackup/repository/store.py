"""The chunk store: where every chunk is, and chunks read back by their ids."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from vbackup.api import Codec, Corrupt, NotFound, Transport
from vbackup.repository.cache import Cache, Location
from vbackup.repository.chunks import Chain, Chains
from vbackup.repository.index import read_index
from vbackup.repository.layout import INDEX, PACKS, pack_key, pack_name
from vbackup.repository.packs import Header, Pack, parse_header, read_pack
from vbackup.repository.sealing import ChunkKind, Keys

log = logging.getLogger(__name__)

_GAP = 64 << 10
"""Blobs of one pack that are no further apart than this are fetched with one request."""


class Synced(NamedTuple):
    """What was damaged or missing in the store and how it was healed; packs that no index lists."""

    notes: list[str]
    adopted: list[Pack]


class ChunkStore:
    """Reads of one open repository. Thread-safe."""

    def __init__(self, transport: Transport, keys: Keys, codec: Callable[[str], Codec], cache: Cache) -> None:
        self.transport = transport
        self.keys = keys
        self.cache = cache
        self.chains = Chains(keys, codec)
        self._headers: dict[bytes, Header] = {}
        self._lock = threading.Lock()
        self._synced = False
        self._rebuilt = False
        self.packs_missing = False
        """Whether an index names packs that the store has not; known after ``sync(adopt=True)``."""

    def sync(self, *, adopt: bool = False) -> Synced:
        """Bring the cache up to the stored index.

        An index object that is damaged is replaced by the footers of the packs that no other one lists; with
        ``adopt`` that is done for all such packs, so that what a dead run stored is found again.
        """
        with self._lock:
            self._synced = True
            notes = self._load_index()
            adopted: list[Pack] = []
            if notes or adopt:
                more, adopted = self._match_packs()
                notes += more
            for note in notes:
                log.warning("%s", note)
            return Synced(notes, adopted)

    def _load_index(self) -> list[str]:
        listed = {info.key for info in self.transport.list(INDEX)}
        cached = {key for key in self.cache.objects() if key.startswith(f"{INDEX}/")}
        if cached - listed:
            self.cache.clear()
            cached = set()
        notes = []
        for key in sorted(listed - cached):
            try:
                self.cache.add(key, list(read_index(self.keys, key, self.transport.get(key))))
            except Corrupt as error:
                notes.append(f"{error.message}; its packs' own lists were read instead")
        return notes

    def _match_packs(self) -> tuple[list[str], list[Pack]]:
        """Trust nothing about packs that are gone; read the footers of packs that no index knows, and return those."""
        names = (pack_name(info.key) for info in self.transport.list(PACKS))
        listed = {name for name in names if name is not None}
        known = self.cache.packs() - {pack_name(key) for key in self.cache.objects()}
        notes: list[str] = []
        gone = known - listed
        self.packs_missing = bool(gone)
        if gone:
            self.cache.forget_chunks(gone)
            some = ", ".join(pack_key(name) for name in sorted(gone)[:3])
            notes.append(f"{len(gone)} packs are missing from the store ({some} ...): run `vbackup verify`")
        adopted: list[Pack] = []
        for name in sorted(listed - known):
            try:
                adopted.append(read_pack(self.transport, self.keys, name))
                self.cache.add(pack_key(name), adopted[-1:])
            except Corrupt as error:
                notes.append(f"{error.message}; it was left out")
            except NotFound:
                log.debug("pack %s went away while it was read", name.hex())
        return notes, adopted

    def locate(self, ids: Sequence[bytes]) -> Mapping[bytes, Location]:
        """Return where chunks are; those that are nowhere are left out."""
        if not self._synced:
            self.sync()
        found = self.cache.locate(ids)
        if any(chunk not in found for chunk in ids):
            self._rebuild()
            found = self.cache.locate(ids)
        return found

    def _rebuild(self) -> None:
        """Once per open repository: a look-up failed, so believe the store and not the cache."""
        with self._lock:
            if self._rebuilt:
                return
            self._rebuilt = True
            self.cache.clear()
            self._load_index()
            self._match_packs()

    def read(self, kind: ChunkKind, ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the plain bytes of chunks by id. Raises: `Corrupt` naming the pack, `Unavailable`."""
        plain, failures = self.read_some(kind, ids)
        for error in failures.values():
            raise error
        return plain

    def read_some(self, kind: ChunkKind, ids: Iterable[bytes]) -> tuple[dict[bytes, bytes], dict[bytes, Corrupt]]:
        """Like `read`, but hand back, by id, why chunks cannot be read. Errors of the store itself are raised."""
        wanted = list(dict.fromkeys(ids))
        plain, failures = self._read_at(kind, wanted, self.locate(wanted))
        if failures and not self._rebuilt:  # the cache may have sent us to a wrong place
            self._rebuild()
            again, failures = self._read_at(kind, list(failures), self.locate(list(failures)))
            plain |= again
        return plain, failures

    def _read_at(
        self, kind: ChunkKind, ids: Sequence[bytes], places: Mapping[bytes, Location]
    ) -> tuple[dict[bytes, bytes], dict[bytes, Corrupt]]:
        plain: dict[bytes, bytes] = {}
        failures = {i: Corrupt(f"chunk {i.hex()} is in no pack of the repository") for i in ids if i not in places}
        for group in _groups(places):
            place = places[group[0]]
            key, start = pack_key(place.pack), place.offset
            last = places[group[-1]]
            length = last.offset + last.length - start
            try:
                data = memoryview(self.transport.get(key, start, length))
                chain = self._chain(place, key)
            except (NotFound, Corrupt) as error:
                reason = f"pack {key} is missing" if isinstance(error, NotFound) else error.message
                failures |= {chunk: Corrupt(reason) for chunk in group}
                continue
            for chunk in group:
                at = places[chunk].offset - start
                try:
                    blob = data[at : at + places[chunk].length]
                    plain[chunk] = chain.decode(kind, chunk, blob, places[chunk].size)
                except Corrupt as error:
                    where = f"pack {key} at {places[chunk].offset}+{places[chunk].length}"
                    failures[chunk] = Corrupt(f"{where}: {error.message}")
        return plain, failures

    def _chain(self, place: Location, key: str) -> Chain:
        header = self._headers.get(place.header)
        if header is None:
            header = self._headers[place.header] = parse_header(place.header, key)
        return self.chains.of(bytes.fromhex(header.salt), header.codecs)

    def check_pack(self, name: bytes) -> Corrupt | None:
        """Check a pack's header and footer, and the cache against them; return what is wrong."""
        key = pack_key(name)
        try:
            stored = read_pack(self.transport, self.keys, name)
        except Corrupt as error:
            return error
        except NotFound:
            return Corrupt(f"pack {key} is missing")
        listed = {(entry.id, entry.offset, entry.length) for entry in stored.entries}
        if not self.cache.entries(name) <= listed:
            return Corrupt(f"pack {key} does not hold what the index says")
        return None


def _groups(places: Mapping[bytes, Location]) -> list[list[bytes]]:
    """Group chunks that one request can fetch: same pack, near together, ascending."""
    groups: list[list[bytes]] = []
    previous: Location | None = None
    for chunk, place in sorted(places.items(), key=lambda item: (item[1].pack, item[1].offset)):
        near = (
            previous is not None
            and place.pack == previous.pack
            and place.offset - previous.offset - previous.length <= _GAP
        )
        if near:
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
        previous = place
    return groups

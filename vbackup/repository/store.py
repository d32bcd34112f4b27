"""The chunk store: where every chunk is, and chunks read back by their ids."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from vbackup.api import Codec, Corrupt, NotFound, Transport
from vbackup.repository.cache import Cache, Location, Trust
from vbackup.repository.chunks import Chain, Chains
from vbackup.repository.index import read_index
from vbackup.repository.layout import INDEX, PACKS, pack_key, pack_name
from vbackup.repository.packs import Header, Pack, parse_header, read_pack
from vbackup.repository.sealing import ChunkKind, Keys

log = logging.getLogger(__name__)

MAX_INDEX = 64 << 20
_REFRESH_SECONDS = 5.0
_GAP = 64 << 10
"""Blobs of one pack that are no further apart than this are fetched with one request."""


class Begun(NamedTuple):
    """What a writer session begins with."""

    trust: Trust
    adopted: list[Pack]
    """Packs that no index lists, of dead runs or of such as are under way."""
    notes: list[str]
    """What was damaged or missing and how it was healed."""


class ChunkStore:
    """Reads of one open repository. Thread-safe."""

    def __init__(self, transport: Transport, keys: Keys, codec: Callable[[str], Codec], cache: Cache) -> None:
        self.transport = transport
        self.keys = keys
        self.cache = cache
        self.chains = Chains(keys, codec)
        self.is_doubtful = False
        """Whether packs are missing or were found damaged; known after `begin`."""
        self._headers: dict[bytes, Header] = {}
        self._lock = threading.Lock()
        self._generation = 0  # goes up when the cache was brought up to the store
        self._rebuilt = False
        self._synced = False
        self._last_refresh = -_REFRESH_SECONDS

    def sync(self) -> list[str]:
        """Bring the cache up to the stored index; return what was damaged."""
        with self._lock:
            self._synced = True
            notes = self._load_index()
            if notes:
                notes += self._match_packs()[1]
            self._generation += 1
            return notes

    def begin(self) -> Begun:
        """Bring the cache up to the store, and say what of it a session may build on."""
        with self._lock:
            self._synced = True
            notes = self._load_index()
            adopted, more, trust = self._match_packs()
            self._generation += 1
            for note in notes + more:
                log.warning("%s", note)
            return Begun(trust, adopted, notes + more)

    def _load_index(self) -> list[str]:
        cached = {key for key in self.cache.objects() if key.startswith(f"{INDEX}/")}
        listed = {info.key for info in self.transport.list(INDEX)}
        if cached - listed:
            self.cache.clear()
            cached = set()
        notes = []
        for key in sorted(listed - cached):
            try:
                self.cache.add(key, list(read_index(self.keys, key, bounded(self.transport, key, MAX_INDEX))))
            except Corrupt as error:
                notes.append(f"{error.message}; its packs' own lists were read instead")
            except NotFound:
                log.debug("index %s went away while it was read", key)
        return notes

    def _match_packs(self) -> tuple[list[Pack], list[str], Trust]:
        """Compare what the cache says with what the store lists, and read the footers of packs that no index knows.

        What the cache says is taken first: a pack that another process stores meanwhile is then new, and not missing.
        """
        known, adopted_before, epoch = self.cache.packs(), self.cache.objects(), self.cache.epoch
        sizes = {pack_name(info.key): info.size for info in self.transport.list(PACKS)}
        bad = {name for name, pack in known.items() if sizes.get(name) != pack.size}
        unindexed = {name for name in known if pack_key(name) in adopted_before}
        notes: list[str] = []
        if gone := bad - unindexed:
            some = ", ".join(pack_key(name) for name in sorted(gone)[:3])
            notes.append(f"{len(gone)} packs are missing from the store or cut short ({some}): run `vbackup verify`")
        suspects = {name for name, pack in known.items() if pack.suspect} - bad
        if suspects:
            notes.append(f"{len(suspects)} packs were found damaged: what they hold is stored again where it is met")
        self.is_doubtful = bool(bad or suspects)
        adopted: list[Pack] = []
        numbers: list[int] = []
        for name in sorted(n for n in sizes if n is not None and (n not in known or n in unindexed)):
            try:
                adopted.append(read_pack(self.transport, self.keys, name))
                numbers += self.cache.add(pack_key(name), adopted[-1:])
            except Corrupt as error:
                notes.append(f"{error.message}; it was left out")
            except NotFound:
                log.debug("pack %s went away while it was read", name.hex())
        trust = Trust(epoch, known, bad)
        trust.add(numbers)
        return adopted, notes, trust

    def locate(self, ids: Sequence[bytes]) -> dict[bytes, list[Location]]:
        """Return where chunks are; those that are nowhere are left out."""
        generation = self._current()
        found = self.cache.locate(ids)
        if any(chunk not in found for chunk in ids):  # another host may have stored them since
            self._refresh(generation)
            found = self.cache.locate(ids)
        return found

    def _current(self) -> int:
        if not self._synced:
            self.sync()
        return self._generation

    def _refresh(self, generation: int) -> None:
        with self._lock:
            now = time.monotonic()
            if generation == self._generation and now - self._last_refresh >= _REFRESH_SECONDS:
                self._last_refresh = now
                self._load_index()
                self._match_packs()
                self._generation += 1

    def _rebuild(self, generation: int) -> bool:
        """Believe the store and not the cache, once per open repository; return whether another look is worth it."""
        with self._lock:
            if generation == self._generation and not self._rebuilt:
                self._rebuilt = True
                self.cache.clear()
                self._load_index()
                self._match_packs()
                self._generation += 1
            return generation != self._generation

    def read(self, kind: ChunkKind, ids: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return the plain bytes of chunks by id. Raises: `Corrupt` naming the pack, `Unavailable`."""
        plain, failures = self.read_some(kind, ids)
        for error in failures.values():
            raise error
        return plain

    def read_some(self, kind: ChunkKind, ids: Iterable[bytes]) -> tuple[dict[bytes, bytes], dict[bytes, Corrupt]]:
        """Like `read`, but hand back, by id, why chunks cannot be read. Errors of the store itself are raised."""
        wanted = list(dict.fromkeys(ids))
        generation = self._current()
        plain, failures, suspects = self._read_at(kind, wanted, self.locate(wanted))
        while failures and self._rebuild(generation):  # the cache may have sent us to a wrong place
            generation = self._current()
            again, failures, suspects = self._read_at(kind, list(failures), self.locate(list(failures)))
            plain |= again
        if suspects:
            self.cache.suspect(suspects)
        return plain, failures

    def _read_at(
        self, kind: ChunkKind, ids: Sequence[bytes], places: Mapping[bytes, list[Location]]
    ) -> tuple[dict[bytes, bytes], dict[bytes, Corrupt], set[bytes]]:
        """Read chunks from their first places, and those that fail there from their next ones.

        Returns the bytes, why others cannot be read, and the packs in which anything could not be.
        """
        plain: dict[bytes, bytes] = {}
        failures = {i: Corrupt(f"chunk {i.hex()} is in no pack of the repository") for i in ids if i not in places}
        suspects: set[bytes] = set()
        attempt = 0
        while left := {i: p[attempt] for i, p in places.items() if i not in plain and attempt < len(p)}:
            for group in _groups(left):
                self._read_group(kind, group, left, plain, failures)
            suspects |= {left[i].pack for i in left if i not in plain}
            attempt += 1
        return plain, {i: error for i, error in failures.items() if i not in plain}, suspects

    def _read_group(
        self, kind: ChunkKind, group: Sequence[bytes], places: Mapping[bytes, Location],
        plain: dict[bytes, bytes], failures: dict[bytes, Corrupt],
    ) -> None:  # fmt: skip
        place, last = places[group[0]], places[group[-1]]
        key, start = pack_key(place.pack), place.offset
        try:
            data = memoryview(self.transport.get(key, start, last.offset + last.length - start))
        except NotFound:
            failures |= {chunk: Corrupt(f"pack {key} is missing") for chunk in group}
            return
        try:
            chain = self._chain(place, key)
        except Corrupt as error:
            failures |= {chunk: Corrupt(error.message) for chunk in group}
            return
        for chunk in group:
            at = places[chunk].offset - start
            try:
                blob = data[at : at + places[chunk].length]
                plain[chunk] = chain.decode(kind, chunk, blob, places[chunk].size)
            except Corrupt as error:
                where = f"pack {key} at {places[chunk].offset}+{places[chunk].length}"
                failures[chunk] = Corrupt(f"{where}: {error.message}")

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
            listed = {(entry.id, entry.offset, entry.length) for entry in stored.entries}
            if self.cache.entries(name) <= listed:
                return None
            error = Corrupt(f"pack {key} does not hold what the index says")
        except Corrupt as damage:
            error = damage
        except NotFound:
            error = Corrupt(f"pack {key} is missing")
        self.cache.suspect([name])
        return error


def bounded(transport: Transport, key: str, most: int) -> bytes:
    """Get an object that nothing is known of yet, of at most ``most`` bytes. Raises `Corrupt` for a larger one."""
    data = transport.get(key, 0, most + 1)
    if len(data) > most:
        raise Corrupt(f"object {key} is larger than any of its kind can be")
    return data


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

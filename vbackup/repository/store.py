"""The chunk store: where every chunk is, and chunks read back by their ids."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vbackup.api import Codec, Corrupt, NotFound, Transport
from vbackup.api.wrapper import Wrapper
from vbackup.repository.bounded import bounded
from vbackup.repository.cache import Cache, Location, Trust
from vbackup.repository.chunks import Chains
from vbackup.repository.condemned import Condemnation, Condemnations, packs_of
from vbackup.repository.damaged import list_damaged
from vbackup.repository.index import read_index
from vbackup.repository.layout import INDEX, PACKS, pack_key, pack_name
from vbackup.repository.packs import Pack, read_pack
from vbackup.repository.sealing import ChunkKind, Keys

log = logging.getLogger(__name__)

MAX_INDEX = 64 << 20
_REFRESH_SECONDS = 5.0
_ATTEMPTS = 8
_GAP = 64 << 10
"""Blobs of one pack that are no further apart than this are fetched with one request."""


class PackGone(Corrupt):
    """A pack is not in the store: it was lost, or pruned after its place was looked up."""


class Look(NamedTuple):
    """The store at one moment."""

    condemned: Mapping[str, Condemnation]
    trust: Trust
    """The packs that a session may build on."""
    adopted: list[Pack]
    """Packs that no index lists, of dead runs or of such as are under way."""
    missing: list[bytes]
    """Packs that an index lists and that are not there, or cut short."""
    damaged: list[str]
    """Index objects and packs' own lists that cannot be read, and how that was healed."""
    notes: list[str]
    """The same, and which packs are missing or in doubt."""
    doubt: Corrupt | None = None
    """Why nothing may be built on it: what is condemned cannot be told. That hinders nobody who only reads."""

    def need_certainty(self) -> None:
        """Raise `Corrupt` if nothing may be built on what was seen."""
        if self.doubt is not None:
            raise self.doubt


class ChunkStore:
    """Reads of one open repository. Thread-safe."""

    def __init__(
        self,
        transport: Transport,
        keys: Keys,
        codec: Callable[[str], Codec],
        cache: Cache,
        *,
        conditional: bool = False,
    ) -> None:
        self.transport = transport
        self.puts_if_absent = conditional
        """Whether the store refuses a second put of one key, as it showed at init."""
        self.keys = keys
        self.cache = cache
        self.chains = Chains(keys, codec)
        self._codec = codec
        self.condemnations = Condemnations(transport, keys)
        self.is_doubtful = False
        """Whether packs are missing or were found damaged; known after `look`."""
        self.note_level = logging.WARNING
        """At which level it is logged what is wrong with the store."""
        self._lock = threading.Lock()
        self._generation = 0  # goes up when the cache was brought up to the store
        self._rebuilt = False
        self._last_refresh = -_REFRESH_SECONDS

    def beside(self, cache: Cache) -> ChunkStore:
        """Return the same store, seen through another cache."""
        return ChunkStore(self.transport, self.keys, self._codec, cache, conditional=self.puts_if_absent)

    def look(self, *, adopt: bool = False) -> Look:
        """Bring the cache up to the store, and say what of it may be built on; ``adopt`` unlisted packs, too."""
        with self._lock:
            look = self._look(adopt=adopt)
        for note in look.notes:
            log.log(self.note_level, "%s", note)
        return look

    def _look(self, *, adopt: bool = False) -> Look:
        while True:
            condemned, doubt = self._condemned()
            indexes = {info.key for info in self.transport.list(INDEX)}
            damaged = self._load_index(indexes)
            look = self._match_packs(condemned, damaged, adopt=adopt)
            # A prune may have ended meanwhile: packs are missing only if the index still says that they are there.
            whole = not look.missing and indexes <= self.cache.indexes()
            if whole or {info.key for info in self.transport.list(INDEX)} == indexes:
                self._generation += 1
                if doubt is None:
                    return look
                told = [*look.damaged, doubt.message]
                return look._replace(damaged=told, notes=[*look.notes, doubt.message], doubt=doubt)

    def _condemned(self) -> tuple[Mapping[str, Condemnation], Corrupt | None]:
        try:
            return self.condemnations.load(), None
        except Corrupt as error:
            return {}, error

    def _load_index(self, listed: set[str]) -> list[str]:
        cached = self.cache.indexes()
        self.cache.forget_indexes(cached - listed)
        notes: list[str] = []
        self.cache.add_all(self._read_indexes(sorted(listed - cached), notes))
        return notes

    def _read_indexes(self, keys: Iterable[str], notes: list[str]) -> Iterator[tuple[str, list[Pack]]]:
        for key in keys:
            try:
                packs = list(read_index(self.keys, key, bounded(self.transport, key, MAX_INDEX)))
            except Corrupt as error:
                notes.append(f"{error.message}; its packs' own lists were read instead")
            except NotFound:
                log.debug("index %s went away while it was read", key)
            else:
                yield key, packs

    def _match_packs(self, condemned: Mapping[str, Condemnation], damaged: list[str], *, adopt: bool) -> Look:
        """Compare what the cache says with what the store lists, and read the footers of packs that no index knows.

        What the cache says is taken first: a pack that another process stores meanwhile is then new, and not missing.
        """
        suspected = list_damaged(self.transport)
        if suspected:
            self.cache.suspect(suspected)
        known, epoch, going = self.cache.packs(), self.cache.epoch, packs_of(condemned)
        sizes = {pack_name(info.key): info.size for info in self.transport.list(PACKS)}
        bad = {name for name, pack in known.items() if sizes.get(name) != pack.size}
        pruned = {name for name in bad if not known[name].listed and name not in sizes}
        missing = sorted(name for name in bad - pruned if name not in going and known[name].listed)
        notes: list[str] = []
        if missing:
            some = ", ".join(pack_key(name) for name in missing[:3])
            notes.append(f"{len(missing)} packs are missing from the store or cut short ({some}): run `vbackup verify`")
        suspects = {name for name, pack in known.items() if pack.suspect} - bad
        if suspects:
            notes.append(f"{len(suspects)} packs were found damaged: what they hold is stored again where it is met")
        self.is_doubtful = bool(missing or suspects)
        trust = Trust(epoch, known, bad | (going & known.keys()))
        adopted: list[Pack] = []
        # Condemned packs are never adopted; but what is needed of one must be found, also when no index lists it.
        for name in sorted(n for n in sizes if n is not None and not (adopt and n in going)):
            if name in known and (known[name].listed or not adopt):
                continue
            try:
                pack = read_pack(self.transport, self.keys, name)
            except Corrupt as error:
                damaged.append(f"{error.message}; it was left out")
                continue
            except NotFound:
                log.debug("pack %s went away while it was read", name.hex())
                continue
            numbers = self.cache.add(None, [pack])
            if name in suspected:
                self.cache.suspect([name])
            if adopt:
                adopted.append(pack)
                trust.add(numbers)
        self.cache.forget_packs(pruned)
        return Look(condemned, trust, adopted, missing, damaged, damaged + notes)

    def locate(self, ids: Sequence[bytes]) -> dict[bytes, list[Location]]:
        """Return where chunks are; those that are nowhere are left out."""
        generation = self._current()
        found = self.cache.locate(ids)
        if any(chunk not in found for chunk in ids):  # another host may have stored them since
            self._refresh(generation)
            found = self.cache.locate(ids)
        return found

    def _current(self) -> int:
        with self._lock:
            if not self._generation:
                for note in self._look().notes:
                    log.log(self.note_level, "%s", note)
            return self._generation

    def _refresh(self, generation: int) -> None:
        """Look again, unless somebody has since, or just did: chunks that nobody has are asked for one by one."""
        with self._lock:
            now = time.monotonic()
            if generation == self._generation and now - self._last_refresh >= _REFRESH_SECONDS:
                self._last_refresh = now
                self._look()

    def _look_again(self, generation: int, failures: Mapping[bytes, Corrupt]) -> bool:
        """Believe the store and not the cache; return whether another attempt at what failed is worth it.

        A pack that is gone may have been pruned: its chunks are elsewhere, as the index says by now. Else the cache
        may have sent us to a wrong place: it is read anew, once per open repository.
        """
        with self._lock:
            if generation == self._generation:
                if any(isinstance(error, PackGone) for error in failures.values()):
                    self._look()
                elif not self._rebuilt:
                    self._rebuilt = True
                    self.cache.clear()
                    self._look()
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
        attempts = 0
        while failures and attempts < _ATTEMPTS and self._look_again(generation, failures):
            attempts += 1
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
            for group in grouped(left):
                self._read_group(kind, group, left, plain, failures)
            suspects |= {left[i].pack for i in left if i not in plain}
            attempt += 1
        return plain, {i: error for i, error in failures.items() if i not in plain}, suspects

    def _read_group(
        self, kind: ChunkKind, group: Sequence[bytes], places: Mapping[bytes, Location],
        plain: dict[bytes, bytes], failures: dict[bytes, Corrupt],
    ) -> None:  # fmt: skip
        """Read chunks that lie together; where some are damaged, and may be so only in a cache, once more past it."""
        self._read_together(kind, group, places, plain, failures)
        damaged = [chunk for chunk in group if chunk not in plain]
        cached = self.transport if isinstance(self.transport, Wrapper) else None
        if damaged and cached is not None and cached.forget(pack_key(places[group[0]].pack)):
            self._read_together(kind, damaged, places, plain, failures)

    def _read_together(
        self, kind: ChunkKind, group: Sequence[bytes], places: Mapping[bytes, Location],
        plain: dict[bytes, bytes], failures: dict[bytes, Corrupt],
    ) -> None:  # fmt: skip
        place, last = places[group[0]], places[group[-1]]
        key, start = pack_key(place.pack), place.offset
        try:
            data = memoryview(self.transport.get(key, start, last.offset + last.length - start))
        except NotFound:
            failures |= {chunk: PackGone(f"pack {key} is missing") for chunk in group}
            return
        for chunk in group:
            at = places[chunk].offset - start
            try:
                chain = self.chains.of(places[chunk].origin)
                blob = data[at : at + places[chunk].length]
                plain[chunk] = chain.decode(kind, chunk, blob, places[chunk].size)
            except Corrupt as error:
                where = f"pack {key} at {places[chunk].offset}+{places[chunk].length}"
                failures[chunk] = Corrupt(f"{where}: {error.message}")

    def check_pack(self, name: bytes) -> Corrupt | None:
        """Check a pack's header and footer, and the cache against them; return what is wrong, `PackGone` included."""
        key = pack_key(name)
        try:
            stored = read_pack(self.transport, self.keys, name)
            if self.cache.agrees(stored):
                return None
            error = Corrupt(f"pack {key} does not hold what the index says")
        except Corrupt as damage:
            error = damage
        except NotFound:
            return PackGone(f"pack {key} is missing")  # or pruned
        self.cache.suspect([name])
        return error


def grouped(places: Mapping[bytes, Location]) -> list[list[bytes]]:
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

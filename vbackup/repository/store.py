"""The chunk store: where every chunk is, and chunks read back by their ids."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from vbackup.api import Codec, Corrupt, Transport
from vbackup.api.wrapper import Wrapper
from vbackup.repository.cache import Cache, Location
from vbackup.repository.chunks import Chains
from vbackup.repository.condemned import Condemnations
from vbackup.repository.fetch import Fetch, Fetcher, PackGone, Read, grouped
from vbackup.repository.layout import pack_key
from vbackup.repository.look import Look, Lookout
from vbackup.repository.sealing import ChunkKind, Keys

log = logging.getLogger(__name__)

_REFRESH_SECONDS = 5.0
_ATTEMPTS = 8


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
        self.fetcher = Fetcher(transport, self.chains)
        self._codec = codec
        self.condemnations = Condemnations(transport, keys)
        self.lookout = Lookout(transport, keys, cache, self.condemnations, self.chains)
        self.note_level = logging.WARNING
        """At which level it is logged what is wrong with the store."""
        self._lock = threading.Lock()
        self._generation = 0  # goes up when the cache was brought up to the store
        self._rebuilt = False
        self._last_refresh = -_REFRESH_SECONDS
        self._listed = 0  # how often points were listed
        self._looked = 0  # after how many of these times the store was looked at

    def beside(self, cache: Cache) -> ChunkStore:
        """Return the same store, seen through another cache."""
        return ChunkStore(self.transport, self.keys, self._codec, cache, conditional=self.puts_if_absent)

    @property
    def is_doubtful(self) -> bool:
        """Whether packs are missing or were found damaged; known after `look`."""
        return self.lookout.is_doubtful

    def close(self) -> None:
        """Wait for reads that are under way."""
        self.fetcher.close()

    def look(self, *, adopt: bool = False) -> Look:
        """Bring the cache up to the store, and say what of it may be built on; ``adopt`` unlisted packs, too."""
        with self._lock:
            look = self._look(adopt=adopt)
        for note in look.notes:
            log.log(self.note_level, "%s", note)
        return look

    def _look(self, *, adopt: bool = False) -> Look:
        listed = self._listed  # before: points may be listed while it is looked at, and a look that fails is none
        look = self.lookout.look(adopt=adopt)
        self._looked = listed
        self._generation += 1
        return look

    def expect_more(self) -> None:
        """Points were listed: what they need may have been stored after the last look."""
        self._listed += 1

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
            is_due = self._listed != self._looked or time.monotonic() - self._last_refresh >= _REFRESH_SECONDS
            if generation == self._generation and is_due:
                self._look()
                self._last_refresh = time.monotonic()

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
                    self.cache.clear()
                    self._look()
                    self._rebuilt = True
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
        return self.finish(kind, wanted, self.fetcher.read_all(kind, self._first_places(wanted)))

    def start(self, kind: ChunkKind, ids: Sequence[bytes]) -> Fetch:
        """Begin to read chunks, none named twice: what comes of it is for `finish`."""
        return self.fetcher.start(kind, self._first_places(ids))

    def _first_places(self, ids: Sequence[bytes]) -> dict[bytes, Location]:
        return {chunk: places[0] for chunk, places in self.locate(ids).items()}

    def finish(
        self, kind: ChunkKind, ids: Sequence[bytes], reads: Iterable[Read]
    ) -> tuple[dict[bytes, bytes], dict[bytes, Corrupt]]:
        """Wait for what was begun to be read of chunks, none named twice; return what `read_some` does."""
        plain: dict[bytes, bytes] = {}
        for read in reads:
            plain.update(read.plain)
        if len(plain) == len(ids):
            return plain, {}
        again, failures = self.read_carefully(kind, [i for i in ids if i not in plain])
        return plain | again, failures

    def read_carefully(self, kind: ChunkKind, ids: Sequence[bytes]) -> tuple[dict[bytes, bytes], dict[bytes, Corrupt]]:
        """Read chunks that could not be read where they were first looked for, from wherever they may be."""
        generation = self._current()
        plain, failures, wrong = self._read_at(kind, ids, self.locate(ids))
        attempts = 0
        while failures and attempts < _ATTEMPTS and self._look_again(generation, failures):
            attempts += 1
            generation = self._current()
            again, failures, more = self._read_at(kind, list(failures), self.locate(list(failures)))
            plain |= again
            wrong |= more
        there = self.locate([chunk for chunk, _ in wrong]) if wrong else {}
        # The index may have been wrong at first, and not the pack: what it says now is what counts.
        if suspects := {place.pack for chunk, place in wrong if place in there.get(chunk, ())}:
            self.cache.suspect(suspects)
        return plain, failures

    def _read_at(
        self, kind: ChunkKind, ids: Sequence[bytes], places: Mapping[bytes, list[Location]]
    ) -> tuple[dict[bytes, bytes], dict[bytes, Corrupt], set[tuple[bytes, Location]]]:
        """Read chunks from their first places, and those that fail there from their next ones.

        Returns the bytes, why others cannot be read, and which chunks could not be read where.
        """
        plain: dict[bytes, bytes] = {}
        failures = {i: Corrupt(f"chunk {i.hex()} is in no pack of the repository") for i in ids if i not in places}
        wrong: set[tuple[bytes, Location]] = set()
        attempt = 0
        while left := {i: p[attempt] for i, p in places.items() if i not in plain and attempt < len(p)}:
            for group in grouped(left):
                for read in self._read_group(kind, group, left):
                    plain |= read.plain
                    failures |= read.failures
            wrong |= {(i, left[i]) for i in left if i not in plain}
            attempt += 1
        return plain, {i: error for i, error in failures.items() if i not in plain}, wrong

    def _read_group(self, kind: ChunkKind, group: Sequence[bytes], places: Mapping[bytes, Location]) -> Iterator[Read]:
        """Read chunks that lie together; where some are damaged, and may be so only in a cache, once more past it."""
        read = self.fetcher.read(kind, group, places, keep=True)
        yield read
        cached = self.transport if isinstance(self.transport, Wrapper) else None
        if read.failures and cached is not None and cached.forget(pack_key(places[group[0]].pack)):
            yield self.fetcher.read(kind, list(read.failures), places, keep=True)

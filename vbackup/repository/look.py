"""What a store holds at one moment: which packs there are, which of them may be built on, and what is wrong.

The cache is brought up to it: index objects that are new are read, and the own lists of packs that no index has.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from vbackup.api import Corrupt, NotFound, Transport
from vbackup.repository.bounded import bounded
from vbackup.repository.cache import Cache, Known, Trust
from vbackup.repository.chunks import CODECS_AT, Chains
from vbackup.repository.condemned import Condemnation, Condemnations, packs_of
from vbackup.repository.damaged import list_damaged
from vbackup.repository.fetch import PackGone
from vbackup.repository.index import read_index
from vbackup.repository.layout import INDEX, PACKS, pack_key, pack_name
from vbackup.repository.packs import Pack, read_pack
from vbackup.repository.sealing import Keys

log = logging.getLogger(__name__)

MAX_INDEX = 64 << 20
"""Bytes of an index object."""


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


class Lookout:
    """Compares a store with the cache. Used by one thread at a time, but for `check_pack`."""

    def __init__(
        self, transport: Transport, keys: Keys, cache: Cache, condemnations: Condemnations, chains: Chains
    ) -> None:
        self._transport = transport
        self._keys = keys
        self._cache = cache
        self._condemnations = condemnations
        self._chains = chains
        self._undecodable: tuple[Collection[bytes], int] | None = None
        """Which packs were counted, and how many of them cannot be decoded here."""
        self.is_doubtful = False
        """Whether packs are missing or were found damaged; known after `look`."""

    def look(self, *, adopt: bool = False) -> Look:
        """See `ChunkStore.look`, which lets one thread at a time in here."""
        while True:
            with ThreadPoolExecutor(2, "look") as aside:  # packs are listed after all three, see PRUNE.md
                listed, marked = aside.submit(self._list_indexes), aside.submit(list_damaged, self._transport)
                condemned, doubt = self._condemned()
            indexes = listed.result()
            damaged = self._load_index(indexes)
            look = self._match_packs(condemned, marked.result(), damaged, adopt=adopt)
            # A prune may have ended meanwhile: packs are missing only if the index still says that they are there.
            whole = not look.missing and indexes <= self._cache.indexes()
            if whole or self._list_indexes() == indexes:
                if doubt is None:
                    return look
                told = [*look.damaged, doubt.message]
                return look._replace(damaged=told, notes=[*look.notes, doubt.message], doubt=doubt)

    def _list_indexes(self) -> set[str]:
        return {info.key for info in self._transport.list(INDEX)}

    def _condemned(self) -> tuple[Mapping[str, Condemnation], Corrupt | None]:
        try:
            return self._condemnations.load(), None
        except Corrupt as error:
            return {}, error

    def _load_index(self, listed: set[str]) -> list[str]:
        cached = self._cache.indexes()
        self._cache.forget_indexes(cached - listed)
        notes: list[str] = []
        self._cache.add_all(self._read_indexes(sorted(listed - cached), notes))
        return notes

    def _read_indexes(self, keys: Iterable[str], notes: list[str]) -> Iterator[tuple[str, list[Pack]]]:
        for key in keys:
            try:
                packs = list(read_index(self._keys, key, bounded(self._transport, key, MAX_INDEX)))
            except Corrupt as error:
                notes.append(f"{error.message}; its packs' own lists were read instead")
            except NotFound:
                log.debug("index %s went away while it was read", key)
            else:
                yield key, packs

    def _match_packs(
        self, condemned: Mapping[str, Condemnation], suspected: set[bytes], damaged: list[str], *, adopt: bool
    ) -> Look:
        """Compare what the cache says with what the store lists, and read the footers of packs that no index knows.

        What the cache says is taken first: a pack that another process stores meanwhile is then new, and not missing.
        """
        if suspected:
            self._cache.suspect(suspected)
        known, epoch, going = self._cache.packs(), self._cache.epoch, packs_of(condemned)
        sizes = {pack_name(info.key): info.size for info in self._transport.list(PACKS)}
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
                pack = read_pack(self._transport, self._keys, name)
            except Corrupt as error:
                damaged.append(f"{error.message}; it was left out")
                continue
            except NotFound:
                log.debug("pack %s went away while it was read", name.hex())
                continue
            numbers = self._cache.add(None, [pack])
            if name in suspected:
                self._cache.suspect([name])
            if adopt:
                adopted.append(pack)
                trust.add(numbers)
        self._cache.forget_packs(pruned)
        notes += self._unknown_codecs(known)
        return Look(condemned, trust, adopted, missing, damaged, damaged + notes)

    def _unknown_codecs(self, known: Mapping[bytes, Known]) -> list[str]:
        """Say which packs cannot be decoded here. They are good, and built on: a host with the plugin restores them."""
        unknown = {end: names for end in self._cache.origin_ends(CODECS_AT) if (names := self._chains.unknown(end))}
        if not unknown:
            return []
        if self._undecodable is None or self._undecodable[0] != known.keys():  # to count them takes long
            self._undecodable = known.keys(), self._cache.packs_with(CODECS_AT, unknown)
        packs = self._undecodable[1]
        codecs = ", ".join(sorted(set().union(*unknown.values())))
        told = f"{packs} packs were encoded with {codecs}, which no installed plugin decodes"
        further = "what needs them, new restore points too, can be restored only where its plugin is installed"
        return [f"{told}: {further}"] if packs else []

    def check_pack(self, name: bytes) -> Corrupt | None:
        """Check a pack's header and footer, and the cache against them; return what is wrong, `PackGone` included."""
        key = pack_key(name)
        try:
            stored = read_pack(self._transport, self._keys, name)
            if self._cache.agrees(stored):
                return None
            error = Corrupt(f"pack {key} does not hold what the index says")
        except Corrupt as damage:
            error = damage
        except NotFound:
            return PackGone(f"pack {key} is missing")  # or pruned
        self._cache.suspect([name])
        return error

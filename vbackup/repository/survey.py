"""All of a repository looked at, from the store alone: over a cache of its own, that is filled from what is stored.

Points are listed first, then where chunks are: what a writer commits meanwhile is not taken for lost. What a prune
moves meanwhile is seen by looking again. Errors of the store are raised: they are no damage.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from vbackup.api import CheckOrder, Codec, Corrupt, Damage, NotFound, Point, Transport, Unavailable, clock
from vbackup.repository.anchor import Anchor
from vbackup.repository.bounded import bounded
from vbackup.repository.cache import Cache
from vbackup.repository.catalogue import Catalogue
from vbackup.repository.condemned import packs_of
from vbackup.repository.damaged import list_damaged
from vbackup.repository.index import read_index
from vbackup.repository.layout import INDEX, PACKS, pack_key, pack_name
from vbackup.repository.locks import Locks
from vbackup.repository.look import MAX_INDEX
from vbackup.repository.lost import Lost
from vbackup.repository.needs import Place as Stored
from vbackup.repository.packcheck import Broken, PackCheck
from vbackup.repository.packs import read_pack
from vbackup.repository.readings import Readings
from vbackup.repository.sealing import Keys
from vbackup.repository.store import ChunkStore

_AT_ONCE = 8
_ATTEMPTS = 20
_INDEX_KEY = re.compile(rf"{INDEX}/[0-9a-f]{{64}}")


@dataclass(frozen=True)
class Place:
    """The repository that is looked at."""

    transport: Transport
    keys: Keys
    codec: Callable[[str], Codec]
    codecs: Sequence[Codec]
    chunk_size: int
    anchor: Anchor
    locks: Locks
    readings: Path
    suspects: Collection[bytes]
    """Packs that this host has met damage in."""


@dataclass
class Found:
    """What a survey found."""

    points: int = 0
    indexes: int = 0
    packs: int = 0
    stored: int = 0
    """Bytes of packs."""
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    bad_indexes: list[str] = field(default_factory=list)
    missing: list[bytes] = field(default_factory=list)


class Survey(AbstractContextManager["Survey"]):
    """Looks at everything. What it learns of packs stays for the next look."""

    def __init__(self, place: Place, progress: Callable[[int], None]) -> None:
        self._place = place
        self.cache = Cache(None)
        self.store = ChunkStore(place.transport, place.keys, place.codec, self.cache)
        self.store.note_level = logging.DEBUG  # all of it is reported
        self.catalogue = Catalogue(self.store, place.anchor)
        self.lost = Lost(self.store, place.chunk_size)
        self.points: list[Point] = []
        self.broken: dict[bytes, Broken] = {}
        self.healed: set[bytes] = set()
        """Packs that were known to be damaged, and are not, or not there any more."""
        self._packs = PackCheck(self.store, progress)
        self._looked_at: set[bytes] = set()

    def __exit__(self, *exc: object) -> None:
        """Drop the cache."""
        self.lost.__exit__(*exc)
        self.cache.close()

    def look(self, order: CheckOrder | None) -> Found:
        """Look at everything; with ``order`` at the bytes of packs, too, as it says."""
        found = Found()
        self._load_points(found)
        self.store.look()
        for point in self.points:
            try:
                self.lost.add([point])
            except Corrupt as error:
                found.damage.append(Damage(point.id, point.machine, "", 0, 0, error.message))
        if order is not None and order.read_data:
            self._read_data(order)
        self._examine_doubtful()
        if self._settle(found):
            for point in self.points:
                found.damage += self._damage(point)
        self._judge_packs(found)
        return found

    def again(self) -> Found:
        """Look once more, after something was changed."""
        self.lost.__exit__(None, None, None)
        self.lost = Lost(self.store, self._place.chunk_size)
        return self.look(None)

    # -- points ---------------------------------------------------------------------------------------------------

    def _load_points(self, found: Found) -> None:
        listing = self.catalogue.load()
        if listing.damage:  # nothing is believed that is seen once
            listing = self.catalogue.load()
        found.damage += listing.damage
        if listing.late:
            found.notes.append(f"{len(listing.late)} points do not count: prune will remove them")
        self.points = []
        with ThreadPoolExecutor(_AT_ONCE, "points") as pool:
            for result in pool.map(self._read_point, sorted(listing.heads)):
                if isinstance(result, Point):
                    self.points.append(result)
                elif result is not None:
                    found.damage.append(result)
        found.points = len(self.points)

    def _read_point(self, point: str) -> Point | Damage | None:
        try:
            return self.catalogue.reread(point).point
        except NotFound:
            return None  # deleted since it was listed
        except Corrupt as error:
            return Damage(point, "", "", 0, 0, error.message)

    def _damage(self, point: Point) -> list[Damage]:
        damage = self.lost.damage(point)
        if damage and self._read_point(point.id) is None:
            return []
        return damage

    # -- packs ----------------------------------------------------------------------------------------------------

    def _sizes(self) -> dict[bytes, int]:
        listed = ((pack_name(info.key), info.size) for info in self._place.transport.list(PACKS))
        return {name: size for name, size in listed if name is not None}

    def _read_data(self, order: CheckOrder) -> None:
        """Read packs that are due, longest unread first."""
        sizes = self._sizes()
        readings = Readings(self._place.readings)
        try:
            readings.keep(sizes)
            for name, broken in self._packs.read(readings.due(order, sizes, clock.now()), sizes):
                self._looked_at.add(name)
                if broken is None:
                    readings.note(name, clock.now())
                else:
                    self.broken[name] = broken
            if order.is_everything:
                readings.finish()
        finally:
            readings.close()

    def is_good(self, place: Stored, blob: bytes) -> bool:
        """Whether a blob that was read for a place is what should be there."""
        return self._packs.verdict(place, blob) is True

    def _examine_doubtful(self) -> None:
        """Look at packs in which anybody has met damage, ever or just now."""
        known = {name for name, pack in self.cache.packs().items() if pack.suspect}
        published = list_damaged(self._place.transport)
        doubtful = known | published | set(self._place.suspects)
        sizes = self._sizes()
        for name in sorted((doubtful - self._looked_at) & sizes.keys()):
            self._looked_at.add(name)
            broken = self._packs.examine(name, sizes[name])
            if broken is not None:
                self.broken[name] = broken
        self.healed = published - self.broken.keys()

    def _settle(self, found: Found) -> int:
        """Compare what is needed with what is there, while nobody changes the index; count what is lost."""
        for _ in range(_ATTEMPTS):
            indexes = self._indexes()
            look = self.store.look()
            sizes = self._sizes()
            known = self.cache.packs()
            there = {name for name, pack in known.items() if sizes.get(name) == pack.size}
            lost = self.lost.find(there, self.broken)
            if not lost and not look.missing:
                break
            unread = [key for key in indexes - self.cache.indexes() if not self.is_bad_index(key)]
            if self._indexes() == indexes and not unread:
                break
        else:
            raise Unavailable("the repository changes all the time: check again when less is written")
        found.indexes, found.packs, found.stored = len(indexes), len(sizes), sum(sizes.values())
        found.missing = look.missing
        found.bad_indexes = sorted(indexes - self.cache.indexes())
        for name in look.missing:
            state = f"has {sizes[name]} bytes of {known[name].size}" if name in sizes else "is missing"
            found.wrong.append(f"pack {pack_key(name)} {state}")
        found.bad_indexes = [key for key in found.bad_indexes if self.is_bad_index(key)]
        found.wrong += [f"object {key} is damaged; its packs' own lists were read instead" for key in found.bad_indexes]
        for problem in self._unlisted(sizes.keys() - known.keys() - packs_of(look.condemned)):
            if lost:
                found.wrong.append(f"{problem}: it may hold what is lost")
            else:
                found.notes.append(f"{problem}, and nothing needs it: prune will remove it")
        return lost

    def _unlisted(self, packs: Collection[bytes]) -> Iterator[str]:
        """Say which of the packs that nothing is known of cannot be read; others are just being written."""
        for name in sorted(packs):
            try:
                read_pack(self._place.transport, self._place.keys, name)
            except NotFound:
                continue
            except Corrupt as error:
                yield error.message

    def _indexes(self) -> set[str]:
        keys = {info.key for info in self._place.transport.list(INDEX)}
        return {key for key in keys if _INDEX_KEY.fullmatch(key)}

    def is_bad_index(self, key: str) -> bool:
        """Whether an index object is there and cannot be read."""
        try:
            for _ in read_index(self._place.keys, key, bounded(self._place.transport, key, MAX_INDEX)):
                pass
        except NotFound:
            return False
        except Corrupt:
            return True
        return False

    def _judge_packs(self, found: Found) -> None:
        published, known = list_damaged(self._place.transport), self.cache.packs()
        for name, broken in sorted(self.broken.items()):
            if name in found.missing or name not in known:
                continue  # told already
            if name in published and not self.lost.is_counted_on(name):
                found.notes.append(f"{broken.reason}, and nothing needs it: prune will remove it")
            else:
                found.wrong.append(broken.reason)

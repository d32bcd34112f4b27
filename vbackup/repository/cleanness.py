"""Which condemnations a session's points are clean of: that they need none of the packs that will go; see PRUNE.md."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from vbackup.api import PointDisk
from vbackup.repository.cache import Trust
from vbackup.repository.catalogue import Catalogue
from vbackup.repository.condemned import Condemnation
from vbackup.repository.diskwriter import base_map
from vbackup.repository.layout import ZERO_ID
from vbackup.repository.store import ChunkStore, Look


class Cleanness:
    """One session's account. What is clean is a disk's root: equal roots need equal chunks. Thread-safe."""

    def __init__(self, store: ChunkStore, catalogue: Catalogue) -> None:
        self._store = store
        self._catalogue = catalogue
        self._seen: Mapping[str, Condemnation] = {}
        self._clean_roots: dict[str, set[bytes]] = {}
        self._bases: set[bytes] = set()
        self._lock = threading.Lock()

    def begin(self, look: Look) -> None:
        """Note the condemnations that the session has seen before it built on anything."""
        self._seen = look.condemned
        self._clean_roots = self._roots(look.condemned)

    def problem(self, base: PointDisk) -> str | None:
        """Why a disk may not be built on, as a phrase, or None."""
        root = base_map(base.content)
        if root == ZERO_ID or all(root in self._clean_roots[condemned] for condemned in self._seen):
            return None
        return "the restore point before was made while a prune began, which is not done yet"

    def built_on(self, base: PointDisk) -> None:
        """Note that a point of the session has a disk that was built on ``base``."""
        with self._lock:
            self._bases.add(base_map(base.content))

    def of(self, trust: Trust) -> tuple[str, ...]:
        """Return the condemnations that all points of the session until now are clean of."""
        condemned = self._store.condemnations.load()
        new = {name: each for name, each in condemned.items() if name not in self._seen}
        clean = [name for name in condemned if name in self._seen]
        if new and trust.epoch == self._store.cache.epoch:  # else nobody knows any more what was used
            numbers = {pack: known.number for pack, known in self._store.cache.packs().items()}
            roots = self._roots(new)
            with self._lock:
                bases = self._bases - {ZERO_ID}
            for name, each in new.items():
                going = {numbers.get(bytes.fromhex(pack), -1) for pack in each.packs}
                if not going & trust.used and bases <= roots[name]:
                    clean.append(name)
        return tuple(sorted(clean))

    def _roots(self, condemned: Mapping[str, Condemnation]) -> dict[str, set[bytes]]:
        """Return by condemnation the roots of all disks of points that are clean of it."""
        if not condemned:
            return {}
        heads = self._catalogue.load().heads
        return {
            name: {
                base_map(disk.content)
                for point, head in heads.items()
                if point in each.points or name in head.clean
                for disk in head.point.disks
            }
            for name, each in condemned.items()
        }

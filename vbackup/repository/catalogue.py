"""The points of a repository: which are there, which count, and which should be there and are not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from vbackup.api import AccessDenied, Corrupt, Damage, Locked, MachineDescription, NotFound, Point
from vbackup.repository.anchor import Anchor
from vbackup.repository.documents import put_document
from vbackup.repository.layout import DELETIONS, POINTS
from vbackup.repository.points import ID, Head, Stored, check_body, get_point, open_head, point_key, read_description
from vbackup.repository.presence import Honoured, judge
from vbackup.repository.records import Deletion
from vbackup.repository.store import ChunkStore

_AT_ONCE = 8


class Listing(NamedTuple):
    """What is there at one moment."""

    heads: Mapping[str, Head]
    """Points that count and can be read, by id."""
    late: frozenset[str]
    """Points that do not count: put after their session was ended."""
    damage: list[Damage]


class Catalogue:
    """Lists points. Thread-safe, as far as its parts are."""

    def __init__(self, store: ChunkStore, anchor: Anchor) -> None:
        self._store = store
        self._transport = store.transport
        self._keys = store.keys
        self._cache = store.cache
        self._chains = store.chains
        self._anchor = anchor
        self._verdicts: dict[str, Honoured] = {}

    def sessions(self) -> dict[str, str]:
        """Return the ids of all points that are in the store, with the sessions that wrote them."""
        stored, _ = self._stored()
        return {point: origin[:16].hex() for point, (origin, _) in stored.items()}

    def points(self) -> list[Point]:
        """Return the points that count and can be read."""
        return [head.point for head in self.load().heads.values()]

    def load(self) -> Listing:
        """Read what is new, open everything, leave out what does not count."""
        stored, damage = self._stored()
        owners = {point: origin[:16].hex() for point, (origin, _) in stored.items()}
        verdict = judge(self._transport, self._keys, owners, self._verdicts)
        heads: dict[str, Head] = {}
        for point, (origin, head) in stored.items():
            try:  # also of those that do not count: before, it is not known whose they are
                heads[point] = self._open_head(point, origin, head)
            except NotFound:
                continue  # deleted since it was listed
            except Corrupt as error:
                damage.append(Damage(point, "", "", 0, 0, error.message))
        self._cache.set_points({}, {each.point for each in damage})
        late = verdict.late.keys() - self._anchor.seen()
        doubtful = {
            **verdict.doubtful,
            **{point: _contested(verdict.late[point]) for point in verdict.late.keys() - late},
        }
        there = stored.keys() | {each.point for each in damage}
        damage += [Damage(point, "", "", 0, 0, doubtful[point]) for point in sorted(heads.keys() & doubtful.keys())]
        counting = {point: head for point, head in heads.items() if point not in late and point not in doubtful}
        gone = self._anchor.compare(there, counting.keys() - verdict.open)
        damage += [Damage(point, "", "", 0, 0, reason) for point, reason in gone]
        self._store.expect_more()
        return Listing(counting, frozenset(late & heads.keys()), damage)

    def _open_head(self, point: str, origin: bytes, head: bytes) -> Head:
        """Open a head that may come from the cache. One that is damaged there need not be so in the store."""
        try:
            return open_head(self._keys, point, origin, head)
        except Corrupt:
            return self.reread(point)

    def give_up(self, points: Collection[str]) -> None:
        """Delete points that do not count, on record: some host may have seen them before that was known."""
        if points:
            key = f"{DELETIONS}/{os.urandom(16).hex()}"
            put_document(self._transport, self._keys, key, Deletion(points=tuple(points)))
        for point in points:
            with contextlib.suppress(AccessDenied, Locked):  # readers leave it out all the same
                self._transport.delete(point_key(point))

    def remember(self, point: str) -> None:
        """A point was just made here: from now on it is missed when the store hides it."""
        self._anchor.remember(point)

    def ids(self) -> set[str]:
        """Return the ids of all points that are in the store, whether they can be read or not."""
        names = (info.key.rpartition("/")[2] for info in self._transport.list(POINTS))
        return {name for name in names if ID.fullmatch(name)}

    def _stored(self) -> tuple[dict[str, tuple[bytes, bytes]], list[Damage]]:
        """Return (origin, sealed head) of all points that are in the store, by id."""
        ids = self.ids()
        cached = self._cache.points()
        fresh: dict[str, tuple[bytes, bytes]] = {}
        damage: list[Damage] = []
        missing = sorted(ids - cached.keys())
        with ThreadPoolExecutor(_AT_ONCE, "points") as pool:
            for point, stored in zip(missing, pool.map(self._get, missing), strict=True):
                if isinstance(stored, Corrupt):
                    damage.append(Damage(point, "", "", 0, 0, stored.message))
                elif stored is not None:
                    fresh[point] = (stored.origin, stored.head)
        self._cache.set_points(fresh, cached.keys() - ids)
        return {**{point: cached[point] for point in cached.keys() & ids}, **fresh}, damage

    def _get(self, point: str) -> Stored | Corrupt | None:
        try:
            return get_point(self._transport, point)
        except NotFound:
            return None  # deleted since it was listed
        except Corrupt as error:
            return error

    def description(self, point: Point) -> MachineDescription:
        """Return the machine of a point. Raises: `NotFound`, `Corrupt`, `WrongKey`."""
        return read_description(self._keys, self._chains, point.id, get_point(self._transport, point.id))

    def reread(self, point_id: str) -> Head:
        """Read a point from the store, whatever the cache has. Raises: `NotFound`, `Corrupt`."""
        try:
            stored = get_point(self._transport, point_id)
            head = open_head(self._keys, point_id, stored.origin, stored.head)
            check_body(head, stored)
            return head  # noqa: TRY300 - what failed is forgotten
        except Corrupt:
            self._cache.set_points({}, [point_id])
            raise


def _contested(key: str) -> str:
    return (
        f"it counted here before, and object {key} says that it never did: somebody may have misused a key that "
        "writes; remove that object from the store if so"
    )

"""Which chunks points need, and where these are: the arithmetic of a prune, done by SQLite on disk.

Memory does not grow with the repository: ids are gathered a million at a time, sorted, and merged into a table; what
is asked of them is asked in SQL, over that table and the cache's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar

from vbackup.api import Corrupt, Point, VBackupError
from vbackup.repository.cache import Cache
from vbackup.repository.diskmap import Shape
from vbackup.repository.diskwriter import base_map
from vbackup.repository.layout import FANOUT, ID_SIZE, ZERO_ID
from vbackup.repository.load import transaction

T = TypeVar("T")
_BATCH = 1 << 20  # ids in memory
_NODES = 64  # read at once


class Place(NamedTuple):
    """A needed chunk in a pack, with all that is needed to copy it."""

    id: bytes
    kind: int
    pack: bytes
    origin: bytes
    offset: int
    length: int
    size: int


class Needs(AbstractContextManager["Needs"]):
    """A growing set of chunk ids that points need. ``load`` reads disk map nodes by id."""

    def __init__(self, cache: Cache, chunk_size: int, load: Callable[[Sequence[bytes]], dict[bytes, bytes]]) -> None:
        self._cache = cache
        self._epoch = cache.epoch
        self._chunk_size = chunk_size
        self._load = load
        self._nodes: set[bytes] = set()
        self._batch: set[bytes] = set()
        self._points: set[str] = set()
        for statement in (
            "ATTACH '' AS plan",  # a temporary file
            "PRAGMA plan.journal_mode=OFF",
            "CREATE TABLE plan.needed (id BLOB PRIMARY KEY) WITHOUT ROWID",
            "CREATE TABLE plan.alive (pack INTEGER PRIMARY KEY)",
            "CREATE TABLE plan.going (pack INTEGER PRIMARY KEY)",
        ):
            self._run(statement)

    def __exit__(self, *exc: object) -> None:
        """Drop the tables."""
        if self._cache.epoch == self._epoch:
            self._run("DETACH plan")

    def add(self, points: Iterable[Point]) -> None:
        """Add what points need. Raises `Corrupt` for one whose map cannot be read: nothing may be deleted then."""
        for point in points:
            if point.id in self._points:
                continue
            for disk in point.disks:
                try:
                    self._tree(Shape(disk.size, self._chunk_size), base_map(disk.content))
                except Corrupt as error:
                    raise Corrupt(
                        f"what disk {disk.key} of restore point {point.machine}@{point.id[:8]} needs cannot be told: "
                        f"{error.message}",
                        hint="nothing was deleted: run `vbackup check --repair`, or delete that restore point",
                    ) from error
            for content in point.files.values():
                self._take(bytes.fromhex(chunk) for chunk in content["chunks"])
            self._points.add(point.id)
        self._flush()

    def clear(self) -> None:
        """Forget all points."""
        self._points.clear()
        self._nodes.clear()
        self._batch.clear()
        self._run("DELETE FROM plan.needed")

    def _tree(self, shape: Shape, root: bytes) -> None:
        level = shape.depth
        front = {root} - {ZERO_ID}
        while front and level:
            fresh = front - self._nodes
            self._take(fresh)
            front = set()
            for nodes in _parts(sorted(fresh), _NODES):
                loaded = self._load(nodes)
                for node in nodes:
                    self._children(loaded[node], level, front)
            self._nodes |= fresh
            level -= 1

    def _children(self, node: bytes, level: int, front: set[bytes]) -> None:
        if not node or len(node) % ID_SIZE or len(node) > FANOUT * ID_SIZE:
            raise Corrupt(f"a disk map's node has {len(node)} bytes")
        ids = (node[at : at + ID_SIZE] for at in range(0, len(node), ID_SIZE))
        if level == 1:
            self._take(ids)
        else:
            front.update(chunk for chunk in ids if chunk != ZERO_ID)

    def _take(self, ids: Iterable[bytes]) -> None:
        self._batch.update(ids)
        if len(self._batch) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._batch.discard(ZERO_ID)
        ids = sorted(self._batch)
        self._batch.clear()

        def insert(db: sqlite3.Connection) -> None:
            with transaction(db, "DEFERRED"):  # each row would be one of its own
                db.executemany("INSERT OR IGNORE INTO plan.needed VALUES (?)", zip(ids))

        self._do(insert)

    @property
    def points(self) -> set[str]:
        """Ids of the points that were added."""
        return self._points

    # -- questions ------------------------------------------------------------------------------------------------

    def set_alive(self, packs: Collection[bytes]) -> None:
        """Say which packs chunks may be counted on in."""
        self._fill("alive", packs)

    def lost(self) -> int:
        """Return how many needed chunks are in no pack that is known."""
        query = "SELECT count(*) FROM plan.needed n WHERE NOT EXISTS (SELECT 1 FROM chunks c WHERE c.id = n.id)"
        return int(self._do(lambda db: db.execute(query).fetchone()[0]))

    def use(self) -> dict[bytes, int]:
        """Return the bytes of needed blobs in each living pack; one in several counts in the oldest sound one."""
        query = (
            "SELECT min(c.pack + (q.suspect << 40)) & ((1 << 40) - 1), c.length FROM plan.needed n "
            "CROSS JOIN chunks c ON c.id = n.id JOIN plan.alive a ON a.pack = c.pack "
            "JOIN packs q ON q.number = c.pack GROUP BY n.id"
        )
        return self._by_pack(query)

    def held(self) -> dict[bytes, int]:
        """Return the bytes of all blobs in each living pack, needed or not."""
        return self._by_pack("SELECT c.pack, c.length FROM chunks c JOIN plan.alive a ON a.pack = c.pack")

    def _by_pack(self, query: str) -> dict[bytes, int]:
        """Add up rows of (pack, bytes) here: in SQL, millions of rows would be sorted by pack first."""

        def add_up(db: sqlite3.Connection) -> dict[bytes, int]:
            sums: dict[int, int] = {}
            for pack, length in db.execute(query):
                sums[pack] = sums.get(pack, 0) + length
            return {
                name: sums[number] for number, name in db.execute("SELECT number, name FROM packs") if number in sums
            }

        return self._do(add_up)

    def only_in(self, packs: Collection[bytes]) -> list[Place]:
        """Return a place of each needed chunk that is in ``packs`` and in no living pack beside them."""
        self._fill("going", packs)
        query = (
            "SELECT c.id, c.kind, p.name, o.data, c.start, c.length, c.size, min(p.suspect) FROM chunks c "
            "JOIN packs p ON p.number = c.pack "
            "JOIN origins o ON o.number = c.origin "
            "WHERE c.pack IN (SELECT pack FROM plan.going) AND EXISTS (SELECT 1 FROM plan.needed n WHERE n.id = c.id) "
            "AND NOT EXISTS (SELECT 1 FROM chunks d JOIN plan.alive a ON a.pack = d.pack "
            "WHERE d.id = c.id AND d.pack NOT IN (SELECT pack FROM plan.going)) "
            "GROUP BY c.id ORDER BY c.pack, c.start"
        )
        return self._do(lambda db: [Place(*row[:-1]) for row in db.execute(query)])

    def _fill(self, table: str, packs: Collection[bytes]) -> None:
        def fill(db: sqlite3.Connection) -> None:
            with transaction(db, "DEFERRED"):
                db.execute(f"DELETE FROM plan.{table}")  # noqa: S608 - constant names
                query = f"INSERT OR IGNORE INTO plan.{table} SELECT number FROM packs WHERE name = ?"  # noqa: S608
                db.executemany(query, [(pack,) for pack in packs])

        self._do(fill)

    def _run(self, statement: str) -> None:
        self._do(lambda db: db.execute(statement))

    def _do(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Run on the cache's connection; a cache that was replaced by an empty one must not decide on anything."""
        try:
            result = self._cache.reading(action)
        except sqlite3.Error as error:  # the empty one has no plan
            raise self._failed() from error
        if self._cache.epoch != self._epoch:
            raise self._failed()
        return result

    def _failed(self) -> VBackupError:
        return VBackupError("the local cache failed while it was asked what is needed", hint="run prune again")


def _parts(ids: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]

"""What restore points need and no pack holds any more, and where in their disks that is."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from vbackup.api import Corrupt, Damage, Point, PointDisk, Unavailable
from vbackup.repository.diskmap import DiskMap, Shape
from vbackup.repository.diskwriter import base_map
from vbackup.repository.layout import FANOUT, ID_SIZE, ZERO_ID, pack_key
from vbackup.repository.needs import Needs, Place
from vbackup.repository.packcheck import Broken
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.store import ChunkStore


class Piece(NamedTuple):
    """A lost part of a disk: a node of its map (level above 0) or a chunk, by its number in that level."""

    level: int
    number: int
    id: bytes
    reason: str


class Lost(Needs):
    """What points need, as `Needs`, also where maps cannot be read: then what is below them is not known."""

    def __init__(self, store: ChunkStore, chunk_size: int) -> None:
        super().__init__(store.cache, chunk_size, self._read_nodes)
        self._store = store
        self._unread: dict[bytes, str] = {}
        self._broken: Mapping[bytes, Broken] = {}
        self._whole: set[bytes] = set()  # nodes below which nothing is lost
        for statement in (
            "CREATE TABLE plan.bad (id BLOB, pack BLOB, PRIMARY KEY (id, pack)) WITHOUT ROWID",
            "CREATE TABLE plan.lost (id BLOB PRIMARY KEY, pack BLOB) WITHOUT ROWID",
        ):
            self._run(statement)

    def _read_nodes(self, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        plain, failures = self._store.read_some(ChunkKind.NODE, ids)
        for node, error in failures.items():
            self._unread[node] = error.message
        return {node: plain.get(node, ZERO_ID) for node in ids}

    def find(self, there: Collection[bytes], broken: Mapping[bytes, Broken]) -> int:
        """Find the chunks that are whole in no pack of ``there``; return how many. Raises `Unavailable`."""
        self._broken = broken
        self._whole.clear()
        self.set_alive(there)
        bad = [(chunk, pack) for pack, each in broken.items() for chunk in each.unreadable]
        query = (
            "INSERT INTO plan.lost SELECT n.id, (SELECT p.name FROM chunks c JOIN packs p ON p.number = c.pack "
            "WHERE c.id = n.id LIMIT 1) FROM plan.needed n WHERE NOT EXISTS ("
            "SELECT 1 FROM chunks c JOIN plan.alive a ON a.pack = c.pack JOIN packs p ON p.number = c.pack "
            "WHERE c.id = n.id AND NOT EXISTS (SELECT 1 FROM plan.bad b WHERE b.id = c.id AND b.pack = p.name))"
        )

        def fill(db: sqlite3.Connection) -> int:
            db.execute("DELETE FROM plan.bad")
            db.execute("DELETE FROM plan.lost")
            db.executemany("INSERT OR IGNORE INTO plan.bad VALUES (?, ?)", bad)
            db.execute(query)
            return int(db.execute("SELECT count(*) FROM plan.lost").fetchone()[0])

        found = self._do(fill)
        if self._unread.keys() - self._lost_of(list(self._unread)).keys():
            raise Unavailable("the store answers in different ways when the same is read again: nothing can be told")
        return found

    def movable(self, pack: bytes) -> list[Place]:
        """Return what is needed, is whole in a broken pack, and in no other that is not broken."""
        self._fill("going", self._broken)
        query = (
            "SELECT c.id, c.kind, p.name, o.data, c.start, c.length, c.size FROM packs p "
            "JOIN chunks c ON c.pack = p.number JOIN origins o ON o.number = c.origin WHERE p.name = ? "
            "AND EXISTS (SELECT 1 FROM plan.needed n WHERE n.id = c.id) "
            "AND NOT EXISTS (SELECT 1 FROM plan.bad b WHERE b.id = c.id AND b.pack = p.name) "
            "AND NOT EXISTS (SELECT 1 FROM chunks d JOIN plan.alive a ON a.pack = d.pack "
            "WHERE d.id = c.id AND d.pack NOT IN (SELECT pack FROM plan.going)) ORDER BY c.start"
        )
        return self._do(lambda db: [Place(*row) for row in db.execute(query, (pack,))])

    def is_counted_on(self, pack: bytes) -> bool:
        """Whether anything that is needed is, or was, in a broken pack only."""
        query = (
            "SELECT EXISTS (SELECT 1 FROM plan.lost l JOIN chunks c ON c.id = l.id JOIN packs p ON p.number = c.pack "
            "WHERE p.name = ?)"
        )
        return bool(self._do(lambda db: db.execute(query, (pack,)).fetchone()[0])) or bool(self.movable(pack))

    # -- where it is ----------------------------------------------------------------------------------------------

    def damage(self, point: Point) -> list[Damage]:
        """Return what of a point is lost, neighbours joined. Raises what the store raises."""
        found: list[Damage] = []
        for disk in point.disks:
            shape = Shape(disk.size, self._chunk_size)
            for piece in self.pieces(disk):
                first, end = shape.span(piece.level, piece.number)
                offset = first * shape.chunk
                stop = min(end * shape.chunk, disk.size)
                _join(found, Damage(point.id, point.machine, disk.key, offset, stop - offset, piece.reason))
        for name, content in point.files.items():
            for number, piece in self.file_pieces(content["chunks"]):
                offset = number * self._chunk_size
                length = min(self._chunk_size, content["size"] - offset)
                _join(found, Damage(point.id, point.machine, name, offset, length, piece.reason))
        return found

    def pieces(self, disk: PointDisk) -> Iterator[Piece]:
        """Yield the lost parts of a disk, ascending; nothing below a node that is lost."""
        shape, root = Shape(disk.size, self._chunk_size), base_map(disk.content)
        tree = DiskMap(shape, root, lambda node: self._store.read(ChunkKind.NODE, [node])[node])
        yield from self._below(tree, shape.depth, 0, root)

    def file_pieces(self, chunks: Sequence[str]) -> Iterator[tuple[int, Piece]]:
        """Yield the lost chunks of a small file, with their numbers."""
        ids = [bytes.fromhex(chunk) for chunk in chunks]
        lost = self._lost_of(ids)
        yield from ((number, Piece(0, number, each, lost[each])) for number, each in enumerate(ids) if each in lost)

    def _below(self, tree: DiskMap, level: int, index: int, node: bytes) -> Iterator[Piece]:
        if node == ZERO_ID or node in self._whole:
            return
        if node in self._unread:
            yield Piece(level, index, node, self._unread[node])
            return
        try:
            joined = tree.children(level, node, index)
        except Corrupt as error:
            yield Piece(level, index, node, error.message)
            return
        ids = [joined[at : at + ID_SIZE] for at in range(0, len(joined), ID_SIZE)]
        count = 0
        for piece in self._inside(tree, level, index, ids):
            count += 1
            yield piece
        if not count:
            self._whole.add(node)

    def _inside(self, tree: DiskMap, level: int, index: int, ids: Sequence[bytes]) -> Iterator[Piece]:
        first = index * FANOUT
        if level > 1:
            for number, child in enumerate(ids):
                yield from self._below(tree, level - 1, first + number, child)
            return
        lost = self._lost_of(ids)
        yield from (Piece(0, first + n, each, lost[each]) for n, each in enumerate(ids) if each in lost)

    def _lost_of(self, ids: Sequence[bytes]) -> dict[bytes, str]:
        """Return those of ``ids`` that are lost, and why."""

        def select(db: sqlite3.Connection) -> list[tuple[bytes, bytes | None]]:
            found = []
            for at in range(0, len(ids), FANOUT):
                part = ids[at : at + FANOUT]
                marks = ",".join("?" * len(part))
                found += db.execute(f"SELECT id, pack FROM plan.lost WHERE id IN ({marks})", part).fetchall()  # noqa: S608
            return found

        return {chunk: self._reason(chunk, pack) for chunk, pack in self._do(select)}

    def _reason(self, chunk: bytes, pack: bytes | None) -> str:
        if pack is None:
            return f"chunk {chunk.hex()} is in no pack of the repository"
        return self._broken[pack].reason if pack in self._broken else f"pack {pack_key(pack)} is missing or cut short"


def _join(found: list[Damage], new: Damage) -> None:
    last = found[-1] if found else None
    if last and (last.disk, last.reason, last.offset + last.length) == (new.disk, new.reason, new.offset):
        found[-1] = Damage(last.point, last.machine, last.disk, last.offset, last.length + new.length, last.reason)
    else:
        found.append(new)

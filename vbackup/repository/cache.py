"""The local cache: a SQLite file with all index entries, and the sealed points. It may be deleted at any time.

It is never trusted for what matters: every chunk that is read is authenticated and hashed, and a hit while writing
counts only for packs that the store lists. SQLite (measured: 124 k look-ups/s one by one, 211 k/s in batches, where
1 GB/s of disk needs 8 k/s) is shared safely by processes, survives crashes and needs no library.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vbackup.repository.packs import Pack

_VERSION = 1
_SCHEMA = """
CREATE TABLE objects (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE packs (number INTEGER PRIMARY KEY, name BLOB UNIQUE NOT NULL, header BLOB NOT NULL);
CREATE TABLE chunks (id BLOB NOT NULL, pack INTEGER NOT NULL, kind INTEGER NOT NULL, start INTEGER NOT NULL,
                     length INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (id, pack)) WITHOUT ROWID;
CREATE TABLE points (id TEXT PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID;
"""
_BATCH = 256


class Location(NamedTuple):
    """Where a chunk is: its pack's name and header, and the blob's place in it, in bytes."""

    pack: bytes
    header: bytes
    offset: int
    length: int
    size: int


class Cache:
    """One repository's cache. Thread-safe; processes may share the file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        if self._path is None:
            return self._connect("")
        try:
            return self._connect(str(self._path))
        except sqlite3.DatabaseError:  # not a database, or another version's: it is only a cache
            for suffix in ("", "-wal", "-shm"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            return self._connect(str(self._path))

    def _connect(self, name: str) -> sqlite3.Connection:
        db = sqlite3.connect(name, timeout=60, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA cache_size=-16384")
            db.execute("PRAGMA temp_store=MEMORY")
            with _transaction(db):
                _prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def objects(self) -> set[str]:
        """Names of the index objects (and adopted packs) that are in the cache."""
        with self._lock:
            return {row[0] for row in self._db.execute("SELECT name FROM objects")}

    def packs(self) -> set[bytes]:
        """Names of all packs that are in the cache."""
        with self._lock:
            return {row[0] for row in self._db.execute("SELECT name FROM packs")}

    def add(self, source: str, packs: Iterable[Pack]) -> None:
        """Add what the object ``source`` says of ``packs``, all or nothing. A chunk may be in several packs."""
        with self._lock, _transaction(self._db):
            for pack in packs:
                number = self._number(pack)
                rows = ((e.id, number, e.kind, e.offset, e.length, e.size) for e in sorted(pack.entries))
                self._db.executemany("INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("INSERT OR IGNORE INTO objects VALUES (?)", (source,))

    def _number(self, pack: Pack) -> int:
        self._db.execute("INSERT OR IGNORE INTO packs (name, header) VALUES (?, ?)", (pack.name, pack.header))
        number: int = self._db.execute("SELECT number FROM packs WHERE name = ?", (pack.name,)).fetchone()[0]
        return number

    def settle(self, sources: Collection[str]) -> None:
        """Drop the names of adopted packs that an index lists by now."""
        with self._lock, _transaction(self._db):
            self._db.executemany("DELETE FROM objects WHERE name = ?", [(name,) for name in sources])

    def forget_chunks(self, packs: Collection[bytes]) -> None:
        """Forget all chunks that were said to be in ``packs``; the packs stay known, so that they stay missed."""
        with self._lock, _transaction(self._db):
            for name in packs:
                number = "(SELECT number FROM packs WHERE name = ?)"
                self._db.execute(f"DELETE FROM chunks WHERE pack = {number}", (name,))  # noqa: S608

    def clear(self) -> None:
        """Forget all chunks and packs; points stay (they are sealed)."""
        with self._lock, _transaction(self._db):
            for table in ("chunks", "packs", "objects"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - constant names

    def known(self, ids: Sequence[bytes]) -> set[bytes]:
        """Return those of ``ids`` that are in the cache."""
        found: set[bytes] = set()
        with self._lock:
            for part in _batches(ids):
                marks = ",".join("?" * len(part))
                found.update(
                    row[0]
                    for row in self._db.execute(f"SELECT id FROM chunks WHERE id IN ({marks})", part)  # noqa: S608
                )
        return found

    def locate(self, ids: Sequence[bytes]) -> Mapping[bytes, Location]:
        """Return where those of ``ids`` are that are in the cache."""
        found: dict[bytes, Location] = {}
        with self._lock:
            for part in _batches(ids):
                marks = ",".join("?" * len(part))
                query = (
                    "SELECT c.id, p.name, p.header, c.start, c.length, c.size FROM chunks c "  # noqa: S608
                    f"JOIN packs p ON p.number = c.pack WHERE c.id IN ({marks})"
                )
                for row in self._db.execute(query, part):
                    found[row[0]] = Location(*row[1:])
        return found

    def entries(self, pack: bytes) -> set[tuple[bytes, int, int]]:
        """Return (id, offset, length) of all chunks that are said to be in a pack."""
        query = "SELECT id, start, length FROM chunks WHERE pack = (SELECT number FROM packs WHERE name = ?)"
        with self._lock:
            return set(self._db.execute(query, (pack,)))

    def points(self) -> dict[str, bytes]:
        """Return the sealed points by id."""
        with self._lock:
            return dict(self._db.execute("SELECT id, sealed FROM points"))

    def set_points(self, add: Mapping[str, bytes], remove: Collection[str]) -> None:
        """Add and forget sealed points."""
        with self._lock, _transaction(self._db):
            self._db.executemany("INSERT OR REPLACE INTO points VALUES (?, ?)", list(add.items()))
            self._db.executemany("DELETE FROM points WHERE id = ?", [(name,) for name in remove])

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def _prepare(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={_VERSION}")
    elif version != _VERSION:
        raise sqlite3.DatabaseError("another version's cache")


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _batches(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]

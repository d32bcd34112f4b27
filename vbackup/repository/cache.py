"""The local cache: a SQLite file with all index entries, and the sealed points. It may be deleted at any time.

It is never trusted for what matters: every chunk that is read is authenticated and hashed, and a hit while writing
counts only for packs that the store listed when the session began. Whatever goes wrong with the file (full, locked,
rotten) costs time and no backup: a temporary cache takes its place.

SQLite (measured: 124 k look-ups/s one by one, 211 k/s in batches, where 1 GB/s of disk needs 8 k/s) is shared safely
by processes, survives crashes and needs no library.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vbackup.repository.packs import Pack

T = TypeVar("T")
log = logging.getLogger(__name__)

_VERSION = 2
_SCHEMA = """
CREATE TABLE objects (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE packs (number INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB UNIQUE NOT NULL, header BLOB NOT NULL,
                    size INTEGER NOT NULL, suspect INTEGER NOT NULL DEFAULT 0);
CREATE TABLE chunks (id BLOB NOT NULL, pack INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
                     size INTEGER NOT NULL, PRIMARY KEY (id, pack)) WITHOUT ROWID;
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


class Known(NamedTuple):
    """A pack in the cache: its number (never used twice in a file), its size, and whether it was found damaged."""

    number: int
    size: int
    suspect: bool


class Trust:
    """Which packs a session may deduplicate against: those it has seen in the store's listing, and its own."""

    def __init__(self, epoch: int, packs: Mapping[bytes, Known], bad: Collection[bytes]) -> None:
        self.epoch = epoch
        self._last = max((known.number for known in packs.values()), default=0)
        self._bad = {packs[name].number for name in bad}
        self._own: set[int] = set()

    def add(self, numbers: Iterable[int]) -> None:
        """Trust packs that the session itself has stored."""
        self._own.update(numbers)

    def holds(self, number: int) -> bool:
        """Whether a pack is trusted. One that another process has added since is not: nobody has looked for it."""
        return (number <= self._last and number not in self._bad) or number in self._own


class Cache:
    """One repository's cache. Thread-safe; processes may share the file."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.RLock()
        self.epoch = 0
        """Changes when the content is replaced by a temporary, empty one."""
        try:
            self._db = _connect("") if path is None else _open(path)
        except (OSError, sqlite3.Error) as error:
            log.warning("the cache %s cannot be used: %s; a temporary one is filled instead", path, error)
            self._db = _connect("")

    def _do(self, action: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                return action(self._db)
            except sqlite3.Error as error:
                log.warning("the local cache failed: %s; a temporary one takes its place", error)
                with contextlib.suppress(sqlite3.Error):
                    if not isinstance(error, sqlite3.OperationalError):  # rotten, not just full or locked
                        _forget_file(self._db)
                    self._db.close()
                self.epoch += 1
                self._db = _connect(":memory:")
                return action(self._db)

    def objects(self) -> set[str]:
        """Names of the index objects (and adopted packs) that are in the cache."""
        return self._do(lambda db: {row[0] for row in db.execute("SELECT name FROM objects")})

    def packs(self) -> dict[bytes, Known]:
        """All packs that are in the cache, by name."""
        query = "SELECT name, number, size, suspect FROM packs"
        return self._do(lambda db: {row[0]: Known(row[1], row[2], bool(row[3])) for row in db.execute(query)})

    def add(self, source: str, packs: Sequence[Pack]) -> list[int]:
        """Add what the object ``source`` says of ``packs``, all or nothing; return their numbers."""

        def insert(db: sqlite3.Connection) -> list[int]:
            with _transaction(db):
                numbers = [_add_pack(db, pack) for pack in packs]
                db.execute("INSERT OR IGNORE INTO objects VALUES (?)", (source,))
            return numbers

        return self._do(insert)

    def settle(self, sources: Collection[str]) -> None:
        """Drop the names of adopted packs that an index lists by now."""
        rows = [(name,) for name in sources]
        self._write(lambda db: db.executemany("DELETE FROM objects WHERE name = ?", rows))

    def suspect(self, packs: Collection[bytes]) -> None:
        """Remember that packs were found damaged: nothing is deduplicated against them any more."""
        rows = [(name,) for name in packs]
        self._write(lambda db: db.executemany("UPDATE packs SET suspect = 1 WHERE name = ?", rows))

    def clear(self) -> None:
        """Forget all index entries; points stay (they are sealed), and so do suspicions."""

        def delete(db: sqlite3.Connection) -> None:
            for table in ("chunks", "objects"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - constant names
            db.execute("DELETE FROM packs WHERE NOT suspect")

        self._write(delete)

    def known(self, ids: Sequence[bytes], trust: Trust) -> set[bytes]:
        """Return those of ``ids`` that are in a pack that ``trust`` holds."""

        def select(db: sqlite3.Connection) -> set[bytes]:
            query = (
                "SELECT c.id, c.pack FROM chunks c JOIN packs p ON p.number = c.pack "
                "WHERE NOT p.suspect AND c.id IN ({})"
            )
            return {row[0] for row in _selected(db, query, ids) if trust.holds(row[1])}

        found = self._do(select)
        return found if trust.epoch == self.epoch else set()

    def locate(self, ids: Sequence[bytes]) -> dict[bytes, list[Location]]:
        """Return where those of ``ids`` are that are in the cache; places in suspect packs come last."""
        query = (
            "SELECT c.id, p.name, p.header, c.start, c.length, c.size FROM chunks c "
            "JOIN packs p ON p.number = c.pack WHERE c.id IN ({}) ORDER BY p.suspect, p.number"
        )

        def select(db: sqlite3.Connection) -> dict[bytes, list[Location]]:
            found: dict[bytes, list[Location]] = {}
            for row in _selected(db, query, ids):
                found.setdefault(row[0], []).append(Location(*row[1:]))
            return found

        return self._do(select)

    def entries(self, pack: bytes) -> set[tuple[bytes, int, int]]:
        """Return (id, offset, length) of all chunks that are said to be in a pack."""
        query = "SELECT id, start, length FROM chunks WHERE pack = (SELECT number FROM packs WHERE name = ?)"
        return self._do(lambda db: set(db.execute(query, (pack,))))

    def points(self) -> dict[str, bytes]:
        """Return the sealed points by id."""
        return self._do(lambda db: dict(db.execute("SELECT id, sealed FROM points")))

    def set_points(self, add: Mapping[str, bytes], remove: Collection[str]) -> None:
        """Add and forget sealed points."""
        if not add and not remove:
            return

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO points VALUES (?, ?)", list(add.items()))
            db.executemany("DELETE FROM points WHERE id = ?", [(name,) for name in remove])

        self._write(write)

    def _write(self, action: Callable[[sqlite3.Connection], object]) -> None:
        def write(db: sqlite3.Connection) -> None:
            with _transaction(db):
                action(db)

        self._do(write)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def _open(path: Path) -> sqlite3.Connection:
    """Open or make a cache file, one process at a time. One that is rotten or of another version is made anew."""
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return _connect(str(path))
        except sqlite3.OperationalError:  # full, locked, no permission: it may be in use
            raise
        except sqlite3.DatabaseError:
            _unlink(path)
            return _connect(str(path))


def _connect(name: str) -> sqlite3.Connection:
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


def _prepare(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version={_VERSION}")
    elif version != _VERSION:
        raise sqlite3.DatabaseError("another version's cache")


def _forget_file(db: sqlite3.Connection) -> None:
    name = db.execute("PRAGMA database_list").fetchone()[2]
    if name:
        _unlink(Path(name))


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _add_pack(db: sqlite3.Connection, pack: Pack) -> int:
    db.execute("INSERT OR IGNORE INTO packs (name, header, size) VALUES (?, ?, ?)", (pack.name, pack.header, pack.size))
    number: int = db.execute("SELECT number FROM packs WHERE name = ?", (pack.name,)).fetchone()[0]
    rows = ((entry.id, number, entry.offset, entry.length, entry.size) for entry in sorted(pack.entries))
    db.executemany("INSERT OR IGNORE INTO chunks VALUES (?, ?, ?, ?, ?)", rows)
    return number


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _selected(db: sqlite3.Connection, query: str, ids: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(ids), _BATCH):
        part = ids[start : start + _BATCH]
        yield from db.execute(query.format(",".join("?" * len(part))), part)

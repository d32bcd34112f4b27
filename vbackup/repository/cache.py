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
import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vbackup.repository.load import Load, transaction
from vbackup.repository.packs import Pack

T = TypeVar("T")
log = logging.getLogger(__name__)

_VERSION = 4
_SCHEMA = """
CREATE TABLE indexes (number INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
CREATE TABLE listings (pack INTEGER NOT NULL, ix INTEGER NOT NULL, PRIMARY KEY (pack, ix)) WITHOUT ROWID;
CREATE TABLE origins (number INTEGER PRIMARY KEY, data BLOB UNIQUE NOT NULL);
CREATE TABLE packs (number INTEGER PRIMARY KEY AUTOINCREMENT, name BLOB UNIQUE NOT NULL, writer BLOB NOT NULL,
                    size INTEGER NOT NULL, suspect INTEGER NOT NULL DEFAULT 0);
CREATE TABLE chunks (id BLOB NOT NULL, pack INTEGER NOT NULL, kind INTEGER NOT NULL, origin INTEGER NOT NULL,
                     start INTEGER NOT NULL, length INTEGER NOT NULL, size INTEGER NOT NULL,
                     PRIMARY KEY (id, pack)) WITHOUT ROWID;
CREATE TABLE locks (key TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE points (id TEXT PRIMARY KEY, origin BLOB NOT NULL, head BLOB NOT NULL);
"""
_BATCH = 256
_LOAD = 1 << 22
"""Chunks that are sorted at once."""


class Location(NamedTuple):
    """Where a chunk is: its pack's name, the blob's place in the pack, in bytes, and its encoded `Origin`.

    They sort as they lie.
    """

    pack: bytes
    offset: int
    length: int
    size: int
    origin: bytes


class Known(NamedTuple):
    """A pack in the cache."""

    number: int
    """Never used twice in a file."""
    size: int
    suspect: bool
    """Found damaged."""
    listed: bool
    """By a stored index object."""
    writer: bytes
    """The session that wrote it."""

    def is_sound(self, stored: int) -> bool:
        """Whether nothing is known against it; ``stored`` is its size in the store."""
        return self.size == stored and not self.suspect


class Trust:
    """Which packs a session may deduplicate against: those it has seen in the store's listing, and its own."""

    def __init__(self, epoch: int, packs: Mapping[bytes, Known], bad: Collection[bytes]) -> None:
        self.epoch = epoch
        self._last = max((known.number for known in packs.values()), default=0)
        self._bad = {packs[name].number for name in bad}
        self._own: set[int] = set()

    def add(self, numbers: Iterable[int]) -> None:
        """Trust packs that the session itself has stored or adopted."""
        self._own.update(numbers)

    def holds(self, number: int) -> bool:
        """Whether a pack is trusted. One that another process has added since is not: nobody has looked for it."""
        return (number <= self._last and number not in self._bad) or number in self._own


class Cache:
    """One repository's cache. Thread-safe; processes may share the file."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.RLock()
        self._counts: dict[int, int] = {}  # of chunks by pack, some time ago
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
                self._counts.clear()
                self._db = _connect("")  # a file that nobody else sees
                return action(self._db)

    def indexes(self) -> set[str]:
        """Keys of the index objects that are in the cache."""
        return self._do(lambda db: {row[0] for row in db.execute("SELECT name FROM indexes")})

    def packs(self) -> dict[bytes, Known]:
        """All packs that are in the cache, by name."""
        query = "SELECT name, number, size, suspect, number IN (SELECT pack FROM listings), writer FROM packs"
        return self._do(lambda db: {r[0]: Known(r[1], r[2], bool(r[3]), bool(r[4]), r[5]) for r in db.execute(query)})

    def indexes_of(self, packs: Collection[bytes]) -> set[str]:
        """Return the keys of the index objects that list any of ``packs``."""
        query = (
            "SELECT i.name FROM indexes i JOIN listings l ON l.ix = i.number JOIN packs p ON p.number = l.pack "
            "WHERE p.name IN ({})"
        )
        return self._do(lambda db: {row[0] for row in _selected(db, query, list(packs))})

    def add(self, index: str | None, packs: Sequence[Pack]) -> list[int]:
        """Add what an index object (or, for None, their own footers) says of ``packs``; return their numbers."""

        def insert(db: sqlite3.Connection) -> list[int]:
            load = Load()
            load.stage(index, packs, db)
            return load.settle(db)

        return self._do(insert)

    def add_all(self, objects: Iterable[tuple[str, Sequence[Pack]]]) -> None:
        """Add what index objects say; many at once are sorted together. They may be read as they are asked for."""
        load = Load()
        try:
            for index, packs in objects:
                self._do(partial(load.stage, index, packs))
                if load.rows >= _LOAD:
                    self._do(load.settle)
        finally:  # what was read before the store failed is not read again
            self._do(load.settle)

    def suspect(self, packs: Collection[bytes]) -> None:
        """Remember that packs were found damaged: nothing is deduplicated against them any more."""
        rows = [(name,) for name in packs]
        self._write(lambda db: db.executemany("UPDATE packs SET suspect = 1 WHERE name = ?", rows))

    def forget_indexes(self, keys: Collection[str]) -> None:
        """Forget index objects that are gone from the store; their packs stay until they are forgotten, too."""

        def delete(db: sqlite3.Connection) -> None:
            rows = [(key,) for key in keys]
            db.executemany("DELETE FROM listings WHERE ix = (SELECT number FROM indexes WHERE name = ?)", rows)
            db.executemany("DELETE FROM indexes WHERE name = ?", rows)

        if keys:
            self._write(delete)

    def forget_packs(self, names: Collection[bytes]) -> None:
        """Forget packs that are gone from the store."""

        def delete(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM packs WHERE name = ?", [(name,) for name in names])
            for table in ("listings", "chunks"):
                db.execute(f"DELETE FROM {table} WHERE pack NOT IN (SELECT number FROM packs)")  # noqa: S608

        if names:
            self._write(delete)

    def origin_ends(self, start: int) -> set[bytes]:
        """Return what encoded `Origin` objects hold from byte ``start`` on, each once."""
        query = f"SELECT DISTINCT substr(data, {start + 1}) FROM origins"  # noqa: S608 - a number
        return self._do(lambda db: {row[0] for row in db.execute(query)})

    def packs_with(self, start: int, ends: Collection[bytes]) -> int:
        """Count the packs with chunks of an `Origin` that holds one of ``ends`` from ``start`` on. It is slow."""
        query = (
            "SELECT DISTINCT pack FROM chunks WHERE origin IN "  # noqa: S608 - a number
            f"(SELECT number FROM origins WHERE substr(data, {start + 1}) IN ({{}}))"
        )
        return self._do(lambda db: len({row[0] for row in _selected(db, query, list(ends))}))

    def clear(self) -> None:
        """Forget all index entries; points stay (they are sealed), and so do suspicions."""

        def delete(db: sqlite3.Connection) -> None:
            for table in ("chunks", "origins", "listings", "indexes"):
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

        def select(db: sqlite3.Connection) -> dict[bytes, list[Location]]:
            with transaction(db, "DEFERRED"):
                rows = list(_chunks(db, "pack, start, length, size, origin", "id IN ({})", ids))
                packs = _rows(db, "SELECT number, name, suspect FROM packs", {row[1] for row in rows})
                origins = _rows(db, "SELECT number, data FROM origins", {row[5] for row in rows})
            suspect = {number for number, _, is_suspect in packs.values() if is_suspect}
            if suspect:
                rows.sort(key=lambda row: row[1] in suspect)
            found: dict[bytes, list[Location]] = {}
            for chunk, pack, start, length, size, origin in rows:
                if pack not in packs or origin not in origins:  # in a rotten file only
                    continue
                place = Location(packs[pack][1], start, length, size, origins[origin][1])
                found.setdefault(bytes.fromhex(chunk), []).append(place)
            return found

        return self._do(select)

    def agrees(self, pack: Pack) -> bool:
        """Whether the cache says nothing of a pack's chunks but what the pack's own list says."""
        listed = {(entry.id, entry.offset, entry.length) for entry in pack.entries}

        def compare(db: sqlite3.Connection) -> bool:
            row = db.execute("SELECT number FROM packs WHERE name = ?", (pack.name,)).fetchone()
            number = int(row[0]) if row else 0
            ids = [entry.id for entry in pack.entries]
            stored = _chunks(db, "start, length", f"pack = {number} AND id IN ({{}})", ids)
            same = listed.intersection((bytes.fromhex(chunk), start, length) for chunk, start, length in stored)
            if number not in self._counts:
                self._counts = dict(db.execute("SELECT pack, count(*) FROM chunks GROUP BY pack"))
                self._counts.setdefault(number, 0)
            if len(same) == self._counts[number]:
                return True
            every = db.execute("SELECT id, start, length FROM chunks WHERE pack = ?", (number,))  # slow
            return listed.issuperset(every)

        return self._do(compare)

    def points(self) -> dict[str, tuple[bytes, bytes]]:
        """Return (origin, sealed head) of points by id."""

        def select(db: sqlite3.Connection) -> dict[str, tuple[bytes, bytes]]:
            origins: dict[bytes, bytes] = {}  # each once: the points of a session have the same
            rows = db.execute("SELECT id, origin, head FROM points")
            return {point: (origins.setdefault(origin, origin), head) for point, origin, head in rows}

        return self._do(select)

    def set_points(self, add: Mapping[str, tuple[bytes, bytes]], remove: Collection[str]) -> None:
        """Add and forget points' sealed heads."""
        if not add and not remove:
            return

        def write(db: sqlite3.Connection) -> None:
            db.executemany("INSERT OR REPLACE INTO points VALUES (?, ?, ?)", [(i, *add[i]) for i in add])
            db.executemany("DELETE FROM points WHERE id = ?", [(name,) for name in remove])

        self._write(write)

    def locks(self) -> dict[str, float]:
        """Return until when objects are locked, as far as this host has done it; seconds since 1970."""
        return self._do(lambda db: dict(db.execute("SELECT key, until FROM locks").fetchall()))

    def set_locks(self, locks: Mapping[str, float]) -> None:
        """Remember until when objects are locked."""
        rows = list(locks.items())
        self._write(lambda db: db.executemany("INSERT OR REPLACE INTO locks VALUES (?, ?)", rows))

    def reading(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Let ``action`` look at the tables, and make temporary ones of its own."""
        return self._do(action)

    def _write(self, action: Callable[[sqlite3.Connection], object]) -> None:
        def write(db: sqlite3.Connection) -> None:
            with transaction(db):
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
        db.execute(f"PRAGMA temp_store={'MEMORY' if name == ':memory:' else 'FILE'}")
        with transaction(db):
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


def _chunks(db: sqlite3.Connection, columns: str, condition: str, ids: Sequence[bytes]) -> Iterator[list[Any]]:
    """Yield the ids in hex, and columns of numbers, of the chunks that meet a condition on ``ids``.

    SQLite hands over many as one row: for each row Python's lock is let go, and then waited for while others compute.
    """
    query = f"SELECT json_group_array(json_array(hex(id), {columns})) FROM chunks WHERE {condition}"  # noqa: S608
    for (rows,) in _selected(db, query, ids):
        yield from json.loads(rows)


def _rows(db: sqlite3.Connection, query: str, numbers: Collection[int]) -> dict[int, tuple[Any, ...]]:
    return {row[0]: row for row in _selected(db, query + " WHERE number IN ({})", list(numbers))}


def _selected(db: sqlite3.Connection, query: str, ids: Sequence[bytes] | Sequence[int]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(ids), _BATCH):
        part = ids[start : start + _BATCH]
        yield from db.execute(query.format(",".join("?" * len(part))), part)

"""Filling the cache's table of chunks, whose keys are random: rows are gathered and sorted before they go in.

Row by row, each index object would touch nearly every page of a large table, and write all of them again.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Sequence

from vbackup.repository.packs import Pack

_TABLES = ("staged", "numbers", "origin_numbers")
_SCHEMA = """
CREATE TEMP TABLE {0}_staged (id BLOB, pack INTEGER, kind INTEGER, origin INTEGER, start INTEGER, length INTEGER,
                              size INTEGER);
CREATE TEMP TABLE {0}_numbers (pack INTEGER PRIMARY KEY, number INTEGER);
CREATE TEMP TABLE {0}_origin_numbers (origin INTEGER PRIMARY KEY, number INTEGER)
"""
_MERGE = """
INSERT OR IGNORE INTO chunks SELECT s.id, p.number, s.kind, o.number, s.start, s.length, s.size FROM {0}_staged s
CROSS JOIN {0}_numbers p ON p.pack = s.pack CROSS JOIN {0}_origin_numbers o ON o.origin = s.origin ORDER BY s.id, 2
"""


_numbers = itertools.count()


class Load:
    """What index objects and packs' footers say, on its way into the cache. Used under the cache's lock."""

    def __init__(self) -> None:
        self._name = f"load_{next(_numbers)}"  # others may load at the same time
        self._db: sqlite3.Connection | None = None
        self._packs: list[Pack] = []
        self._origins: dict[bytes, int] = {}
        self._indexes: list[tuple[str, int, int]] = []
        self.rows = 0
        """That wait."""

    def stage(self, index: str | None, packs: Sequence[Pack], db: sqlite3.Connection) -> None:
        """Take what an index object (or, for None, their own footers) says of ``packs``; nobody sees it yet."""
        if db is not self._db:  # the first time; or another file took the place of a broken one: all is lost
            self._start(db)
        first = len(self._packs)
        with transaction(db, "DEFERRED"):
            for number, pack in enumerate(packs, first):
                origins = [self._origins.setdefault(origin, len(self._origins)) for origin in pack.origins]
                rows = [
                    (entry.id, number, entry.kind, origins[entry.origin], entry.offset, entry.length, entry.size)
                    for entry in pack.entries
                    if entry.origin < len(origins)
                ]
                db.executemany(f"INSERT INTO {self._name}_staged VALUES (?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608
                self._packs.append(pack._replace(entries=[]))
                self.rows += len(rows)
        if index is not None:
            self._indexes.append((index, first, len(self._packs)))

    def _start(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._forget()
        for statement in _SCHEMA.format(self._name).split(";"):
            db.execute(statement)

    def settle(self, db: sqlite3.Connection) -> list[int]:
        """Add all that was staged, at once; return the packs' numbers."""
        if db is not self._db:
            return []
        with transaction(db):
            numbers = [_pack_number(db, pack) for pack in self._packs]
            self._map(db, "numbers", numbers)
            self._map(db, "origin_numbers", [_origin_number(db, origin) for origin in self._origins])
            db.execute(_MERGE.format(self._name))
            for index, first, end in self._indexes:
                db.execute("INSERT OR IGNORE INTO indexes (name) VALUES (?)", (index,))
                query = "INSERT OR IGNORE INTO listings SELECT ?, number FROM indexes WHERE name = ?"
                db.executemany(query, [(number, index) for number in numbers[first:end]])
            for table in _TABLES:
                db.execute(f"DROP TABLE {self._name}_{table}")
        self._db = None
        return numbers

    def _map(self, db: sqlite3.Connection, table: str, numbers: Sequence[int]) -> None:
        db.executemany(f"INSERT INTO {self._name}_{table} VALUES (?, ?)", enumerate(numbers))  # noqa: S608

    def _forget(self) -> None:
        self._packs.clear()
        self._origins.clear()
        self._indexes.clear()
        self.rows = 0


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Do all of it, or nothing."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _pack_number(db: sqlite3.Connection, pack: Pack) -> int:
    row = (pack.name, pack.writer, pack.size)
    db.execute("INSERT OR IGNORE INTO packs (name, writer, size) VALUES (?, ?, ?)", row)
    number: int = db.execute("SELECT number FROM packs WHERE name = ?", (pack.name,)).fetchone()[0]
    return number


def _origin_number(db: sqlite3.Connection, origin: bytes) -> int:
    db.execute("INSERT OR IGNORE INTO origins (data) VALUES (?)", (origin,))
    number: int = db.execute("SELECT number FROM origins WHERE data = ?", (origin,)).fetchone()[0]
    return number

"""Which pack was read well when, by this host: so that a check of all data can go on, and choose what is due.

A small file that may be deleted at any time: what it does not know is read again.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

from vbackup.api import CheckOrder

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS packs (name BLOB PRIMARY KEY, time REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reading (began REAL NOT NULL);
"""
_GOES_ON = timedelta(days=7)
"""A reading of everything that was interrupted is gone on with for so long; then it begins again."""


class Readings:
    """One repository's readings. Used by one thread; processes may share the file."""

    def __init__(self, path: Path) -> None:
        self._db = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                return _connect(str(path))
            except sqlite3.OperationalError:  # full, locked, no permission
                raise
            except sqlite3.DatabaseError:
                path.unlink()
                return _connect(str(path))
        except (OSError, sqlite3.Error) as error:
            log.warning("what was read of the store cannot be remembered in %s: %s", path, error)
            return _connect(":memory:")

    def times(self) -> dict[bytes, float]:
        """Return when packs were read well, by name; in seconds since 1970."""
        return dict(self._db.execute("SELECT name, time FROM packs").fetchall())

    def note(self, pack: bytes, now: datetime) -> None:
        """Remember that a pack was read well."""
        self._write("INSERT OR REPLACE INTO packs VALUES (?, ?)", pack, now.timestamp())

    def keep(self, packs: Mapping[bytes, int]) -> None:
        """Forget what is said of packs that are gone."""
        for name in self.times().keys() - packs.keys():
            self._write("DELETE FROM packs WHERE name = ?", name)

    def due(self, order: CheckOrder, sizes: Mapping[bytes, int], now: datetime) -> list[bytes]:
        """Return the packs that are to be read now, those first that were not for the longest time."""
        since, times = now.timestamp(), self.times()
        if order.since is not None:
            since = (now - order.since).timestamp()
        elif order.is_everything:
            since = self._begin(now).timestamp()
        # What seems to have been read in the future was not: the clock was wrong.
        read = {name: times[name] if times.get(name, now.timestamp() + 1) <= now.timestamp() else 0.0 for name in sizes}
        chosen: list[bytes] = []
        left = sum(sizes.values()) * order.percent / 100
        for name in sorted(sizes, key=lambda name: (read[name], name)):
            if left <= 0 or read[name] >= since:
                break
            chosen.append(name)
            left -= sizes[name]
        return chosen

    def _begin(self, now: datetime) -> datetime:
        """Begin to read everything; return when that was begun: earlier, if it was interrupted."""
        row = self._db.execute("SELECT max(began) FROM reading").fetchone()
        if row[0] is not None and timedelta() <= now - datetime.fromtimestamp(row[0], now.tzinfo) <= _GOES_ON:
            return datetime.fromtimestamp(row[0], now.tzinfo)
        self.finish()
        self._write("INSERT INTO reading VALUES (?)", now.timestamp())
        return now

    def finish(self) -> None:
        """Everything was read."""
        self._write("DELETE FROM reading")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _write(self, statement: str, *values: object) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            log.warning("what was read of the store cannot be remembered: %s", error)


def _connect(name: str) -> sqlite3.Connection:
    db = sqlite3.connect(name, timeout=60, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.close()
        raise
    return db

"""What must be undone if we die: one file for each machine at work, held by a lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vbackup.api import Busy

E = TypeVar("E", bound="Entry")


class Entry(BaseModel):
    """Base of what is journaled."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @property
    def lasts(self) -> bool:
        """Whether it holds what only time can undo, so that it must not be cleared yet."""
        return False


class Journal(Generic[E]):
    """One journal, held. ``entry`` is what it says: on opening, what a dead run has left."""

    def __init__(self, path: Path, kind: type[E]) -> None:
        self._path = path
        self.entry: E | None = None
        with suppress(FileNotFoundError, ValidationError):  # half a journal cannot be: write() is all or nothing
            self.entry = kind.model_validate_json(path.read_bytes())

    def write(self, entry: E) -> None:
        """Replace the entry; durable on return."""
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(entry.model_dump_json().encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        _sync(self._path.parent)
        self.entry = entry

    def update(self, **values: object) -> None:
        """`write` the entry with other values."""
        assert self.entry is not None  # noqa: S101 - only what is journaled changes
        self.write(self.entry.model_copy(update=values))

    def clear(self) -> None:
        """All is undone, but for what only time can undo: then the entry stays, for a sweep."""
        if self.entry is not None and self.entry.lasts:
            return
        self._path.unlink(missing_ok=True)
        _sync(self._path.parent)
        self.entry = None


class Journals(Generic[E]):
    """The journals of one kind in a directory."""

    def __init__(self, directory: Path, prefix: str, kind: type[E]) -> None:
        self._directory = directory
        self._prefix = prefix
        self._kind = kind

    @contextmanager
    def open(self, name: str) -> Iterator[Journal[E]]:
        """Hold the journal of ``name``. Raises: `Busy` when a living process holds it, this one included."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The lock is a file of its own that is never deleted, so that all lock the same one.
        with self._path(name).with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Busy(f"another run of vbackup on this host is at {self._prefix} {name}") from error
            yield Journal(self._path(name), self._kind)

    def dead(self) -> Iterator[Journal[E]]:
        """Hold, one after another, the journals that dead processes have left."""
        for path in sorted(self._directory.glob(f"{self._prefix}-*.json")):
            with suppress(Busy), self.open(path.stem.removeprefix(f"{self._prefix}-")) as journal:
                if journal.entry is not None:
                    yield journal

    def _path(self, name: str) -> Path:
        return self._directory / f"{self._prefix}-{name}.json"


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

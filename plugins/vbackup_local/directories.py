"""Directories by file descriptor, so that no symbolic link below the root is ever followed.

Directories are made and never removed: whoever found one may rely on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from vbackup.api import Unavailable

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o700


class Directories:
    """The directories under ``root``; the root itself may be a symbolic link, and must be there."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._identity: tuple[int, int] | None = None  # of the root: what is below a mount point is not the store
        self._durable: set[tuple[str, ...]] = set()
        # Another process may have made a directory and not yet made it durable: before relying on one we do that
        # ourselves, once.

    @contextmanager
    def open(self, segments: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """Open the directory at ``segments`` under the root.

        With ``make`` it is made if it is missing, and is durable on return. Raises: `Unavailable` if the root is
        missing, else `OSError`: `FileNotFoundError`, `NotADirectoryError` (also for symbolic links) and others.
        """
        descriptor = self._open_root()
        try:
            for depth, segment in enumerate(segments, start=1):
                if make:
                    self._make(segment, descriptor, tuple(segments[:depth]))
                parent = descriptor
                descriptor = os.open(segment, _OPEN, dir_fd=parent)
                os.close(parent)
            yield descriptor
        finally:
            os.close(descriptor)

    def make_root(self) -> None:
        """Make the root if it is missing, durably. Its parent must be there."""
        with suppress(FileExistsError):
            self._root.mkdir(_MODE)
        parent = os.open(self._root.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)

    def _open_root(self) -> int:
        try:
            descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Unavailable(
                f"the directory {self._root} is not there",
                hint="is its disk mounted? `vbackup init` makes the directory of a new target",
                transient=False,
            ) from error

        stat = os.fstat(descriptor)
        identity = (stat.st_dev, stat.st_ino)
        self._identity = self._identity or identity
        if identity != self._identity:
            os.close(descriptor)
            raise Unavailable(
                f"the directory {self._root} is another one than before", hint="was its disk unmounted meanwhile?"
            )
        return descriptor

    def _make(self, segment: str, parent: int, path: tuple[str, ...]) -> None:
        made = False
        with suppress(FileExistsError):
            os.mkdir(segment, _MODE, dir_fd=parent)
            made = True
        if made or path not in self._durable:
            os.fsync(parent)
            self._durable.add(path)

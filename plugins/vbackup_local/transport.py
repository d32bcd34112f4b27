"""A directory as a transport: an object is a file of the same name.

A put writes a temporary file, makes it durable, gives it its name, and makes the name durable. Killed in between it
leaves a temporary file, whose name no object can have; the first put of another process removes it a day later.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field, field_validator

from vbackup.api import (
    AlreadyExists,
    Corrupt,
    Finding,
    NotFound,
    ObjectInfo,
    Options,
    Unsupported,
    WithoutLocks,
    checked_key,
)
from vbackup.api.clock import now
from vbackup.api.hypervisor import Buffer
from vbackup_files.failures import NOT_HERE, told
from vbackup_local.check import examine
from vbackup_local.directories import Directories

_TEMPORARY = ".tmp-"
_ABANDONED = timedelta(days=1)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not block us
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE = 0o600
_FOREIGN = {errno.ELOOP, errno.ENXIO}  # opening a symbolic link, a socket
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class LocalOptions(Options):
    """Options of ``type: local``."""

    path: Path = Field(description="an absolute path; `vbackup init` makes the last directory of it")

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path


class Local(WithoutLocks):
    """See the module. All file systems with hard links will do."""

    name: ClassVar[str] = "local"
    options: ClassVar[type[BaseModel]] = LocalOptions
    has_files: ClassVar[bool] = True

    def __init__(self, options: LocalOptions) -> None:
        self._root = options.path
        self._directories = Directories(options.path)
        self._swept = False

    @property
    def root(self) -> Path:
        """The directory of the configuration."""
        return self._root

    @property
    def can_put_if_absent(self) -> bool:
        """Always: link(2) fails where the name is taken."""
        return True

    def create(self, *, force: bool = False) -> None:  # noqa: ARG002
        """See `Transport.create`. Only the last directory of the path is made."""
        with told(f"make the directory {self._root}"):
            self._directories.make_root()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`. `Unsupported` where ``key`` is a directory, or a part of it is an object."""
        *parents, name = checked_key(key).split("/")
        with told(f"store {self._path(key)}"), self._directories.open(()) as root:
            self._sweep_once(root)
            try:
                with self._directories.open(parents, make=True) as directory, self._temporary(root, data) as temporary:
                    if if_absent:
                        self._link(root, temporary, directory, name, key)
                    else:
                        os.rename(temporary, name, src_dir_fd=root, dst_dir_fd=directory)
                    os.fsync(directory)
            except (NotADirectoryError, IsADirectoryError) as error:
                raise Unsupported(
                    f"{self._path(key)} is in the way of, or hidden by, a file, link or directory"
                ) from error

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        with told(f"read {self._path(key)}"), self._opened(key) as (descriptor, size):
            end = size if length is None else min(size, offset + length)
            return _read(descriptor, offset, end)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`. Whatever cannot be an object is left out: other names, links, devices."""
        with told(f"list {self._path(prefix)}"):
            if not prefix:
                yield from self._walk(())
                return
            *parents, name = segments = checked_key(prefix).split("/")
            with suppress(*NOT_HERE), self._directories.open(parents) as directory:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    yield ObjectInfo(prefix, found.st_size)
                    return
            yield from self._walk(tuple(segments))

    def delete(self, key: str) -> None:
        """See `Transport.delete`. Durable on return, lest a deleted object comes back whose parts do not."""
        *parents, name = checked_key(key).split("/")
        with told(f"delete {self._path(key)}"), suppress(*NOT_HERE), self._directories.open(parents) as directory:
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(name, dir_fd=directory)
            os.fsync(directory)

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        with told(f"look at {self._path(key)}"), self._opened(key) as (_, size):
            return size

    def check(self) -> Sequence[Finding]:
        """Try what a put does, on a temporary file."""
        return examine(self._root, f"{_TEMPORARY}{secrets.token_hex(8)}")

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, key: str) -> Path:
        return self._root / key

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, int]]:
        """Open the file of an object; give its descriptor and size in bytes. Raises: `NotFound`."""
        *parents, name = checked_key(key).split("/")
        try:
            with self._directories.open(parents) as directory:
                descriptor = os.open(name, _READ, dir_fd=directory)
        except OSError as error:
            if isinstance(error, NOT_HERE) or error.errno in _FOREIGN:
                raise NotFound(f"{self._path(key)} is not there") from error
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise NotFound(f"{self._path(key)} is not a file")
            yield descriptor, found.st_size
        finally:
            os.close(descriptor)

    def _walk(self, segments: tuple[str, ...]) -> Iterator[ObjectInfo]:
        """Read each directory to its end before yielding: deleting while listing must not hide other entries."""
        objects, below = [], []
        with suppress(*NOT_HERE), self._directories.open(segments) as directory, os.scandir(directory) as entries:
            for entry in entries:
                path = (*segments, entry.name)
                if not _is_key("/".join(path)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(path)
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        objects.append(ObjectInfo("/".join(path), entry.stat(follow_symlinks=False).st_size))
        yield from objects
        for path in below:
            yield from self._walk(path)

    @contextmanager
    def _temporary(self, root: int, data: Buffer) -> Iterator[str]:
        """Give the name of a durable file under the root with ``data`` in it."""
        name = f"{_TEMPORARY}{secrets.token_hex(8)}"
        descriptor = os.open(name, _WRITE, _MODE, dir_fd=root)
        try:
            try:
                _write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield name
        finally:
            with suppress(OSError):  # renamed away; or what stays is garbage that a later put removes
                os.unlink(name, dir_fd=root)

    def _link(self, root: int, temporary: str, directory: int, name: str, key: str) -> None:
        try:
            os.link(temporary, name, src_dir_fd=root, dst_dir_fd=directory, follow_symlinks=False)
        except FileExistsError as error:
            if os.stat(temporary, dir_fd=root).st_nlink > 1:
                return  # it was us: a network file system lost the answer and asked again
            os.fsync(directory)  # who is told that it exists may rely on it
            raise AlreadyExists(f"{self._path(key)} already exists") from error
        except OSError as error:
            if error.errno in _NO_LINKS:
                hint = "use ext4, XFS, Btrfs, ZFS or the like"
                raise Unsupported(f"the file system of {self._root} has no hard links", hint=hint) from error
            raise

    def _sweep_once(self, root: int) -> None:
        """Remove the temporary files that dead processes left; a living one that is that slow has to try again."""
        if self._swept:
            return
        self._swept = True
        oldest = (now() - _ABANDONED).timestamp()
        with os.scandir(root) as entries:
            for entry in entries:
                if not entry.name.startswith(_TEMPORARY) or not entry.is_file(follow_symlinks=False):
                    continue
                with suppress(FileNotFoundError, PermissionError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.name, dir_fd=root)


def _is_key(key: str) -> bool:
    try:
        checked_key(key)
    except Corrupt:
        return False
    return True


def _write(descriptor: int, data: Buffer) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def _read(descriptor: int, start: int, end: int) -> bytes:
    pieces = []
    while start < end and (piece := os.pread(descriptor, end - start, start)):
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)

"""Objects as files on a server, by `Files`: all that a transport does but to connect.

A put writes a temporary file below the root, durably, and then gives it its name. Killed in between it leaves a file
whose name no object can have; the first put of another process removes it a day later.
"""

from __future__ import annotations

import errno
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from vbackup.api import (
    AlreadyExists,
    Corrupt,
    Finding,
    Level,
    NotFound,
    ObjectInfo,
    Unavailable,
    Unsupported,
    VBackupError,
    WithoutLocks,
    checked_key,
    clock,
)
from vbackup.api.hypervisor import Buffer
from vbackup_files.failures import UNHEARD, told
from vbackup_files.files import Files

_TEMPORARY = ".tmp-"
_ABANDONED = timedelta(days=1)
_MISSING = {errno.ENOENT, errno.ENOTDIR}
_LOW = 0.05


class FileStore(WithoutLocks):
    """The methods of `vbackup.api.Transport` over ``files``; ``place`` names the server and root in messages.

    Directories are made and never removed: whoever found one may rely on it. So they are looked at once.
    """

    def __init__(self, place: str, files: Files) -> None:
        self._place = place
        self._files = files
        self._lock = threading.Lock()
        self._made: set[str] = set()
        self._swept = False

    @property
    def root(self) -> Path | None:
        """None: no program of this machine can open these files."""
        return None

    @property
    def can_put_if_absent(self) -> bool:
        """Always; see `Files.name`."""
        return True

    def create(self, *, force: bool = False) -> None:  # noqa: ARG002
        """See `Transport.create`. The directories of the root are made where they are missing."""
        with told(f"make {self._place}"), suppress(FileExistsError):
            self._files.make_directory("")

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Transport.put`. `Unsupported` where ``key`` is a directory, or a part of it is an object."""
        parent = checked_key(key).rpartition("/")[0]
        temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
        with told(f"store {self._path(key)}"):
            try:
                self._sweep_once()
                self._files.write(temporary, memoryview(data).cast("B"))
                self._make(parent)
                self._files.name(temporary, key, replace=not if_absent)
            except OSError as error:
                self._discard(temporary, error)
                if isinstance(error, FileExistsError) and if_absent:
                    raise AlreadyExists(f"{self._path(key)} already exists") from error
                if error.errno in (errno.ENOTDIR, errno.EISDIR):
                    raise Unsupported(f"{self._path(key)} is in the way of, or hidden by, another one") from error
                if error.errno == errno.ENOENT:
                    self._made.clear()  # lest we rely again on what somebody has removed
                    self._need_root()
                raise

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Transport.get`."""
        with told(f"read {self._path(key)}"):
            try:
                return self._files.read(checked_key(key), offset, length)
            except OSError as error:
                raise self._missing(error, key) from error

    def size(self, key: str) -> int:
        """See `Transport.size`."""
        with told(f"look at {self._path(key)}"):
            try:
                found = self._files.look(checked_key(key))
            except OSError as error:
                raise self._missing(error, key) from error
        if not found.is_file:
            raise NotFound(f"{self._path(key)} is not a file")
        return found.size

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Transport.list`. Whatever cannot be an object is left out."""
        with told(f"list {self._path(prefix)}"):
            if prefix:
                try:
                    found = self._files.look(checked_key(prefix))
                except OSError as error:
                    if error.errno not in _MISSING:
                        raise
                    self._need_root()
                    return
                if found.is_file:
                    yield ObjectInfo(prefix, found.size)
                    return
            yield from self._walk(prefix)

    def delete(self, key: str) -> None:
        """See `Transport.delete`. Durable on return, lest a deleted object comes back whose parts do not."""
        with told(f"delete {self._path(key)}"):
            try:
                self._files.remove(checked_key(key))
            except OSError as error:
                if error.errno in _MISSING:
                    self._need_root()
                elif not self._is_no_file(key, error):
                    raise

    def check(self) -> Sequence[Finding]:
        """Try what a put does, on a temporary file."""
        temporary, other = (f"{_TEMPORARY}{secrets.token_hex(8)}" for _ in range(2))
        try:
            with told("write, name and remove a file"):
                self._files.write(temporary, b"vbackup doctor")
                self._files.name(temporary, other, replace=False)
                self._files.remove(other)
            with told("ask for free space"):
                return [Finding(self._place, Level.OK, "files can be written, made durable and named"), *self._space()]
        except VBackupError as error:
            self._discard(temporary, error.__cause__)
            return [Finding(self._place, Level.ERROR, error.message, error.hint or "check the server, and its log")]

    def close(self) -> None:
        """Let go of connections."""
        self._files.close()

    def _path(self, key: str) -> str:
        return f"{self._place}/{key}" if key else self._place

    def _space(self) -> Iterator[Finding]:
        space = self._files.free()
        if space is None:
            return
        free, total = space
        low = free < total * _LOW
        detail = f"{free / 2**30:.1f} GiB of {total / 2**30:.1f} GiB are free"
        hint = "free some space" if low else ""
        yield Finding(f"free space of {self._place}", Level.WARNING if low else Level.OK, detail, hint)

    def _missing(self, error: OSError, key: str) -> Exception:
        """Return what it means that an object could not be opened."""
        if error.errno in _MISSING:
            self._need_root()
        if error.errno in {*_MISSING, errno.EISDIR} or self._is_no_file(key, error):
            return NotFound(f"{self._path(key)} is not there")
        return error

    def _is_no_file(self, key: str, error: OSError) -> bool:
        """Whether it failed with ``error`` because something else than a file is there."""
        if error.errno in UNHEARD:
            return False
        try:
            return not self._files.look(key).is_file
        except OSError:
            return False

    def _need_root(self) -> None:
        """Raise `Unavailable` if the root is not there: a place that is missing must not look like an empty one."""
        try:
            self._files.look("")
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            raise Unavailable(
                f"{self._place} is not there",
                hint="`vbackup init` makes the directory of a new target; else correct its path",
                transient=False,
            ) from error

    def _make(self, directory: str) -> None:
        if not directory or directory in self._made:
            return
        self._make(directory.rpartition("/")[0])
        with suppress(FileExistsError):
            self._files.make_directory(directory)
        self._made.add(directory)

    def _discard(self, temporary: str, error: BaseException | None = None) -> None:
        """Remove what is left after ``error``."""
        if isinstance(error, OSError) and error.errno in UNHEARD:
            return
        with suppress(OSError, VBackupError):  # it is garbage that a later put removes
            self._files.remove(temporary)

    def _walk(self, directory: str) -> Iterator[ObjectInfo]:
        """Read each directory to its end before yielding: deleting while listing must not hide other entries."""
        below = []
        try:
            entries = list(self._files.list(directory))
        except FileNotFoundError:
            self._need_root()
            return
        for entry in entries:
            path = f"{directory}/{entry.name}" if directory else entry.name
            if not _is_key(path):
                continue
            if entry.is_directory:
                below.append(path)
            elif entry.is_file:
                yield ObjectInfo(path, entry.size)
        for path in below:
            yield from self._walk(path)

    def _sweep_once(self) -> None:
        """Remove the temporary files that dead processes left; a living one that is that slow has to try again."""
        with self._lock:
            if self._swept:
                return
            self._swept = True
        oldest = (clock.now() - _ABANDONED).timestamp()
        for entry in self._files.list(""):
            if entry.name.startswith(_TEMPORARY) and entry.is_file and entry.modified < oldest:
                self._discard(entry.name)


def _is_key(key: str) -> bool:
    try:
        checked_key(key)
    except Corrupt:
        return False
    return True

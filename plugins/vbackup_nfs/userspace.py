"""The files of an export by libnfs, for `vbackup_files.FileStore`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from ctypes import byref
from typing import TypeVar

from vbackup.api.hypervisor import Buffer
from vbackup_files import FileStore, Found, Pool
from vbackup_nfs import library
from vbackup_nfs.client import PIECE, Connection
from vbackup_nfs.memory import new_bytes
from vbackup_nfs.options import NfsOptions

T = TypeVar("T")

_CONNECTIONS = 8
_REPLACEMENTS = 10
_FILE_MODE, _DIRECTORY_MODE = 0o600, 0o700
_REGULAR, _DIRECTORY = 1, 2  # ftype3


def store(options: NfsOptions) -> FileStore:
    """Return an export as a store of objects. Raises: `Unsupported` if there is no libnfs."""
    library.load()
    return FileStore(options.export.url, NfsFiles(options))


class NfsFiles:
    """`vbackup_files.Files` over some connections. An NFS server makes all changes but writes durable by itself."""

    def __init__(self, options: NfsOptions) -> None:
        self._options = options
        self._export = options.export
        self._pool = Pool(self._connect, Connection.close, _CONNECTIONS)

    def write(self, path: str, data: Buffer) -> None:
        """See `Files.write`."""
        with self._pool.connection() as connection:
            try:
                connection.create(_absolute(path), _FILE_MODE, memoryview(data).cast("B"))
            except FileExistsError as error:  # nobody else has the name: our first request was answered to nobody
                raise OSError(errno.EIO, "the server has lost an answer") from error

    def name(self, temporary: str, path: str, *, replace: bool) -> None:
        """See `Files.name`."""
        old, new = _absolute(temporary), _absolute(path)
        with self._pool.connection() as connection:
            if replace:
                _rename(connection, old, new)
                return
            try:
                connection.call("nfs_link", old, new)
            except FileExistsError:
                if connection.stat(old).nlink < 2:
                    raise
        with suppress(OSError):  # it has its name; the other one is garbage that a later put removes
            self.remove(temporary)

    def read(self, path: str, offset: int, length: int | None) -> bytes:
        """See `Files.read`."""
        with self._pool.connection() as connection:
            return _again(lambda: _read(connection, _absolute(path), offset, length))

    def look(self, path: str) -> Found:
        """See `Files.look`."""
        with self._pool.connection() as connection:
            return _again(lambda: _found(path.rpartition("/")[2], connection.stat(_absolute(path))))

    def list(self, path: str) -> Iterable[Found]:
        """See `Files.list`."""
        with self._pool.connection() as connection:
            return _again(lambda: _list(connection, path))

    def make_directory(self, path: str) -> None:
        """See `Files.make_directory`. Of the root only the last directory is made, from the one that it is in."""
        if path:
            with self._pool.connection() as connection:
                connection.call("nfs_mkdir2", _absolute(path), _DIRECTORY_MODE)
        else:
            self._make_root()

    def remove(self, path: str) -> None:
        """See `Files.remove`."""
        with self._pool.connection() as connection:
            connection.call("nfs_unlink", _absolute(path))

    def free(self) -> tuple[int, int]:
        """See `Files.free`."""
        space = library.StatVfs()
        with self._pool.connection() as connection:
            connection.call("nfs_statvfs64", b"/", byref(space))
        return space.bavail * space.frsize, space.blocks * space.frsize

    def close(self) -> None:
        """See `Files.close`."""
        self._pool.close()

    def _connect(self) -> Connection:
        """Mount the root. Some servers say of what is not there that we may not mount it: then ask what it is in."""
        try:
            return Connection(self._export, self._options)
        except PermissionError:
            with suppress(PermissionError), closing(Connection(self._export.parent, self._options)) as parent:
                parent.stat(_absolute(self._export.name))
            raise

    def _make_root(self) -> None:
        try:
            self.look("")
        except FileNotFoundError:
            with closing(Connection(self._export.parent, self._options)) as parent, suppress(FileExistsError):
                parent.call("nfs_mkdir2", _absolute(self._export.name), _DIRECTORY_MODE)


def _rename(connection: Connection, old: bytes, new: bytes) -> None:
    try:
        connection.call("nfs_rename", old, new)
    except FileExistsError as error:  # all but a directory is replaced (RFC 1813, 3.3.14)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from error


def _again(action: Callable[[], T]) -> T:
    """Do it again if what we looked at went: replaced, it is another file, and NFSv3 keeps none for readers."""
    for _ in range(_REPLACEMENTS):
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return action()


def _read(connection: Connection, path: bytes, offset: int, length: int | None) -> bytes:
    with connection.opened(path) as file:
        if length is None or not 0 < length <= PIECE:  # else it does not matter how much there is
            found = connection.stat_open(file)
            if not stat.S_ISREG(found.mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            rest = max(0, found.size - offset)
            length = rest if length is None else min(length, rest)
        data, address = new_bytes(length)
        got = connection.read_into(file, address, length, offset)
    return data if got == length else data[:got]


def _list(connection: Connection, path: str) -> list[Found]:
    found, unknown = [], []
    for entry in connection.entries(_absolute(path)):
        name = os.fsdecode(entry.name)
        if not entry.type:  # the server did not say what it is
            unknown.append(name)
        elif name not in (".", ".."):
            is_file, is_directory = entry.type == _REGULAR, entry.type == _DIRECTORY
            found.append(Found(name, is_file, is_directory, entry.size, entry.mtime.seconds))
    for name in unknown:
        with suppress(FileNotFoundError):  # removed meanwhile
            found.append(_found(name, connection.stat(_absolute(f"{path}/{name}"))))
    return found


def _absolute(path: str) -> bytes:
    return os.fsencode(f"/{path.lstrip('/')}")


def _found(name: str, what: library.Stat) -> Found:
    return Found(name, stat.S_ISREG(what.mode), stat.S_ISDIR(what.mode), what.size, what.mtime)

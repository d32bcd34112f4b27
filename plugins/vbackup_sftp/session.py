"""The calls of `vbackup_files.Files` over one SFTP connection, as coroutines."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from vbackup_files import Found
from vbackup_sftp.failures import FAILURE, LOST, Limit

if TYPE_CHECKING:
    import asyncssh

_BLOCK = 255 << 10  # the most that OpenSSH takes in one request, if the server does not say
_REQUESTS = 8  # at once; more did not make it faster, fewer did not fill the connection
_READ, _WRITE_NEW = 0x01, 0x02 | 0x08 | 0x20  # SSH_FXF_READ; _WRITE, _CREAT and _EXCL
_READ_ONLY = 0x01  # SSH_FXE_STATVFS_ST_RDONLY


class Session:
    """A connection with an SFTP channel; for one caller at a time. Everything raises `OSError`."""

    def __init__(
        self, ssh: asyncssh.SSHClientConnection, sftp: asyncssh.SFTPClient, root: PurePosixPath, limit: Limit
    ) -> None:
        self._ssh = ssh
        self._sftp = sftp
        self._root = root
        self._limit = limit

    async def write(self, path: str, data: memoryview) -> None:
        """Make a file; durable on return."""
        block = self._sftp.limits.max_write_len or _BLOCK
        try:
            async with self._closing(await self._open(self._full(path), _WRITE_NEW)) as file:
                await self._each(range(0, len(data), block), lambda at: file.write(data[at : at + block].tobytes(), at))
                await self._limit(file.fsync())
        except OSError as error:
            raise await self._precisely(error, path, len(data)) from error

    async def read(self, path: str, offset: int, length: int | None) -> bytes:
        """Read a file or a part of it."""
        block = self._sftp.limits.max_read_len or _BLOCK
        async with self._closing(await self._open(self._full(path), _READ)) as file:
            found = await self._limit(file.stat())
            if stat.S_ISDIR(found.permissions or 0):
                raise OSError(errno.EISDIR, f"{path} is a directory")
            size = found.size or 0
            end = size if length is None else min(size, offset + length)
            pieces: dict[int, bytes] = {}

            async def fetch(start: int) -> None:
                stop = min(start + block, end)
                got = b""
                while start + len(got) < stop:
                    piece: bytes = await file.read(stop - start - len(got), start + len(got))
                    if not piece:
                        break
                    got += piece
                pieces[start] = got

            await self._each(range(offset, end, block), fetch)
            return b"".join(pieces[start] for start in sorted(pieces))

    async def link(self, temporary: str, path: str) -> None:
        """Give a file its name if that is free, durably."""
        try:
            await self._limit(self._sftp.link(self._full(temporary), self._full(path)))
        except OSError as error:
            failure = await self._precisely(error, path, taken=errno.EEXIST)
            if failure.errno == errno.EEXIST:
                await self._settle(path)  # who is told that it exists may rely on it
            raise await self._crossed(failure, path) from error
        await self._limit(self._sftp.remove(self._full(temporary)))
        await self._settle(path)

    async def rename(self, temporary: str, path: str) -> None:
        """Give a file its name, taking it from another, durably."""
        try:
            await self._limit(self._sftp.posix_rename(self._full(temporary), self._full(path)))
        except OSError as error:
            raise await self._crossed(await self._precisely(error, path), path) from error
        await self._settle(path)

    async def look(self, path: str) -> Found:
        """Tell what is there. The root itself may be a symbolic link."""
        ask = self._sftp.lstat if path else self._sftp.stat
        return _found(path, await self._limit(ask(self._full(path))))

    async def list(self, path: str) -> list[Found]:
        """Read a directory to its end."""
        found = []
        async with self._limit.steps() as clock:
            async for entry in self._sftp.scandir(self._full(path)):
                clock.reschedule(self._limit.next)
                name = os.fsdecode(entry.filename)
                if name not in (".", ".."):
                    found.append(_found(name, entry.attrs))
        return found

    async def make_directory(self, path: str) -> None:
        """Make a directory, durably; one that is there already is durable too when `FileExistsError` says so."""
        from asyncssh import SFTPAttrs

        try:
            await self._limit(self._sftp.mkdir(self._full(path), SFTPAttrs(permissions=0o700)))
        except OSError as error:
            failure = await self._precisely(error, path, taken=errno.EEXIST)
            if failure.errno == errno.EEXIST:
                await self._settle_again(path)
            raise failure from error
        await self._settle(path)

    async def remove(self, path: str) -> None:
        """Remove a file, durably; that it is not there is durable too when `FileNotFoundError` says so."""
        try:
            await self._limit(self._sftp.remove(self._full(path)))
        except OSError as error:
            failure = await self._precisely(error, path)
            if failure.errno == errno.ENOENT:
                await self._settle_again(path)
            raise failure from error
        await self._settle(path)

    async def free(self) -> tuple[int, int] | None:
        """Return the bytes that are free, and of how many; None where the server does not say."""
        found = await self._system()
        return (found.bavail * found.frsize, found.blocks * found.frsize) if found else None

    async def close(self) -> None:
        """Let go of it, whatever state it is in."""
        self._ssh.abort()
        await self._ssh.wait_closed()

    def _full(self, path: str) -> bytes:
        return bytes(self._root / path)

    async def _open(self, path: bytes, flags: int) -> asyncssh.SFTPClientFile:
        """Open a file; without `block_size` each of its reads and writes is one request."""
        from asyncssh import SFTPAttrs

        attributes = SFTPAttrs(permissions=0o600) if flags == _WRITE_NEW else SFTPAttrs()
        return await self._limit(self._sftp.open(path, flags, attributes, encoding=None, block_size=0, max_requests=1))

    @asynccontextmanager
    async def _closing(self, file: asyncssh.SFTPClientFile) -> AsyncIterator[asyncssh.SFTPClientFile]:
        try:
            yield file
        except OSError as error:
            if error.errno not in LOST:
                await self._limit(file.close())
            raise
        await self._limit(file.close())

    async def _each(self, offsets: range, request: Callable[[int], Awaitable[object]]) -> None:
        """Make a request for each offset, several at once; each has its own limit, so a slow line is no failure."""
        left = iter(offsets)

        async def work() -> None:
            for offset in left:
                await self._limit(request(offset))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_REQUESTS, len(offsets))):
                    group.create_task(work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def _settle(self, path: str) -> None:
        """Make the name of a file durable: OpenSSH opens a directory as a file, and then fsync(2) works on it."""
        try:
            directory = await self._open(bytes((self._root / path).parent), _READ)
        except OSError as error:
            if error.errno in (FAILURE, errno.EACCES):
                raise OSError(errno.ENOTSUP, f"it does not let names be made durable: {error.strerror}") from error
            raise
        async with self._closing(directory):
            await self._limit(directory.fsync())

    async def _settle_again(self, path: str) -> None:
        """Make durable what somebody else did, or we before a connection was lost; not where there is no directory."""
        try:
            await self._settle(path)
        except OSError as error:
            made_for_us = not path and error.errno == errno.ENOTSUP  # the root, where we may not look
            if error.errno != errno.ENOENT and not made_for_us:
                raise

    async def _precisely(self, error: OSError, path: str, size: int = 1, taken: int | None = None) -> OSError:
        """Find out what a server meant that knows only "Failure", or "No such file" for what is below a file.

        ``size`` in bytes did not fit if it was a lack of space; ``taken`` is the errno for a name that is taken.
        """
        if error.errno not in (FAILURE, errno.ENOENT):
            return error
        for parent in PurePosixPath(path).parents[:-1]:
            if await self._kind(str(parent)) not in (stat.S_IFDIR, 0):
                return OSError(errno.ENOTDIR, f"{parent} is not a directory")
        if error.errno == errno.ENOENT:
            return error
        if kind := await self._kind(path):
            if taken:
                return OSError(taken, f"{path} exists")
            if kind == stat.S_IFDIR:
                return OSError(errno.EISDIR, f"{path} is a directory")
        if system := await self._system():
            if system.flags & _READ_ONLY:
                return OSError(errno.EROFS, "the file system is read-only")
            no_names = system.files and not system.favail
            if no_names or system.bavail * system.frsize < max(size, system.frsize):
                return OSError(errno.ENOSPC, "no space is left on the server")
        return OSError(errno.EIO, f"the server says {error.strerror!r} only; its log may tell more")

    async def _crossed(self, error: OSError, path: str) -> OSError:
        """Find out whether a name could not be given because its directory is on another file system than the root."""
        if error.errno != FAILURE:
            return error
        root, parent = await self._system(), await self._system(path.rpartition("/")[0])
        if not root or not parent or root.fsid == parent.fsid:
            return error
        return OSError(errno.EXDEV, "its directory is on another file system; all must be on one")

    async def _system(self, path: str = "") -> asyncssh.SFTPVFSAttrs | None:
        try:
            return await self._limit(self._sftp.statvfs(self._full(path)))
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return None
            raise

    async def _kind(self, path: str) -> int:
        """Return S_IFDIR or the like; 0 if nothing is there."""
        try:
            return stat.S_IFMT((await self._limit(self._sftp.lstat(self._full(path)))).permissions or 0)
        except OSError as error:
            if error.errno in (errno.ENOENT, FAILURE):
                return 0
            raise


def _found(name: str, attributes: asyncssh.SFTPAttrs) -> Found:
    mode = attributes.permissions or 0
    return Found(name, stat.S_ISREG(mode), stat.S_ISDIR(mode), attributes.size or 0, float(attributes.mtime or 0))

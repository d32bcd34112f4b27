"""Blocks of objects as files in a directory of this host: bounded, shared by processes, gone without harm."""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from vbackup.api import Finding, Level

_SUM = 32
BLOCK = (256 << 10) - _SUM
"""Bytes of an object in one file, which is 256 KiB with its checksum."""

_OURS = re.compile(r"[0-9a-f]{40}-\d+|\.tmp-[0-9a-f]{16}", re.ASCII)
_PAGE = 4096
_PRIVATE = 0o077
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_log = logging.getLogger(__name__)


class _File(NamedTuple):
    used: int
    """When it was last written or read, in ns."""
    size: int
    path: Path


class Blocks:
    """Blocks by object and number, at most ``most`` bytes of them; those go first that were not read for longest.

    A file is written aside and renamed; nothing is made durable, for a checksum over name and bytes tells what a power
    failure, or the disk, has spoilt: that is as good as not there. Processes may share a directory: then each one but
    the first two may add a sixteenth of ``most`` before it looks what the others have added.

    No trouble with the directory is an error: it is logged once, and there are no more blocks.
    """

    def __init__(self, directory: Path, most: int, owner: str) -> None:
        """Use ``directory``, made if it is missing. ``owner`` keeps apart objects of one name, of different stores."""
        self._directory = directory
        self._most = most
        self._owner = owner
        self._lock = threading.Lock()
        self._step = most // 16
        self._added = self._step  # since we looked what is there: the first block makes us look
        self.trouble = ""
        """Why it is not used; empty: it is."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = directory.stat()
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & _PRIVATE:
                self._give_up(f"others may use it (mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid})")
        except OSError as error:
            self._give_up(f"it cannot be used: {error.strerror}")

    def load(self, key: str, number: int) -> bytes | None:
        """Return a block, or None where it is not here. It counts as used now."""
        name = self._name(key, number)
        path = self._path(name)
        if self.trouble:
            return None
        try:
            with open(path, "rb", opener=lambda path, _: os.open(path, _READ)) as file:
                stored = file.read()
                os.utime(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(f"{path} cannot be read: {error.strerror}")
            return None
        if stored[:_SUM] == _sum(name, memoryview(stored)[_SUM:]):
            return stored[_SUM:]
        _log.info("block %s was spoilt and is read anew", path)
        self._unlink(path)
        return None

    def save(self, key: str, number: int, data: memoryview) -> None:
        """Keep a block; older ones make room."""
        if self.trouble:
            return
        name = self._name(key, number)
        try:
            self._write(self._path(name), _sum(name, data), data)
        except OSError as error:
            self._give_up(f"{self._path(name)} cannot be written: {error.strerror}")
            return
        with self._lock:
            self._added += _SUM + len(data)
            if self._added < self._step:
                return
            self._added = 0
        self._make_room()

    def drop(self, key: str, number: int) -> None:
        """Forget a block."""
        self._unlink(self._path(self._name(key, number)))

    def forget(self, key: str) -> None:
        """Forget all blocks of an object."""
        first = self._path(self._name(key, 0))
        with suppress(OSError), os.scandir(first.parent) as entries:
            for entry in entries:
                if entry.name.startswith(f"{self._id(key)}-"):
                    self._unlink(Path(entry.path))

    def findings(self) -> list[Finding]:
        """Say what is wrong with the directory, or how much is in it, for ``vbackup doctor``."""
        what = f"cache {self._directory}"
        if self.trouble:
            hint = f"give vbackup a directory of its own (chmod 700 {self._directory}), or leave `cache` out"
            return [Finding(what, Level.WARNING, self.trouble, hint)]
        used = sum(file.size for file in self._files())
        return [Finding(what, Level.OK, f"{used / 2**30:.1f} GiB of {self._most / 2**30:.1f} GiB are in use")]

    def _id(self, key: str) -> str:
        return blake3(f"{self._owner}\0{key}".encode()).hexdigest(20)

    def _name(self, key: str, number: int) -> str:
        return f"{self._id(key)}-{number}"

    def _path(self, name: str) -> Path:
        return self._directory / name[:2] / name

    @staticmethod
    def _write(path: Path, *parts: bytes | memoryview) -> None:
        temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")  # left behind, it grows old like any other
        path.parent.mkdir(mode=0o700, exist_ok=True)
        try:
            with open(temporary, "wb", opener=lambda path, _: os.open(path, _WRITE, 0o600)) as file:
                file.writelines(parts)
            with suppress(FileNotFoundError):  # somebody made room with it
                temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    @staticmethod
    def _unlink(path: Path) -> None:
        with suppress(OSError):
            path.unlink()

    def _make_room(self) -> None:
        files = sorted(self._files())
        excess = sum(file.size for file in files) - (self._most - 2 * self._step)
        for file in files:
            if excess <= 0:
                return
            self._unlink(file.path)
            excess -= file.size

    def _files(self) -> Iterator[_File]:
        """Yield what is ours by its name: nothing else in the directory is counted or removed."""
        with suppress(OSError):
            for directory in self._directory.glob("[0-9a-f][0-9a-f]"):
                with suppress(OSError), os.scandir(directory) as entries:
                    yield from (_file(entry) for entry in entries if _OURS.fullmatch(entry.name))

    def _give_up(self, trouble: str) -> None:
        if not self.trouble:
            self.trouble = trouble
            _log.warning("the cache %s is not used any more: %s", self._directory, trouble)


def _file(entry: os.DirEntry[str]) -> _File:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:  # it went away
        return _File(0, 0, Path(entry.path))
    return _File(found.st_mtime_ns, -(-found.st_size // _PAGE) * _PAGE, Path(entry.path))


def _sum(name: str, data: memoryview) -> bytes:
    return blake3(name.encode()).update(data).digest(_SUM)

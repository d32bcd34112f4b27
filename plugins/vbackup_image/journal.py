"""What must be removed if we die: a file of paths, which the living hold a lock on.

A path is written down, durably, before anything is made there. Whoever gets the lock of a journal that is not empty
knows that its writer is dead, and removes what it names.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import Busy
from vbackup_qemu.host import LocalHost, sync_directory, translated

_SUFFIX = ".journal"
_MARK = "vbackup-"


class Journal:
    """A journal whose lock is held."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._host = LocalHost()

    def temporary(self, beside: Path) -> Path:
        """Return a new path in the same directory as ``beside``, to be removed unless it is renamed."""
        return self._note(beside.with_name(f".{beside.name[:200]}.{_MARK}{secrets.token_hex(4)}"))

    def private_dir(self) -> Path:
        """Make a private directory with a path short enough for sockets."""
        path = self._note(Path(tempfile.gettempdir()) / f"{_MARK}{secrets.token_hex(4)}")
        self._host.make_private_dir(path)
        return path

    def clean(self) -> list[Path]:
        """Remove all that is named here and is still there; returns that."""
        there = [path for path in self._paths() if self._host.exists(path)]
        for path in there:
            self._host.remove_tree(path)
        os.ftruncate(self._descriptor, 0)
        return there

    def _note(self, path: Path) -> Path:
        os.write(self._descriptor, json.dumps(str(path)).encode() + b"\n")
        os.fsync(self._descriptor)
        return path

    def _paths(self) -> Iterator[Path]:
        for line in self._path.read_bytes().split(b"\n")[:-1]:  # a last one without its end was never acted upon
            path = Path(json.loads(line))
            if _MARK in path.name:
                yield path


@contextmanager
def journal(state_dir: Path, name: str, what: str) -> Iterator[Journal]:
    """Hold the journal ``name``; what a dead holder left is removed first, and what we made last.

    Raises: `Busy` with ``what`` is going on while somebody else holds it.
    """
    path = state_dir / f"{name}{_SUFFIX}"
    held = _lock(path)
    if held is None:
        raise Busy(f"{what} is under way in another process")
    descriptor = held
    try:
        sync_directory(state_dir)
        record = Journal(path, descriptor)
        record.clean()
        try:
            yield record
        finally:
            record.clean()
            path.unlink()
    finally:
        os.close(descriptor)


def sweep(state_dir: Path) -> list[Path]:
    """Remove what the dead left behind; returns what was removed."""
    swept: list[Path] = []
    for path in sorted(state_dir.glob(f"*{_SUFFIX}")):
        descriptor = _lock(path)
        if descriptor is None:
            continue
        try:
            swept += Journal(path, descriptor).clean()
            path.unlink()
        finally:
            os.close(descriptor)
    return swept


def _lock(path: Path) -> int | None:
    while True:
        with translated(f"opening {path}"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.close(descriptor)  # its last holder unlinked it before we had the lock: make a new one


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

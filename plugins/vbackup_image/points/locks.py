"""Locks on files of the store. The kernel lets them go with whoever holds them, however that ends.

Nobody waits: what is held by others is `Busy`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import Busy, NotFound
from vbackup_image.points.layout import POINT, open_file
from vbackup_qemu.host import translated


@contextmanager
def point_lock(directory: Path, *, exclusive: bool = False) -> Iterator[None]:
    """Hold a point: shared by those that read it or build on it, exclusive for whoever deletes or rewrites it.

    While a point is held, its files stay, and so does what they have as backing files: whoever deletes those rewrites
    this one. Raises: `Busy`, `NotFound`.
    """
    path = directory / POINT
    descriptor = open_file(
        path, os.O_RDWR if exclusive else os.O_RDONLY
    )  # NFS locks for writing what is open for writing
    try:
        if not _take(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
            doing = "is being read or built on" if exclusive else "is being deleted"
            raise Busy(f"the restore point {directory} {doing}", hint="try again when that has ended")
        if not _is(path, descriptor):
            raise NotFound(f"the restore point {directory} was deleted")
        yield
    finally:
        os.close(descriptor)


def take_file(path: Path) -> int | None:
    """Make a lock file, or open the one there; return a descriptor that holds it, None if somebody else does."""
    while True:
        with translated(f"opening {path}"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if not _take(descriptor, fcntl.LOCK_EX):
            os.close(descriptor)
            return None
        if _is(path, descriptor):
            return descriptor
        os.close(descriptor)  # its last holder unlinked it before we had the lock: make a new one


def _take(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except (FileNotFoundError, NotADirectoryError):
        return False

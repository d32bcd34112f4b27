"""What a run has not finished: a directory in `.writing`, and a lock beside it that tells whether the run lives."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from vbackup_image.points.layout import WRITING
from vbackup_image.points.locks import take_file
from vbackup_qemu.host import sync_directory, translated

log = logging.getLogger(__name__)

FICLONE = 0x40049409  # linux/fs.h
_LOCK = ".lock"
_OWN = re.compile(r"[0-9a-f]{32}")


@contextmanager
def staging(root: Path) -> Iterator[Path]:
    """Hold a new directory, at the level of a point's own, for the time of the context; what is left in it goes."""
    directory = root / WRITING
    with translated(f"writing to {root}"):
        directory.mkdir(mode=0o700, exist_ok=True)
    while True:
        own = directory / secrets.token_hex(16)
        lock = own.with_suffix(_LOCK)
        descriptor = take_file(lock)
        if descriptor is not None:
            break
    try:
        with translated(f"writing to {directory}"):
            own.mkdir(mode=0o700)
        try:
            yield own
        finally:
            try:
                _remove(own)
                lock.unlink()
            except OSError as error:  # what counts is done or has failed already; the next run removes it
                log.warning("%s could not be removed: %s", own, error)
    finally:
        os.close(descriptor)


def sweep(root: Path, *, dry_run: bool = False) -> int:
    """Remove what runs that are dead left; return how many bytes that were."""
    freed = 0
    with translated(f"removing what dead runs left in {root / WRITING}"):
        for name in sorted({path.stem for path in _entries(root / WRITING)}):
            own = root / WRITING / name
            descriptor = take_file(own.with_suffix(_LOCK))
            if descriptor is None:
                continue
            try:
                freed += used(own)
                if not dry_run:
                    _remove(own)
                    own.with_suffix(_LOCK).unlink()
            finally:
                os.close(descriptor)
    return freed


def _entries(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if _OWN.fullmatch(path.stem)]
    except FileNotFoundError:
        return []


def _remove(directory: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(directory)


def used(directory: Path) -> int:
    """Return the bytes that the files below a directory take up."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(parent) / name).lstat().st_blocks * 512
    return total


def private_file(path: Path) -> BinaryIO:
    """Make a file that only its owner can read, and open it for writing."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def write(path: Path, data: bytes) -> None:
    """Write a new file, durably; its name is not."""
    with translated(f"writing {path}"), private_file(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Make a file durable."""
    with translated(f"writing {path}"), path.open("rb") as file:
        os.fsync(file.fileno())


def publish(staged: Path, place: Path) -> None:
    """Give a whole directory its place, durably, at once. That of the machine, once there, stays."""
    with translated(f"making {place}"):
        sync_directory(staged)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        sync_directory(place.parent.parent)
        staged.rename(place)
        sync_directory(place.parent)


def withdraw(place: Path, staged: Path) -> None:
    """Take a directory away, durably, at once; it is then what a run has not finished."""
    with translated(f"deleting {place}"):
        place.rename(staged)
        sync_directory(place.parent)


def clone(source: Path, path: Path) -> bool:
    """Make ``path`` share the blocks of ``source``; False, and nothing there, where the file system cannot."""
    with translated(f"copying {source}"), source.open("rb") as old, private_file(path) as new:
        if not _share(old, new):
            path.unlink()
            return False
    return True


def copy(source: Path, path: Path) -> None:
    """Copy a file, by sharing its blocks where that is possible."""
    with translated(f"copying {source}"), source.open("rb") as old, private_file(path) as new:
        if not _share(old, new):
            shutil.copyfileobj(old, new, 1 << 20)


def _share(old: BinaryIO, new: BinaryIO) -> bool:
    try:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
    except OSError:
        return False
    return True

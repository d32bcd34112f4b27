"""Private mounts: made for this process, and undone with it, or by the next one if it was killed.

Each has a directory ``/run/vbackup/nfs/RANDOM`` and beside it a file ``RANDOM.lock``, which the owner holds by
flock(2): the kernel lets go of it when the owner dies, in whatever way. So nothing of a living process is ever touched,
and nothing that does not have such a file.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import re
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

DIRECTORY = Path("/run/vbackup/nfs")
_PRIVATE = 0o700
_LOCK = re.compile(r"[0-9a-f]{16}\.lock")
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_UNMOUNT_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Mount:
    """A directory of our own, with something mounted on it until `close`."""

    def __init__(self, command: Sequence[str], seconds: float) -> None:
        """Run ``command`` with the mount point as its last argument.

        Raises: `subprocess.CalledProcessError` with what it said, `subprocess.TimeoutExpired`, `OSError`.
        """
        DIRECTORY.mkdir(_PRIVATE, parents=True, exist_ok=True)
        sweep()
        self._owner = os.getpid()
        self._file, lock = _claim()
        self._lock: int | None = lock
        self.point = self._file.with_suffix("")
        atexit.register(self.close)
        try:
            self.point.mkdir(_PRIVATE)
            _run([*command, str(self.point)], seconds, keep=(lock,))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Unmount it. What cannot be unmounted now is left to the next process that mounts something."""
        lock, self._lock = self._lock, None
        if lock is None or os.getpid() != self._owner:  # a fork has it all, but does not own it
            return
        atexit.unregister(self.close)
        _undo(self._file)
        os.close(lock)


def sweep() -> None:
    """Unmount and remove what dead processes have left."""
    for file in DIRECTORY.iterdir():
        if _LOCK.fullmatch(file.name) and (lock := _take(file)) is not None:
            _log.info("unmounting %s: the process that mounted it is dead", file.with_suffix(""))
            _undo(file)
            os.close(lock)


def _claim() -> tuple[Path, int]:
    """Return a new file of ours, and a descriptor that holds its lock; before we do, another process may sweep it."""
    while True:
        file = DIRECTORY / f"{secrets.token_hex(8)}.lock"
        if (lock := _take(file, os.O_CREAT | os.O_EXCL)) is not None:
            return file, lock


def _take(file: Path, flags: int = 0) -> int | None:
    """Return a descriptor that holds the lock; None if somebody else does or the file is gone."""
    try:
        descriptor = os.open(file, _OPEN | flags, 0o600)
    except FileNotFoundError:
        return None
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), file.stat()):  # else it was removed before we had it
            return descriptor
    os.close(descriptor)
    return None


def _undo(file: Path) -> None:
    """Unmount and remove, holding the lock."""
    point = file.with_suffix("")
    try:
        while _is_mounted(point):
            _unmount(point)
        with suppress(FileNotFoundError):
            point.rmdir()
        file.unlink(missing_ok=True)
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("cannot unmount %s, the next run will try again: %s", point, error)


def _unmount(point: Path) -> None:
    """Nothing is lost by force: whatever we rely on was fsynced. A server that is away must not keep us here."""
    try:
        _run(["umount", str(point)], _UNMOUNT_SECONDS)
    except subprocess.SubprocessError:
        _run(["umount", "-f", "-l", str(point)], _UNMOUNT_SECONDS)


def _is_mounted(point: Path) -> bool:
    """Asking the mount itself might hang."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(point) for line in mounts)


def _run(command: list[str], seconds: float, keep: Sequence[int] = ()) -> None:
    """Run a program; ``keep`` lets it hold our lock, lest its mount is swept before it is there if we die."""
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=seconds,
        check=True,
        text=True,
        errors="replace",
        pass_fds=keep,
        env={**os.environ, "LC_ALL": "C"},
    )

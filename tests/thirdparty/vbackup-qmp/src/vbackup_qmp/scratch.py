"""The scratch directory: where QEMU keeps what the guest overwrites during a capture.

When a scratch file cannot grow QEMU has the *guest's* write fail. So there is a reserve that is never used: when it
comes to that the capture is given up.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import AccessDenied, NoSpace, Unavailable
from vbackup_qmp.fleece import Fleece
from vbackup_qmp.inventory import Disk
from vbackup_qmp.monitor import Peer
from vbackup_qmp.options import QmpOptions
from vbackup_qmp.programs import qemu_img

_SHARE = 20
_MOST = 8 << 30
_LOOK_SECONDS = 1.0


def make(fleece: Fleece) -> None:
    """Make the private directory. Raises: `AccessDenied`, `Unavailable`."""
    base = fleece.scratch.parent
    try:
        # Others may pass through, not look: each capture's directory is private, and QEMU must reach its own.
        base.mkdir(mode=0o711, parents=True, exist_ok=True)
        fleece.scratch.mkdir(mode=0o700)
    except PermissionError as error:
        raise AccessDenied(f"{base}: {error.strerror}", hint="`scratch` must be a directory of ours") from error
    except OSError as error:
        raise Unavailable(f"{base}: {error.strerror}", transient=False) from error


def fill(fleece: Fleece, disks: Sequence[Disk], peer: Peer) -> None:
    """Make the scratch files, all for the user that QEMU runs as."""
    for number, disk in enumerate(disks):
        qemu_img("create", "-q", "-f", "qcow2", fleece.overlay(number), str(disk.size))
    if os.geteuid() == 0 and peer.uid != 0:
        for path in (*fleece.scratch.iterdir(), fleece.scratch):
            os.chown(path, peer.uid, peer.gid)


def remove(fleece: Fleece) -> bool:
    """Remove the directory with all that is in it; return whether it was there."""
    was_there = fleece.scratch.exists()
    shutil.rmtree(fleece.scratch, ignore_errors=True)
    return was_there


def require_room(options: QmpOptions, name: str, disks: Sequence[Disk]) -> None:
    """Raise `NoSpace` unless what the guest may overwrite is likely to fit: a twentieth of its disks, 8 GiB at most."""
    needed = options.reserve + min(sum(disk.size for disk in disks) // _SHARE, _MOST)
    free = free_bytes(options.scratch)
    if free < needed:
        hint = "free space there, or set `scratch` to another directory"
        raise NoSpace(f"{name}: {free} bytes are free in {options.scratch}, {needed} are needed", hint=hint)


def free_bytes(directory: Path) -> int:
    """Return the bytes that are free where ``directory`` is, or is to be."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


@contextmanager
def watched(options: QmpOptions, give_up: Callable[[], None]) -> Iterator[None]:
    """Have ``give_up`` called, by another thread, when only the reserve is left: a file system tells nobody."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_SECONDS):
            if free_bytes(options.scratch) < options.reserve:
                give_up()
                return

    watcher = threading.Thread(target=look, name="vbackup-qmp scratch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()

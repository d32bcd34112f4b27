"""The file system on a LUN, over a loop device that begins after our header."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import Unsupported
from vbackup_files.failures import told
from vbackup_iscsi.header import FILE_SYSTEM
from vbackup_iscsi.programs import attempt, run

LOOP_CONTROL = Path("/dev/loop-control")
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_AUTOCLEAR, _DIRECT_IO = 4, 16
_CONFIG = struct.Struct("=II 3Q QQ 4I 64s 64s 32s 2Q 64x")
"""struct loop_config of <linux/loop.h>: fd, block size; and of struct loop_info64 the offset, flags and file name."""
_OPTIONS = "nosuid,nodev,noexec,noatime,nouuid"
"""``nouuid``: somebody may still have a file of an attachment open that was cut off; it holds nothing any more."""
_BUSY_SECONDS = 10


@contextmanager
def loop(lun: Path) -> Iterator[Path]:
    """Give a loop device over ``lun`` without its header.

    The kernel takes it away when nobody has it open any more: we end, a mount ends; however that comes.
    """
    if not LOOP_CONTROL.exists():
        raise Unsupported("there are no loop devices", hint=f"modprobe loop; a container needs {LOOP_CONTROL}")
    with told(f"make a loop device of {lun}"):
        path, device = _configured(lun)
    try:
        yield path
    finally:
        os.close(device)


def _configured(lun: Path) -> tuple[Path, int]:
    backing = os.open(lun, os.O_RDWR | os.O_CLOEXEC)
    control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            path = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            name, flags = os.fsencode(lun)[:63], _AUTOCLEAR | _DIRECT_IO
            config = _CONFIG.pack(backing, 0, 0, 0, 0, FILE_SYSTEM, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else was faster
                    raise
            else:
                return path, device
    finally:
        os.close(control)
        os.close(backing)


def make(device: Path) -> None:
    """Make the file system. No discard of all blocks first: on a large LUN that takes longer than it is worth.

    Sectors of 4 KiB, so that either initiator can mount what the other has made, whatever blocks the LUN has.
    """
    run("mkfs.xfs", "-q", "-f", "-K", "-s", "size=4096", str(device), what=f"make a file system on {device}")


@contextmanager
def mounted(device: Path, directory: Path, cut: Callable[[str], None]) -> Iterator[None]:
    """Mount it on ``directory``; on exit all of it is written, and nobody writes any more.

    If others go on using it, ``cut`` is called to cut them off from the LUN; it takes the reason.
    """
    run("mount", "-t", "xfs", "-o", _OPTIONS, str(device), str(directory), what=f"mount {device}")
    try:
        yield
    finally:
        if not _unmounted(directory):
            cut("programs that a dead vbackup has left behind still use it")
            attempt("umount", "-l", str(directory))


def _unmounted(directory: Path) -> bool:
    """Unmount it; wait a little for programs that a killed user has left behind."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while attempt("umount", str(directory)).returncode:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def found_on(path: Path) -> str:
    """Return what blkid(8) finds: "ext4", "gpt" and the like, or nothing."""
    done = attempt("blkid", "-p", "-o", "export", str(path))
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return values.get("TYPE") or values.get("PTTYPE") or ("more than one thing" if done.returncode == 8 else "")

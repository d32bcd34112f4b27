"""Disks that QEMU serves in I/O threads: a backup of one may end the machine.

An NBD client that leaves such a disk's export, in whatever way, is let go in that thread. Older QEMU then aborts:
``nbd_blockdev_client_closed: Assertion `qemu_in_main_thread() && nbd_server' failed`` (seen with 7.2.22 of Debian 12).
QEMU 9.0 lets clients go in its main thread only (nbd/server.c).
"""

from __future__ import annotations

from collections.abc import Collection
from xml.etree.ElementTree import Element

from vbackup.api import Unsupported
from vbackup_libvirt import document
from vbackup_libvirt.connection import translated
from vbackup_libvirt.node import Machine

_SOUND = 9_000_000
"""QEMU 9.0, as libvirt writes versions: major * 1,000,000 + minor * 1,000 + release."""


def refuse(machine: Machine, live: Element, exclude: Collection[str]) -> None:
    """Raise `Unsupported` if capturing a running machine may end it: no backup is worth that.

    The disks ``exclude`` are not exported: nobody can leave them.
    """
    threaded = (disk for disk in document.disks(live) if disk.in_io_thread and disk.left_out is None)
    disks = [disk.key for disk in threaded if disk.key not in exclude]
    if not disks:
        return
    with translated(f"{machine.name}: asking for the version of QEMU"):
        version = machine.node.connection.get().getVersion()
    if version >= _SOUND:
        return
    which = f"disk {disks[0]} is" if len(disks) == 1 else f"disks {', '.join(disks)} are"
    raise Unsupported(
        f"{machine.name}: {which} served in an I/O thread, and QEMU {version // 1_000_000}.{version // 1000 % 1000} "
        "may end the machine when the backup lets go of such a disk",
        hint="back it up while it is off, take `iothread` out of its disks and controllers, leave these disks out "
        "(`exclude_disks` of the job), or update QEMU to 9.0",
    )

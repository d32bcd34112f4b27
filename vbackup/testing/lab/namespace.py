"""A private view of libvirt's directories for this process and its children.

libvirt's system daemon knows its files by fixed paths. In a mount namespace of our own, directories of the lab lie over
those paths: ``qemu:///system`` is then our libvirtd, with its usual paths, and the machine's own libvirtd, if it has
one, is neither seen nor touched. The kernel undoes it all when the last process in the namespace ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
from pathlib import Path

CLONE_NEWNS = 0x00020000
MS_RDONLY, MS_REMOUNT = 0x1, 0x20
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

DIRECTORIES = (
    "/etc/libvirt",
    "/run/libvirt",
    "/var/lib/libvirt",
    "/var/cache/libvirt",
    "/var/log/libvirt",
    "/var/lib/swtpm-localca",
    "/var/log/swtpm",
)


KVM = Path("/dev/kvm")
LOCK = Path("/run/vbackup-lab.lock")
SAVED = ".before-vbackup-lab"


class LabError(Exception):
    """The lab itself does not work."""


_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _mount(source: str, target: str, flags: int) -> None:
    _checked(_libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None), f"mount {target}")


def enter(root: Path) -> int | None:
    """Lay empty directories below ``root`` over libvirt's. Call it once per process, as root, from the main thread.

    Only the calling thread and what it starts from now on move; the same files elsewhere stay shared with everybody.

    A container usually may not mount, but has no other user of libvirt either: there, links stand in for the mounts,
    seen by all, and the result is a lock to hold until `leave`.
    """
    for path in DIRECTORIES:
        _over(root, path).mkdir(parents=True)
    try:
        _checked(_libc.unshare(CLONE_NEWNS), "unshare the mount namespace")
    except PermissionError:
        return _link(root)
    _mount("none", "/", MS_REC | MS_PRIVATE)  # else our mounts would be seen outside
    for path in DIRECTORIES:
        Path(path).mkdir(parents=True, exist_ok=True)
        _mount(str(_over(root, path)), path, MS_BIND)
    _hide_kvm(root)
    return None


def _hide_kvm(root: Path) -> None:
    """Have libvirt find no KVM, whatever the machine has: in virtual machines it often is there and does not work."""
    if KVM.exists():
        (root / "no-kvm").touch()
        _mount(str(root / "no-kvm"), str(KVM), MS_BIND)
        # Only where it may not be written to libvirt takes it for missing; access(2) tells root so of no other file.
        _mount("none", str(KVM), MS_BIND | MS_REMOUNT | MS_RDONLY)


def leave(root: Path) -> None:
    """Undo what `enter` did, from any process that sees it."""
    if Path(DIRECTORIES[0]).is_symlink() and Path(DIRECTORIES[0]).readlink() == _over(root, DIRECTORIES[0]):
        _unlink()
    else:
        for path in (*DIRECTORIES, str(KVM)):
            _libc.umount2(path.encode(), MNT_DETACH)


def _link(root: Path) -> int:
    lock = os.open(LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    _unlink()  # what a run that died before it had a keeper has left
    if _somebody_listens():
        raise LabError("a libvirtd is running and this process may not mount: stop it, or run with CAP_SYS_ADMIN")
    for path in DIRECTORIES:
        Path(path).mkdir(parents=True, exist_ok=True)
        Path(path).rename(path + SAVED)
        Path(path).symlink_to(_over(root, path))
    return lock


def _unlink() -> None:
    for path in DIRECTORIES:
        saved = Path(path + SAVED)
        if saved.exists():
            Path(path).unlink(missing_ok=True)
            saved.rename(path)


def _somebody_listens() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex("/run/libvirt/libvirt-sock") == 0


def _over(root: Path, path: str) -> Path:
    return root / path.lstrip("/")

"""Which client is used, and why."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from vbackup.api import Unsupported
from vbackup_nfs.options import NfsOptions

_CAP_SYS_ADMIN = 21
_ALL_USERS = ["0", "0", str(2**32 - 1)]
_SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Choice(NamedTuple):
    """A client, and a reason for the log and for ``vbackup doctor``."""

    client: Literal["kernel", "userspace"]
    reason: str


def choose(options: NfsOptions) -> Choice:
    """Return the client to use. Raises: `Unsupported` if none will do."""
    if options.client != "auto":
        return Choice(options.client, "it is configured")
    obstacle = _obstacle(options)
    if obstacle is None:
        return Choice("kernel", "this kernel has NFS, and this process may mount")
    if options.version == 4:
        hint = "use `version: 3`, or run where the kernel's client can be used"
        raise Unsupported(f"NFS version 4 needs the kernel's client, but {obstacle}", hint=hint)
    return Choice("userspace", obstacle)


def _obstacle(options: NfsOptions) -> str | None:
    """Return what keeps us from using the kernel's client."""
    if options.uid is not None or options.gid is not None:
        return "`uid` or `gid` is configured"
    if not _may_mount():
        return "this process may not mount"
    if shutil.which("mount.nfs", path=_SEARCH) is None:
        return "mount.nfs (Debian: nfs-common) is not installed"
    if not _kernel_has_nfs():
        return "this kernel has no NFS"
    return None


def _may_mount() -> bool:
    """Whether this process has the capability, and not only in a user namespace, where NFS cannot be mounted."""
    if Path("/proc/self/uid_map").read_text().split() != _ALL_USERS:
        return False
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


@cache
def _kernel_has_nfs() -> bool:
    """Look, and load the module if need be."""
    if any(line.split()[-1] in ("nfs", "nfs4") for line in Path("/proc/filesystems").read_text().splitlines()):
        return True
    modprobe = shutil.which("modprobe", path=_SEARCH)
    return modprobe is not None and subprocess.run([modprobe, "-q", "nfs"], check=False).returncode == 0

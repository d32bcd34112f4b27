"""What ``vbackup doctor`` wants to know about a LUN."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence

from vbackup.api import Finding, Level, VBackupError
from vbackup_iscsi.initiator import choose
from vbackup_iscsi.options import IscsiOptions
from vbackup_iscsi.programs import PACKAGES
from vbackup_iscsi.userspace import FUSE, INITIATOR

_ALWAYS = ("setsid", "unshare", "mount", "umount", "blkid", "mkfs.xfs")


def examine(options: IscsiOptions, store: Callable[[], Sequence[Finding]]) -> Sequence[Finding]:
    """Look at the programs; if they suffice attach the LUN, with ``store``, and return what that finds as well."""
    findings = list(_system(options))
    if any(finding.level is Level.ERROR for finding in findings):
        return findings
    try:
        inside = store()
    except VBackupError as error:
        return [*findings, Finding(options.place, Level.ERROR, error.message, error.hint)]
    return [*findings, Finding(options.place, Level.OK, "attached and mounted"), *inside]


def _system(options: IscsiOptions) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding(options.place, Level.ERROR, "only root can attach it", "run vbackup as root")
        return
    initiator, why = choose(options.client)
    yield Finding("iSCSI initiator", Level.OK, f"{initiator}: {why}")
    needed = [*_ALWAYS, *((INITIATOR, FUSE) if initiator == "userspace" else ("iscsiadm",))]
    for program in needed:
        if shutil.which(program) is None:
            yield Finding(program, Level.ERROR, "it is not installed", PACKAGES.get(program, ""))

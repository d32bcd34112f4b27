"""The programs that are run as the keeper: each keeps the keeper's lock until it has ended."""

from __future__ import annotations

import subprocess

from vbackup.api import Unavailable, Unsupported

PACKAGES = {
    "qemu-storage-daemon": "apt-get install qemu-system-common qemu-block-extra, or dnf install qemu-block-iscsi",
    "nbdfuse": "apt-get install libnbd-bin, or dnf install nbdfuse",
    "iscsiadm": "apt-get install open-iscsi, or dnf install iscsi-initiator-utils",
    "mkfs.xfs": "apt-get install xfsprogs, or dnf install xfsprogs",
    "blkid": "apt-get install util-linux, or dnf install util-linux",
    "mount": "apt-get install mount, or dnf install util-linux",
    "umount": "apt-get install mount, or dnf install util-linux",
    "unshare": "apt-get install util-linux, or dnf install util-linux",
    "setsid": "apt-get install util-linux, or dnf install util-linux",
}
"""What to install for each program, as a hint."""


def run(*argv: str, what: str) -> str:
    """Run a program and return what it prints. A ``what`` that did not succeed is `Unavailable`.

    There is no time limit: what blocks on the LUN fails when we are cut off from it.
    """
    done = attempt(*argv)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"{argv[0]} ended with {done.returncode}"
        raise Unavailable(f"cannot {what}: {said}")
    return done.stdout


def attempt(*argv: str, limit: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, successful or not, or for ``limit`` seconds."""
    try:
        # Descriptors are not inherited but for the lock, which is marked so: see `vbackup_iscsi.keeper`.
        return subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            close_fds=False,
            check=False,
            timeout=limit,
        )
    except FileNotFoundError as error:
        raise missing(argv[0]) from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{argv[0]} did not end within {limit:.0f} s") from error


def missing(program: str) -> Unsupported:
    """Return the error for a program that is not installed."""
    return Unsupported(f"{program} is not installed", hint=PACKAGES.get(program, ""))

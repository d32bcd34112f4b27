"""What ``vbackup doctor`` wants to know about a directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vbackup.api import Finding, Level

_LOW = 0.05


def examine(root: Path, temporary: str) -> Sequence[Finding]:
    """Look at ``root`` and try on it what a put does, with the two names that begin with ``temporary``."""
    if not root.is_dir():
        return [_missing(root)]
    try:
        _try(root / temporary, root / f"{temporary}-link")
        return [Finding(f"directory {root}", Level.OK, "files can be written, made durable and linked"), _space(root)]
    except OSError as error:
        detail = f"a file cannot be written, made durable and linked: {error.strerror}"
        hint = "check owner, mode, mount options and free space; a file system without hard links will not do"
        return [Finding(f"directory {root}", Level.ERROR, detail, hint)]


def _missing(root: Path) -> Finding:
    what = f"directory {root}"
    if root.exists():
        return Finding(what, Level.ERROR, "it is not a directory", "set `path` to a directory")
    if root.parent.is_dir():
        return Finding(what, Level.WARNING, "it is not there", "mount its disk, or make it with `vbackup init`")
    return Finding(what, Level.ERROR, f"neither it nor {root.parent} is there", "mount its disk or correct `path`")


def _try(file: Path, link: Path) -> None:
    try:
        with file.open("xb") as stream:
            stream.write(b"vbackup doctor")
            stream.flush()
            os.fsync(stream.fileno())
        link.hardlink_to(file)
    finally:
        link.unlink(missing_ok=True)
        file.unlink(missing_ok=True)


def _space(root: Path) -> Finding:
    usage = shutil.disk_usage(root)
    low = usage.free < usage.total * _LOW
    detail = f"{usage.free / 2**30:.1f} GiB of {usage.total / 2**30:.1f} GiB are free"
    return Finding(
        f"free space of {root}", Level.WARNING if low else Level.OK, detail, "free some space" if low else ""
    )

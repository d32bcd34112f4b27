"""Points are deleted alone: what has their files below it is first put on what stays, so that it reads the same.

Each such image is rebased as a copy, which takes its place at once; dying anywhere leaves every other point whole.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from vbackup.api import Busy, NotFound
from vbackup_image.points.chain import layers_below, rebase
from vbackup_image.points.locks import point_lock
from vbackup_image.points.place import point_directories
from vbackup_image.points.staging import copy, staging, sync, withdraw
from vbackup_qemu.host import Host, sync_directory, translated


def delete_directories(host: Host, root: Path, doomed: Sequence[Path]) -> None:
    """Delete the points in ``doomed``. Raises: `Busy` while others read them or build on them; then none is deleted."""
    with ExitStack() as stack:
        held = [directory for directory in doomed if _hold(stack, directory)]
        if not held:
            return
        own = stack.enter_context(staging(root))
        children = [path for path in _images(root) if path.parent not in held and _lies_on(path, held)]
        for directory in sorted({path.parent for path in children}):
            try:
                stack.enter_context(point_lock(directory, exclusive=True))
            except NotFound as error:
                raise Busy(f"the restore point {directory} is being deleted by others", hint="try again") from error
        for path in children:
            _put_on_what_stays(host, path, held, own)
        for directory in sorted(held, key=_depth, reverse=True):  # never one without what is below it
            gone = own / secrets.token_hex(4)
            withdraw(directory, gone)
            with translated(f"deleting {directory}"):
                shutil.rmtree(gone)


def _hold(stack: ExitStack, directory: Path) -> bool:
    try:
        stack.enter_context(point_lock(directory, exclusive=True))
    except NotFound:  # deleted already
        return False
    return True


def _images(root: Path) -> Iterator[Path]:
    for directory in point_directories(root):
        yield from sorted(directory.glob("*.qcow2"))


def _lies_on(path: Path, doomed: Sequence[Path]) -> bool:
    below = next(layers_below(path), None)
    return below is not None and below.parent in doomed


def _depth(directory: Path) -> int:
    """Return how many files lie below those of a point."""
    return max((len(list(layers_below(path))) for path in directory.glob("*.qcow2")), default=0)


def _put_on_what_stays(host: Host, path: Path, doomed: Sequence[Path], own: Path) -> None:
    below = next((layer for layer in layers_below(path) if layer.parent not in doomed), None)
    rebased = own / f"{secrets.token_hex(4)}.qcow2"
    copy(path, rebased)
    rebase(host, rebased, below)
    sync(rebased)
    with translated(f"replacing {path}"):
        rebased.rename(path)
        sync_directory(path.parent)

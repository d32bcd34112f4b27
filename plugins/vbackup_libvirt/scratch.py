"""The private directory for scratch files and sockets of one capture, and whether there is room for it.

QEMU reports an I/O error to the *guest* when a scratch file cannot grow. So there is a reserve that is never used.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from vbackup.api import NoSpace
from vbackup_libvirt.job import MAKER_FILE
from vbackup_libvirt.node import Node
from vbackup_undo.maker import Maker

_MOST = 8 << 30
_SHARE = 20

_lock = threading.Lock()
_claims: dict[tuple[str, str], dict[str, int]] = {}
"""By host and scratch directory: the files that are being written, and what they may come to."""


def make(node: Node, path: PurePosixPath, owner: tuple[int, int] | None, maker: Maker) -> None:
    """Make the directory, for the user that QEMU runs as."""
    base = node.scratch.as_posix()
    if not node.host.exists(base):
        # Others may pass through, not look: each capture's directory is private, and QEMU must reach its own.
        node.host.run(["mkdir", "-p", "-m", "0711", "--", base])
    node.host.make_private_dir(str(path), None if node.is_session else owner)
    node.host.write_file(str(path / MAKER_FILE), maker.model_dump_json().encode(), 0o600)


def require_room(node: Node, machine: str, size: int) -> None:
    """Raise `NoSpace` unless what guests may overwrite during the capture of ``size`` bytes is likely to fit.

    It is a twentieth of the disks, 8 GiB at most, and the reserve. While the capture lasts the space is watched.
    """
    free, needed = room(node, size)
    if free < needed:
        hint = "free space there, or set `scratch` to another directory"
        raise NoSpace(
            f"{machine}: {free} bytes are free in {node.scratch}, {needed} are needed for scratch files", hint=hint
        )


def room(node: Node, size: int) -> tuple[int, int]:
    """Return the bytes that are free for scratch files, and those that `require_room` wants to be."""
    base = node.scratch
    while not node.host.exists(base.as_posix()):
        base = base.parent
    return node.host.free_bytes(base.as_posix()), node.options.scratch_reserve + min(size // _SHARE, _MOST)


@contextmanager
def claimed(node: Node, path: str, size: int, beside: int) -> Iterator[int]:
    """Claim room for a file of ``size`` bytes beside what `require_room` wants for disks of ``beside`` bytes.

    Machines of one moment ask at the same time, before any of them has written a byte; what this process has promised
    to one is not there for another. Yields the bytes that are missing; then nothing is claimed.
    """
    key = (node.host.name, node.scratch.as_posix())
    with _lock:
        claims = _claims.setdefault(key, {})
        free, needed = room(node, beside)
        promised = sum(max(0, most - _written(node, one)) for one, most in claims.items())
        missing = max(0, needed + promised + size - free)
        if not missing:
            claims[path] = size
    try:
        yield missing
    finally:
        with _lock:
            claims.pop(path, None)


def _written(node: Node, path: str) -> int:
    """Return the bytes that a file takes on its disk, 0 when it is not there yet."""
    done = node.host.run(["stat", "-c", "%b %B", "--", path], check=False)
    if done.returncode:
        return 0
    blocks, each = done.stdout.split()
    return int(blocks) * int(each)

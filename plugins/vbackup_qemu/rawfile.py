"""A new raw image on this machine, written without a server: what lies together goes to the file with one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vbackup.api import Buffer, Run
from vbackup_qemu.host import translated

_AT_ONCE = 4 << 20
"""Bytes that are written with one call."""
_BUFFERS = 512
"""Their parts at the most; the kernel takes 1024."""


def write(path: Path, runs: Iterable[Run], label: str) -> None:
    """Write the data of ``runs`` into a file that reads as zeros. Raises: `NoSpace`, `AccessDenied`, `Unavailable`."""
    what = f"{label}: writing {path}"
    with opened(path, os.O_WRONLY, what) as descriptor:
        for offset, parts in written_together(runs):
            with translated(what):
                write_parts(descriptor, parts, offset)


@contextmanager
def opened(path: Path, flags: int, what: str) -> Iterator[int]:
    """Open a file. Closing it may fail as writing does: NFS tells only then that there is no room."""
    with translated(what):
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    except BaseException:
        with suppress(OSError):  # what went wrong before is told
            os.close(descriptor)
        raise
    with translated(what):
        os.close(descriptor)


def written_together(runs: Iterable[Run], border: int = 1 << 62) -> Iterator[tuple[int, list[Buffer]]]:
    """Yield an offset and the data that follows from there, in parts; zeros are left out.

    At each multiple of ``border`` something new begins.
    """
    start, end = 0, 0
    parts: list[Buffer] = []
    for run in runs:
        if run.data is None:
            continue
        if run.offset != end or run.offset % border == 0 or end - start >= _AT_ONCE or len(parts) >= _BUFFERS:
            if parts:
                yield start, parts
            start, parts = run.offset, []
        parts.append(run.data)
        end = run.offset + run.length
    if parts:
        yield start, parts


def write_parts(descriptor: int, parts: list[Buffer], offset: int) -> None:
    """Write data into a file, all of it. Raises `OSError`."""
    left = sum(len(part) for part in parts)
    done = os.pwritev(descriptor, parts, offset)
    if done < left:  # the disk is nearly full, or a signal came
        rest = memoryview(b"".join(parts))[done:]
        while rest:
            done = os.pwrite(descriptor, rest, offset + left - len(rest))
            rest = rest[done:]

"""A new raw image on this machine, written without a server: what lies together goes to the file with one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from vbackup.api import Buffer, Run
from vbackup_qemu.host import translated

_AT_ONCE = 4 << 20
"""Bytes that are written with one call."""
_BUFFERS = 512
"""Their parts at the most; the kernel takes 1024."""


def write(path: Path, runs: Iterable[Run], label: str) -> None:
    """Write the data of ``runs`` into a file that reads as zeros. Raises: `NoSpace`, `AccessDenied`, `Unavailable`."""
    with translated(f"{label}: writing {path}"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for offset, parts in _joined(runs):
            with translated(f"{label}: writing {path}"):
                _write(descriptor, parts, offset)
    finally:
        os.close(descriptor)


def _joined(runs: Iterable[Run]) -> Iterator[tuple[int, list[Buffer]]]:
    """Yield an offset and data that follows from there."""
    start, end = 0, 0
    parts: list[Buffer] = []
    for run in runs:
        if run.data is None:
            continue
        if run.offset != end or end - start >= _AT_ONCE or len(parts) >= _BUFFERS:
            if parts:
                yield start, parts
            start, parts = run.offset, []
        parts.append(run.data)
        end = run.offset + run.length
    if parts:
        yield start, parts


def _write(descriptor: int, parts: list[Buffer], offset: int) -> None:
    left = sum(len(part) for part in parts)
    done = os.pwritev(descriptor, parts, offset)
    if done < left:  # the disk is nearly full, or a signal came
        rest = memoryview(b"".join(parts))[done:]
        while rest:
            done = os.pwrite(descriptor, rest, offset + left - len(rest))
            rest = rest[done:]

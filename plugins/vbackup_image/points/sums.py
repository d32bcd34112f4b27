"""What tells right bytes from wrong ones: the BLAKE3 of each block of a disk, in a file beside its image.

An entry of 32 bytes a block, in order; zeros, mostly holes of the file, for a block of zeros. So the file is also the
map of what a disk holds, and comparing it with the one before tells what changed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from vbackup.api import Buffer, Corrupt, Extent, Kind, NotFound
from vbackup_image.points.layout import open_file
from vbackup_image.points.staging import private_file
from vbackup_qemu.host import translated

BLOCK = 64 << 10
"""Bytes of the disk that an entry stands for; also a cluster of qcow2."""
ENTRY = 32
ZERO = bytes(ENTRY)
STEP = 1024
"""Entries that are dealt with at once."""


def blocks(size: int) -> int:
    """Return how many blocks a disk of ``size`` bytes has; the last one may be short."""
    return -(-size // BLOCK)


@functools.cache
def _of_zeros(length: int) -> bytes:
    return blake3(bytes(length)).digest()


def entries(data: Buffer) -> bytes:
    """Return the entries of consecutive blocks."""
    view = memoryview(data)
    pieces = []
    for start in range(0, len(view), BLOCK):
        block = view[start : start + BLOCK]
        digest = blake3(block).digest()
        pieces.append(ZERO if digest == _of_zeros(len(block)) else digest)
    return b"".join(pieces)


def runs(left: bytes, right: bytes, *, equal: bool = False) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of the runs of entries in which two equally long lists differ, or with ``equal`` do not."""
    if left == right and not equal:
        return
    begin: int | None = None
    count = len(left) // ENTRY
    for index in range(count):
        at = index * ENTRY
        if (left[at : at + ENTRY] == right[at : at + ENTRY]) is equal:
            begin = index if begin is None else begin
        elif begin is not None:
            yield begin, index
            begin = None
    if begin is not None:
        yield begin, count


class Sums:
    """The sums of a stored disk. Thread-safe. Raises: `Corrupt` when the file is not what ``digest`` says."""

    def __init__(self, path: Path, size: int, digest: str) -> None:
        self._size = size
        self._path = path
        try:
            self._descriptor = open_file(path)
        except NotFound as error:
            raise Corrupt(f"{path} is missing") from error
        if os.fstat(self._descriptor).st_size != blocks(size) * ENTRY or _digest(path) != digest:
            os.close(self._descriptor)
            raise Corrupt(f"{path} is not what was written")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def get(self, first: int, count: int) -> bytes:
        """Return entries; those beyond the disk's end are zeros."""
        with translated(f"reading {self._path}"):
            return os.pread(self._descriptor, count * ENTRY, first * ENTRY).ljust(count * ENTRY, b"\0")

    def extents(self) -> Iterator[Extent]:
        """Yield the whole disk as data and zero."""
        for first in range(0, blocks(self._size), STEP):
            piece = self.get(first, min(STEP, blocks(self._size) - first))
            position = 0
            for begin, end in (*runs(piece, bytes(len(piece))), (len(piece) // ENTRY, len(piece) // ENTRY)):
                if begin > position:
                    yield self._extent(first + position, first + begin, Kind.ZERO)
                if end > begin:
                    yield self._extent(first + begin, first + end, Kind.DATA)
                position = end

    def _extent(self, first: int, end: int, kind: Kind) -> Extent:
        offset = first * BLOCK
        return Extent(offset, min(end * BLOCK, self._size) - offset, kind)

    def last_data(self, first: int, end: int) -> int | None:
        """Return the last block of ``[first, end)`` that is not zeros."""
        end = min(end, blocks(self._size))
        while end > first:
            start = max(first, end - STEP)
            found = self.get(start, end - start).rstrip(b"\0")
            if found:
                return start + (len(found) - 1) // ENTRY
            end = start
        return None


class NewSums:
    """A file of sums that is being written, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = private_file(path)
        self._entries = 0

    def append(self, piece: bytes) -> None:
        """Add entries; zeros become holes."""
        with translated(f"writing {self._path}"):
            if piece.count(0) == len(piece):
                self._file.seek(len(piece), os.SEEK_CUR)
            else:
                self._file.write(piece)
        self._entries += len(piece) // ENTRY

    def finish(self) -> str:
        """Make it durable; return its digest."""
        with translated(f"writing {self._path}"):
            self._file.truncate(self._entries * ENTRY)
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        return _digest(self._path)

    def close(self) -> None:
        """Let go of it, finished or not."""
        try:
            self._file.close()
        except OSError:  # a full disk, which has been told already
            return


def _digest(path: Path) -> str:
    with translated(f"reading {path}"), path.open("rb") as file:
        hasher = blake3()
        while piece := file.read(1 << 20):
            hasher.update(piece)
        return hasher.hexdigest()

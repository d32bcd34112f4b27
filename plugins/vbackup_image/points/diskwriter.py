"""One disk on its way into an image file: only what the file does not read as already is written."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vbackup.api import Buffer, DiskCounts, PluginError, Range, Run, split
from vbackup_image.points import sums
from vbackup_image.points.stored import StoredDisk
from vbackup_image.points.sums import BLOCK, ENTRY, STEP, ZERO, NewSums
from vbackup_image.points.writing import ImageWriter

_SAMPLES = 64
_READ = 4 << 20


@dataclass(frozen=True)
class Started:
    """A new image, and what it reads as before anything is written to it: the base, or zeros."""

    id: str
    path: Path
    sums: Path
    format: str
    reads_as_base: bool


class ImageDiskWriter:
    """A `DiskWriter`. ``stack`` holds what it needs, and is closed with it."""

    def __init__(
        self, started: Started, size: int, base: StoredDisk | None, writer: ImageWriter, stack: ExitStack
    ) -> None:
        self.started = started
        self._size = size
        self._base = base
        self._image = writer
        self._stack = stack
        self._sums = NewSums(started.sums)
        self._position = 0
        self._changed = self._stored = self._zero = self._duplicate = 0
        self._seen = 0
        self._samples: list[int] = []

    def write(self, offset: int, data: Buffer) -> None:
        """See `DiskWriter.write`."""
        first = self._advance(offset, len(data))
        found = sums.entries(data)
        for begin, end in sums.runs(found, bytes(len(found)), equal=True):
            self._zero += self._range(first + begin, first + end).length
        self._take(first, found, memoryview(data))

    def zero(self, offset: int, length: int) -> None:
        """See `DiskWriter.zero`."""
        self._zero += length
        for first, count in self._steps(self._advance(offset, length), length):
            self._take(first, ZERO * count, None)

    def unchanged(self, offset: int, length: int) -> None:
        """See `DiskWriter.unchanged`."""
        if self._base is None:
            raise PluginError("a disk without a base was called unchanged")
        for first, count in self._steps(self._advance(offset, length), length):
            found = self._base.sums.get(first, count)
            self._sums.append(found)
            if not self.started.reads_as_base:
                data = (self._range(first + begin, first + end) for begin, end in sums.runs(found, ZERO * count))
                for block in self._base.read(split(data, _READ)):
                    self._put(Run(block.offset, len(block.data), block.data))

    def same(self, offset: int, data: Buffer) -> bool:
        """See `DiskWriter.same`."""
        if self._base is None or offset >= self._base.disk.size:
            return False
        return sums.entries(data) == self._base.sums.get(offset // BLOCK, 1)

    def last_data(self, offset: int, length: int) -> int | None:
        """See `DiskWriter.last_data`."""
        if self._base is None:
            return None
        found = self._base.sums.last_data(offset // BLOCK, sums.blocks(offset + length))
        return None if found is None else found * BLOCK

    def finish(self) -> tuple[dict[str, Any], DiskCounts]:
        """See `DiskWriter.finish`; all is durable then."""
        if self._position != self._size:
            raise PluginError(f"a disk of {self._size} bytes was given up to {self._position} only")
        self._image.finish()
        digest = self._sums.finish()
        content = {"id": self.started.id, "format": self.started.format, "sums": digest}
        return content, self.progress()

    def progress(self) -> DiskCounts:
        """See `DiskWriter.progress`."""
        return DiskCounts(self._changed, self._stored, self._zero, self._duplicate, tuple(sorted(self._samples)))

    def close(self) -> None:
        """Let go of the base; what was not finished is given up."""
        self._image.abandon()
        self._sums.close()
        self._stack.close()

    def _advance(self, offset: int, length: int) -> int:
        """Check that a disk is given in order and in whole blocks; return the first of these."""
        end = offset + length
        if offset != self._position or length <= 0 or (end % BLOCK and end != self._size) or end > self._size:
            raise PluginError(f"a disk was given out of order: {offset}+{length} after {self._position}")
        self._position = end
        return offset // BLOCK

    def _steps(self, first: int, length: int) -> Iterator[tuple[int, int]]:
        end = first + sums.blocks(length)
        for start in range(first, end, STEP):
            yield start, min(STEP, end - start)

    def _range(self, first: int, end: int) -> Range:
        offset = first * BLOCK
        return Range(offset, min(end * BLOCK, self._size) - offset)

    def _take(self, first: int, found: bytes, data: memoryview | None) -> None:
        """Take blocks whose sums are ``found``; without ``data`` they are zeros."""
        self._sums.append(found)
        zeros = bytes(len(found))
        before = self._base.sums.get(first, len(found) // ENTRY) if self._base is not None else zeros
        for begin, end in sums.runs(found, before):
            self._count(first + begin, first + end)
        for begin, end in sums.runs(found, before if self.started.reads_as_base else zeros):
            self._put_blocks(first, begin, end, found, data)
        if data is not None and self.started.reads_as_base:
            for begin, end in sums.runs(found, before, equal=True):
                self._duplicate += self._range(first + begin, first + end).length

    def _put_blocks(self, first: int, begin: int, end: int, found: bytes, data: memoryview | None) -> None:
        """Write blocks ``[begin, end)`` of those from ``first`` on; zeros as such."""
        piece = found[begin * ENTRY : end * ENTRY]
        for is_zero in (True, False):
            for start, stop in sums.runs(piece, bytes(len(piece)), equal=is_zero):
                offset, length = self._range(first + begin + start, first + begin + stop)
                at = offset - first * BLOCK
                self._put(Run(offset, length, None if is_zero or data is None else data[at : at + length]))

    def _put(self, run: Run) -> None:
        self._image.put(run)
        self._stored += run.length if run.data is not None else 0

    def _count(self, first: int, end: int) -> None:
        self._changed += self._range(first, end).length
        for index in range(first, end):
            self._seen += 1
            if len(self._samples) < _SAMPLES:
                self._samples.append(index * BLOCK)
            elif (slot := random.randrange(self._seen)) < _SAMPLES:  # noqa: S311 - a sample, not a secret
                self._samples[slot] = index * BLOCK

"""One disk from a capture into a target.

extents, rounded to the target's blocks, become steps in the order of the disk; data is read ahead of its turn, the
rest costs nothing. Some blocks are read again as probes where tracking calls them unchanged: those that the last run
wrote (after a rollback of the storage below, they are what differs), and the last one with data (a disk that was shrunk
and grown back has lost at least that).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vbackup.api import (
    Corrupt,
    DiskProgress,
    DiskWriter,
    Extent,
    Interrupted,
    Kind,
    PluginError,
    PointDisk,
    Range,
    SourceDisk,
    Unsupported,
    Writer,
    align,
    split,
)

READ_SIZE = 4 << 20
_PROGRESS_SECONDS = 0.2
_MOST_WAITING = 4096

LIED = "change tracking called a block unchanged that has changed (was the storage rolled back?)"
NO_BASE = "this target has no restore point of the machine yet"
NOT_IN_BASE = "the restore point before is without this disk"


class _TrackingLied(Exception):  # noqa: N818 - control flow inside of this module
    """A probe did not find what tracking promised."""


@dataclass
class _Counts:
    done: int = 0
    read: int = 0
    unchanged: int = 0


@dataclass
class DiskCopy:
    """Copies one disk; ``report`` gets progress a few times a second."""

    source: SourceDisk
    disk_format: str
    base: PointDisk | None
    writer: Writer
    stop: threading.Event
    report: Callable[[DiskProgress], None]
    no_base: str = NO_BASE
    """Why there is no ``base``, when there is none."""
    _counts: _Counts = field(default_factory=_Counts)
    _next_report: float = 0.0

    def run(self) -> PointDisk:
        """Copy the disk; return what the restore point says of it."""
        reason = self.source.full_reason
        if self.base is None:
            return self._copy(reason or self.no_base, None)
        problem = self.writer.base_problem(self.base)
        if problem is not None:
            return self._copy(problem, None)
        try:
            try:
                return self._copy(reason, self.base)
            except _TrackingLied:
                return self._copy(LIED, self.base)
        except Corrupt as error:
            return self._copy(f"the restore point before is damaged: {error.message}", None)
        except Unsupported as error:  # the hypervisor's own comes again
            return self._copy(f"the restore point before cannot be read here: {error.message}", None)

    def _copy(self, full_reason: str | None, base: PointDisk | None) -> PointDisk:
        already_read = self._counts.read
        self._counts = _Counts(read=already_read)
        disk = self.writer.disk(self.source.size, base)
        extents = align(self.source.extents(full=full_reason is not None), self.writer.block_size, self.source.size)
        if base is not None and base.size > self.source.size:
            extents = unchanged_below(extents, self.source.size // self.writer.block_size * self.writer.block_size)
        steps = _Steps(self, disk, extents, is_full=full_reason is not None)
        for block in self.source.read(steps.ranges()):
            if self.stop.is_set():
                raise Interrupted(f"stopped while disk {self.source.key} was copied")
            steps.take(block.offset, block.data)
            self._progress(disk)
        steps.finish()
        content, counts = disk.finish()
        self._next_report = 0.0
        self._progress(disk)
        samples = counts.samples or (base.samples if base and base.size == self.source.size else ())
        return PointDisk(
            key=self.source.key, size=self.source.size, format=self.disk_format, content=content,
            full_reason=full_reason, read=self._counts.read, changed=counts.changed, stored=counts.stored,
            samples=samples,
        )  # fmt: skip

    def _progress(self, disk: DiskWriter) -> None:
        now = time.monotonic()
        if now < self._next_report:
            return
        self._next_report = now + _PROGRESS_SECONDS
        counts = disk.progress()
        self.report(
            DiskProgress(
                self.source.key, self.source.size, self._counts.done, self._counts.read, self._counts.unchanged,
                counts.zero, counts.duplicate,
            )
        )  # fmt: skip


def unchanged_below(extents: Iterator[Extent], limit: int) -> Iterator[Extent]:
    """Call data what is unchanged from ``limit`` on: there a resized disk shares no whole block with its base."""
    for extent in extents:
        if extent.kind is not Kind.UNCHANGED or extent.end <= limit:
            yield extent
            continue
        if extent.offset < limit:
            yield Extent(extent.offset, limit - extent.offset, Kind.UNCHANGED)
        start = max(extent.offset, limit)
        yield Extent(start, extent.end - start, Kind.DATA)


class _Read(NamedTuple):
    range: Range
    is_probe: bool


class _Steps:
    """What is to be done, in the order of the disk, while reads are under way."""

    def __init__(self, copy: DiskCopy, disk: DiskWriter, extents: Iterator[Extent], *, is_full: bool) -> None:
        self._copy = copy
        self._counts = copy._counts  # noqa: SLF001 - two halves of one thing
        self._disk = disk
        self._extents = extents
        self._are_through = False
        self._is_full = is_full
        self._last_unchanged: int | None = None
        self._waiting: deque[Extent | _Read] = deque()
        base = copy.base
        self._samples = deque(sorted(base.samples)) if base else deque()

    def ranges(self) -> Iterator[Range]:
        """Yield what must be read; called ahead of `take`."""
        for extent in self._extents:
            if extent.kind is Kind.DATA:
                for part in split([Range(extent.offset, extent.length)], READ_SIZE):
                    self._waiting.append(_Read(part, is_probe=False))
                    yield part
                continue
            if len(self._waiting) >= _MOST_WAITING:
                # Reading is always right; and the next read lets those that wait before it go.
                first = Extent(extent.offset, min(extent.length, self._copy.writer.block_size), Kind.DATA)
                self._waiting.append(_Read(Range(first.offset, first.length), is_probe=False))
                yield Range(first.offset, first.length)
                if extent.length == first.length:
                    continue
                extent = Extent(first.end, extent.length - first.length, extent.kind)  # noqa: PLW2901
            if extent.kind is Kind.UNCHANGED:
                self._check_unchanged(extent)
                last = self._disk.last_data(extent.offset, extent.length)
                self._last_unchanged = self._last_unchanged if last is None else last
                for offset in self._samples_in(extent):
                    yield self._probe(offset)
            self._waiting.append(extent)
            self._pass_over()
        if self._last_unchanged is not None:
            yield self._probe(self._last_unchanged)
        self._are_through = True

    def _probe(self, offset: int) -> Range:
        probe = Range(offset, min(self._copy.writer.block_size, self._copy.source.size - offset))
        self._waiting.append(_Read(probe, is_probe=True))
        return probe

    def _check_unchanged(self, extent: Extent) -> None:
        source, base, block = self._copy.source, self._copy.base, self._copy.writer.block_size
        if self._is_full:
            raise PluginError(f"disk {source.key}: the hypervisor plugin says unchanged where all was asked for")
        if base is not None and base.size != source.size and extent.end > base.size // block * block:
            raise _TrackingLied

    def _samples_in(self, extent: Extent) -> Iterator[int]:
        while self._samples and self._samples[0] < extent.end:
            offset = self._samples.popleft()
            if offset >= extent.offset and offset % self._copy.writer.block_size == 0:
                yield offset

    def take(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Deal with a block that was read, and with all that stands before the next one."""
        self._pass_over()
        read = self._waiting.popleft() if self._waiting else None
        if not isinstance(read, _Read) or read.range != Range(offset, len(data)):
            raise PluginError(f"disk {self._copy.source.key}: got {offset}+{len(data)}, which was not asked for")
        self._counts.read += len(data)
        if read.is_probe:
            if not self._disk.same(offset, data):
                raise _TrackingLied
        else:
            self._disk.write(offset, data)
            self._counts.done = offset + len(data)
        self._pass_over()

    def finish(self) -> None:
        """All was read."""
        self._pass_over()
        if self._waiting:
            raise PluginError(f"disk {self._copy.source.key}: {len(self._waiting)} reads were never answered")
        if not self._are_through:
            raise PluginError(f"disk {self._copy.source.key}: reading ended before all was asked for")

    def _pass_over(self) -> None:
        while self._waiting and isinstance(extent := self._waiting[0], Extent):
            self._waiting.popleft()
            if extent.kind is Kind.ZERO:
                self._disk.zero(extent.offset, extent.length)
            else:
                self._disk.unchanged(extent.offset, extent.length)
                self._counts.unchanged += extent.length
            self._counts.done = extent.end

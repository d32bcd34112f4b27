"""Restore: a point's disks are read ahead, in order, and written sparse; the machine is defined last."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vbackup.api import (
    Extent,
    Hypervisor,
    Interrupted,
    Kind,
    Point,
    Range,
    RestoreDisk,
    RestoreRequest,
    Run,
    SinkDisk,
    Target,
    split,
)
from vbackup.engine.copy import READ_SIZE
from vbackup.engine.parallel import Stop, side_by_side


@dataclass(frozen=True)
class Restored:
    """What there is now, as a phrase; bytes of data written; and what could not be put back as it was."""

    result: str
    written: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Restore:
    """How to restore: from which target to which hypervisor. ``report(disk, done, size)`` counts bytes of disk."""

    target: Target
    hypervisor: Hypervisor
    stop: threading.Event
    report: Callable[[str, int, int], None]

    def run(self, point: Point, request: RestoreRequest) -> Restored:
        """Put ``point`` back as ``request`` says."""
        chosen = [disk for disk in point.disks if not request.disks or disk.key in request.disks]
        files: Mapping[str, bytes] = {}
        if not request.disks:
            files = {name: self.target.file(point, name) for name in point.files}
        wanted = [RestoreDisk(disk.key, disk.size, disk.format) for disk in chosen]
        description = self.target.description(point)
        with self.hypervisor.restore(description, wanted, files, request) as restoration:
            written = self._write(point, wanted, restoration.disks)
            result = restoration.finish()
            return Restored(result, written, tuple(restoration.notes))

    def _write(self, point: Point, disks: Sequence[RestoreDisk], sinks: Mapping[str, SinkDisk]) -> int:
        stop = Stop(self.stop)

        def write(disk: RestoreDisk) -> Callable[[], int]:
            source = _DiskSource(self.target, point, disk, stop, self.report)

            def work() -> int:
                sinks[disk.key].write(source.runs())
                return source.written

            return work

        return sum(side_by_side([write(disk) for disk in disks], stop))


class _DiskSource:
    """A point's disk as the runs that a sink writes."""

    def __init__(
        self, target: Target, point: Point, disk: RestoreDisk, stop: threading.Event,
        report: Callable[[str, int, int], None],
    ) -> None:  # fmt: skip
        self._target = target
        self._point = point
        self._disk = disk
        self._stop = stop
        self._report = report
        self._zeros: deque[Extent] = deque()  # those that the reading has passed, not yet yielded
        self.written = 0

    def runs(self) -> Iterator[Run]:
        """Yield the whole disk in order."""
        for block in self._target.read(self._point, self._disk.key, self._ranges()):
            yield from self._zeros_before(block.offset)
            if self._stop.is_set():
                raise Interrupted(f"stopped while disk {self._disk.key} was written")
            yield Run(block.offset, len(block.data), block.data)
            self.written += len(block.data)
            self._report(self._disk.key, block.offset + len(block.data), self._disk.size)
        yield from self._zeros_before(self._disk.size)
        self._report(self._disk.key, self._disk.size, self._disk.size)

    def _ranges(self) -> Iterator[Range]:
        for extent in self._target.extents(self._point, self._disk.key):
            if extent.kind is Kind.ZERO:
                self._zeros.append(extent)
            else:
                yield from split([Range(extent.offset, extent.length)], READ_SIZE)

    def _zeros_before(self, offset: int) -> Iterator[Run]:
        while self._zeros and self._zeros[0].offset < offset:
            extent = self._zeros.popleft()
            yield Run(extent.offset, extent.length, None)

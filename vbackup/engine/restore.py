"""Restore: a point's disks are read ahead, in order, and written sparse; the machine is defined last."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from vbackup.api import (
    Extent,
    Hypervisor,
    Interrupted,
    Kind,
    MachineDescription,
    PluginError,
    Point,
    Range,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    Run,
    Target,
    split,
)
from vbackup.engine.mentions import unmentioned
from vbackup.engine.parallel import Stop, side_by_side

_STEP = 64 << 10
"""Bytes that are asked for at once: the repository's chunks are of that size, and a whole one needs no copying."""
_REPORTED = 4 << 20
"""Bytes of a disk between two reports."""


@dataclass(frozen=True)
class Restored:
    """What there is now, as a phrase; bytes of data written; and what could not be put back as it was."""

    result: str
    written: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a restore would write, and what it could not put back as it was."""

    disks: tuple[RestoreDisk, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Opened:
    """A restoration that is open, and what is written to it."""

    restoration: Restoration
    disks: Sequence[RestoreDisk]
    notes: Sequence[str]
    """Ours, beside those of the plugin."""

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Those there are by now."""
        return (*self.notes, *self.restoration.notes)


def _unheard(notes: Sequence[str]) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Restore:
    """How to restore: from which target to which hypervisor. ``report(disk, done, size)`` counts bytes of disk."""

    target: Target
    hypervisor: Hypervisor
    stop: threading.Event
    report: Callable[[str, int, int], None]
    announce: Callable[[Sequence[str]], None] = _unheard
    """Hears what cannot be put back as it was, once, before a byte is written."""

    def run(self, point: Point, request: RestoreRequest, *, memory: bool = True) -> Restored:
        """Put ``point`` back as ``request`` says; without ``memory`` it starts afresh."""
        with self._opened(point, request, memory=memory) as opened:
            written = self._write(point, opened)
            result = opened.restoration.finish()
            return Restored(result, written, opened.all_notes)

    def rehearse(self, point: Point, request: RestoreRequest, *, memory: bool = True) -> Plan:
        """Do all that comes before the first byte, announcement included, and undo it."""
        with self._opened(point, request, memory=memory) as opened:
            return Plan(tuple(opened.disks), opened.all_notes)

    @contextmanager
    def _opened(self, point: Point, request: RestoreRequest, *, memory: bool) -> Iterator[_Opened]:
        files: Mapping[str, bytes] = {}
        if not request.disks:
            files = {name: self.target.file(point, name) for name in point.files}
        description = self.target.description(point)  # whoever may not read it must not get to the hypervisor
        wanted, notes = self._wanted(point, request, memory=memory)
        with self.hypervisor.restore(description, wanted, files, request) as restoration:
            sinks = restoration.disks
            missing = [disk.key for disk in wanted if disk.key not in sinks and not disk.is_memory]
            if missing:
                raise PluginError(f"the hypervisor plugin takes no disk {', '.join(missing)} of {point.machine}")
            if not request.disks:
                notes += _not_in(point, description, restoration.notes)
            opened = _Opened(restoration, [disk for disk in wanted if disk.key in sinks], notes)
            self.announce(opened.all_notes)
            yield opened

    def _wanted(self, point: Point, request: RestoreRequest, *, memory: bool) -> tuple[list[RestoreDisk], list[str]]:
        disks = [
            RestoreDisk(disk.key, disk.size, disk.format, disk.is_memory)
            for disk in point.disks
            if (disk.key in request.disks if request.disks else memory or not disk.is_memory)
        ]
        if request.disks or self.hypervisor.name == point.hypervisor_type or not any(disk.is_memory for disk in disks):
            return disks, []
        note = f"the memory is left out, as only a hypervisor of type {point.hypervisor_type} can go on from it"
        return [disk for disk in disks if not disk.is_memory], [f"{note}: the machine starts afresh"]

    def _write(self, point: Point, opened: _Opened) -> int:
        stop = Stop(self.stop)
        sinks = opened.restoration.disks

        def write(disk: RestoreDisk) -> Callable[[], int]:
            source = _DiskSource(self.target, point, disk, stop, self.report)

            def work() -> int:
                sinks[disk.key].write(source.runs())
                return source.written

            return work

        return sum(side_by_side([write(disk) for disk in opened.disks], stop))


def _not_in(point: Point, description: MachineDescription, said: Sequence[str]) -> Iterator[str]:
    """Yield notes on disks of a machine that a point is without, where the plugin's own do not speak of them."""
    present = {disk.key for disk in point.disks}
    for key in unmentioned((disk.key for disk in description.disks if disk.key not in present), said):
        yield f"disk {key} is not in the restore point, and is not restored"


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
        self._reported = 0
        self._end = 0  # of what was yielded
        self._zeros: deque[Extent] = deque()  # those that the reading has passed, not yet yielded
        self.written = 0

    def runs(self) -> Iterator[Run]:
        """Yield the whole disk in order."""
        for offset, data in self._target.read(self._point, self._disk.key, self._ranges()):
            if self._zeros:
                yield from self._zeros_before(offset)
            if self._stop.is_set():
                raise Interrupted(f"stopped while disk {self._disk.key} was written")
            length = len(data)
            self._continue(offset, length)
            yield Run(offset, length, data)
            self.written += length
            if self._end - self._reported >= _REPORTED:
                self._reported = self._end
                self._report(self._disk.key, self._end, self._disk.size)
        yield from self._zeros_before(self._disk.size)
        self._continue(self._disk.size, 0)
        self._report(self._disk.key, self._disk.size, self._disk.size)

    def _continue(self, offset: int, length: int) -> None:
        """Go on at ``offset``, where the run before must have ended: nothing of a disk may be left as it was."""
        if offset != self._end:
            raise PluginError(f"disk {self._disk.key}: the target gave nothing for {self._end} to {offset}")
        self._end += length

    def _ranges(self) -> Iterator[Range]:
        for extent in self._target.extents(self._point, self._disk.key):
            if extent.kind is Kind.ZERO:
                self._zeros.append(extent)
            else:
                yield from split([Range(extent.offset, extent.length)], _STEP)

    def _zeros_before(self, offset: int) -> Iterator[Run]:
        while self._zeros and self._zeros[0].offset < offset:
            extent = self._zeros.popleft()
            self._continue(extent.offset, extent.length)
            yield Run(extent.offset, extent.length, None)

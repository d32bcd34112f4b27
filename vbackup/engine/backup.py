"""Capture, copy, commit: one machine becomes one restore point.

The order is what makes it safe to die anywhere: all chunks are durable before the point is written, the point is
durable before the hypervisor is told that its change marker counts.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError

from vbackup.api import (
    Capture,
    CaptureRequest,
    DiskProgress,
    Hypervisor,
    Key,
    MachineRef,
    PluginError,
    Point,
    PointDisk,
    Quiesce,
    SourceDisk,
    VBackupError,
    Writer,
)
from vbackup.engine.copy import NO_BASE, DiskCopy
from vbackup.engine.parallel import Stop, side_by_side


@dataclass(frozen=True)
class Made:
    """A durable restore point, and what went wrong after it (never more than leftovers)."""

    point: Point
    leftovers: tuple[str, ...]


@dataclass(frozen=True)
class BackUp:
    """How to back up one machine: from where, into what, after which point."""

    hypervisor: Hypervisor
    alias: str
    job: str
    owner: str
    writer: Writer
    quiesce: Quiesce
    stop: threading.Event
    report: Callable[[DiskProgress], None]

    def run(self, machine: MachineRef, previous: Point | None) -> Made:
        """Make a restore point of a machine; ``previous`` is its newest one in the same target."""
        self.writer.check()
        began = time.monotonic()
        request = CaptureRequest(self.owner, previous.marker if previous else None, self.quiesce)
        point: Point | None = None
        leftovers: list[str] = []
        try:
            with self.hypervisor.capture(machine.name, request) as capture:
                disks = self._copy(capture, previous)
                capture.check()
                made = self._point(capture, disks, previous, time.monotonic() - began)
                self.writer.commit(made, capture.machine)
                point = made
        except VBackupError as error:
            if point is None:
                raise
            leftovers.append(f"the capture of {machine.name} did not end well, after its point was durable: {error}")
        if point is None:
            raise PluginError(f"the hypervisor plugin swallowed an error while {machine.name} was captured")
        return Made(point, (*leftovers, *self._settle(machine, point)))

    def _copy(self, capture: Capture, previous: Point | None) -> list[PointDisk]:
        stop = Stop(self.stop)
        formats = {disk.key: disk.format for disk in capture.machine.disks}
        bases = {disk.key: disk for disk in previous.disks} if previous else {}

        def copy(source: SourceDisk) -> Callable[[], PointDisk]:
            disk_format = formats.get(source.key, "raw")
            return DiskCopy(source, disk_format, bases.get(source.key), self.writer, stop, self.report).run

        return side_by_side([copy(source) for source in capture.disks], stop)

    def _point(self, capture: Capture, disks: list[PointDisk], previous: Point | None, seconds: float) -> Point:
        files: dict[Key, dict[str, object]] = {n: self.writer.file(data) for n, data in capture.files.items()}
        reread = [
            f"disk {disk.key} was read in full: {disk.full_reason}"
            for disk in disks
            if disk.full_reason and previous is not None and _unexpected(disk, previous)
        ]
        try:
            return Point(
                id=uuid.uuid4().hex,
                machine=capture.machine.name,
                hypervisor=self.alias,
                hypervisor_type=self.hypervisor.name,
                machine_id=capture.machine.id,
                job=self.job,
                time=capture.time,
                sequence=previous.sequence + 1 if previous else 1,
                seconds=round(seconds, 3),
                disks=tuple(disks),
                files=files,
                quiesced=capture.quiesced,
                marker=capture.marker,
                warnings=(*capture.notes, *self.writer.notes, *reread),
            )
        except ValidationError as error:
            raise PluginError(
                f"{capture.machine.name}: the hypervisor plugin gave what is not valid: {error}"
            ) from error

    def _settle(self, machine: MachineRef, point: Point) -> tuple[str, ...]:
        if point.marker is None:
            return ()
        try:
            self.hypervisor.commit(machine.name, self.owner, point.marker)
        except VBackupError as error:
            return (f"old change markers of {machine.name} stay until the next run: {error.message}",)
        return ()


def _unexpected(disk: PointDisk, previous: Point) -> bool:
    """Whether a full read is news: a disk that was tracked before, not one that never can be."""
    before = next((old for old in previous.disks if old.key == disk.key), None)
    return before is not None and before.full_reason != disk.full_reason and disk.full_reason != NO_BASE

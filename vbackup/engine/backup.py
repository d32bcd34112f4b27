"""Capture, copy, commit: one machine becomes one restore point.

The order is what makes it safe to die anywhere: all chunks are durable before the point is written, the point is
durable before the hypervisor is told that its change marker counts.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pydantic import ValidationError

from vbackup.api import (
    Capture,
    CaptureRequest,
    ConfigError,
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
from vbackup.engine.copy import NO_BASE, NOT_IN_BASE, DiskCopy
from vbackup.engine.mentions import unmentioned
from vbackup.engine.parallel import Stop, side_by_side
from vbackup.engine.together import Member

MEMORY = "memory"
"""The key of `Capture.memory`, which no disk of the same capture may have."""
MEMORY_IN_FULL = "memory is always read in full"


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
    memory: bool = False
    exclude: frozenset[Key] = frozenset()
    """Keys of disks that are left out, as the user wants it."""
    member: Member | None = None
    """Its part in a group that is captured together."""

    def run(self, machine: MachineRef, previous: Point | None) -> Made:
        """Make a restore point of a machine; ``previous`` is its newest one in the same target."""
        self.writer.check()
        began = time.monotonic()
        since = previous.marker if previous else None
        moment = self.member.moment if self.member else None
        request = CaptureRequest(
            self.owner, since, self.quiesce, self.exclude,
            memory=self.memory, is_stopped=self.stop.is_set, moment=moment,
        )  # fmt: skip
        point: Point | None = None
        leftovers: list[str] = []
        try:
            with self.hypervisor.capture(machine.name, request) as capture:
                self._check_machine(capture, machine)
                self._check_disks(capture)
                with self._turn(capture):
                    disks = self._copy(capture, previous)
                capture.check()
                made = self._point(machine, capture, disks, previous, time.monotonic() - began)
                self.writer.commit(made, capture.machine)
                point = made
        except VBackupError as error:
            if point is None:
                raise
            leftovers.append(f"the capture of {machine.name} did not end well, after its point was durable: {error}")
        if point is None:
            raise PluginError(f"the hypervisor plugin swallowed an error while {machine.name} was captured")
        return Made(point, (*leftovers, *self._settle(machine, point)))

    @staticmethod
    def _check_machine(capture: Capture, machine: MachineRef) -> None:
        if capture.machine.id != machine.id:
            raise PluginError(
                f"{machine.name}: the hypervisor plugin captured machine {capture.machine.id!r:.80}, and not "
                f"{machine.id!r:.80} (if it was made anew just now, the next run backs it up)"
            )

    def _check_disks(self, capture: Capture) -> None:
        if self.exclude and not capture.disks:
            raise ConfigError(
                f"{capture.machine.name}: nothing is left of it to back up: job {self.job} leaves its disks out",
                hint="see `exclude_disks`, or leave out the machine",
            )

    def _turn(self, capture: Capture) -> AbstractContextManager[None]:
        if self.member is None:
            return nullcontext()
        self.member.captured(capture.time)
        return self.member.turn()

    def _copy(self, capture: Capture, previous: Point | None) -> list[PointDisk]:
        stop = Stop(self.stop)
        formats = {disk.key: disk.format for disk in capture.machine.disks}
        bases = {disk.key: disk for disk in previous.disks} if previous else {}

        def copy(source: SourceDisk) -> Callable[[], PointDisk]:
            disk_format = formats.get(source.key, "raw")
            base, no_base = bases.get(source.key), NOT_IN_BASE if previous else NO_BASE
            return DiskCopy(source, disk_format, base, self.writer, stop, self.report, no_base).run

        work = [copy(source) for source in capture.disks]
        memory = self._memory(capture)
        if memory is not None:

            def copy_memory() -> PointDisk:
                copied = DiskCopy(memory, "raw", None, self.writer, stop, self.report).run()
                return copied.model_copy(update={"is_memory": True, "full_reason": MEMORY_IN_FULL})

            work.append(copy_memory)
        return side_by_side(work, stop)

    def _memory(self, capture: Capture) -> SourceDisk | None:
        memory = capture.memory if self.memory else None
        if memory is not None and (memory.key != MEMORY or MEMORY in {disk.key for disk in capture.disks}):
            raise PluginError(f"{capture.machine.name}: the hypervisor plugin's key {memory.key!r} is not the memory's")
        return memory

    def _point(
        self, machine: MachineRef, capture: Capture, disks: list[PointDisk], previous: Point | None, seconds: float
    ) -> Point:
        files: dict[Key, dict[str, object]] = {n: self.writer.file(data) for n, data in capture.files.items()}
        reread = [
            f"disk {disk.key} was read in full: {disk.full_reason}"
            for disk in disks
            if disk.full_reason and not disk.is_memory and previous is not None and _unexpected(disk, previous)
        ]
        member = self.member
        apart = member.notes() if member else ()
        silent = _unsaid(capture, machine, self.exclude)
        try:
            return Point(
                id=uuid.uuid4().hex,
                machine=capture.machine.name,
                hypervisor=self.alias,
                hypervisor_type=self.hypervisor.name,
                machine_id=capture.machine.id,
                job=self.job,
                group=member.group if member else "",
                together=member.together if member else "",
                members=member.members if member else (),
                time=capture.time,
                sequence=previous.sequence + 1 if previous else 1,
                seconds=round(seconds, 3),
                disks=tuple(disks),
                files=files,
                quiesced=capture.quiesced,
                marker=capture.marker,
                warnings=(*capture.notes, *silent, *apart, *self.writer.notes, *reread),
            )
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, each["loc"])) for each in error.errors(include_input=False))
            raise PluginError(
                f"{capture.machine.name}: the hypervisor plugin gave what makes no restore point: {wrong}"
            ) from error

    def _settle(self, machine: MachineRef, point: Point) -> tuple[str, ...]:
        if point.marker is None:
            return ()
        try:
            self.hypervisor.commit(machine.name, self.owner, point.marker)
        except VBackupError as error:
            return (f"old change markers of {machine.name} stay until the next run: {error.message}",)
        return ()


def _unsaid(capture: Capture, machine: MachineRef, exclude: Collection[Key]) -> Iterator[str]:
    """Yield what the user must know of a capture and its own notes do not say."""
    if capture.machine.name != machine.name:
        yield (
            f"the hypervisor plugin lists it as {machine.name}, and captured it as {capture.machine.name} (well, if it "
            "was renamed just now)"
        )
    captured = {disk.key for disk in capture.disks}.union(exclude)
    missing = [disk.key for disk in capture.machine.disks if disk.key not in captured]
    for key in unmentioned(missing, capture.notes):
        yield f"disk {key} is not captured, and the hypervisor plugin does not say why"


def _unexpected(disk: PointDisk, previous: Point) -> bool:
    """Whether a full read is news: a disk that was tracked before, not one that never can be."""
    before = next((old for old in previous.disks if old.key == disk.key), None)
    return before is not None and before.full_reason != disk.full_reason

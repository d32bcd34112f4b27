"""A hypervisor in memory, with a guest that tests write through. Beside the real ones: for speed and for faults."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    AlreadyExists,
    Block,
    CaptureLost,
    CaptureRequest,
    DiskDescription,
    Extent,
    Finding,
    HypervisorContext,
    Kind,
    Level,
    MachineDescription,
    MachineRef,
    Marker,
    NotFound,
    Options,
    Quiesce,
    Range,
    RestoreDisk,
    RestoreRequest,
    clock,
    merge,
)
from vbackup.testing.restorations import FakeRestoration

GRAIN = 64 << 10
"""Bytes that one bit of change tracking stands for, as in qcow2."""


@dataclass
class FakeDisk:
    """A disk in memory. Write through `write`: then changes are tracked for every marker that exists."""

    data: bytearray
    dirty: dict[str, set[int]] = field(default_factory=dict)
    lost_reason: str | None = None
    """Set it, and tracking is lost for this reason."""

    def write(self, offset: int, data: bytes) -> None:
        """Write as the guest."""
        self.data[offset : offset + len(data)] = data
        for grains in self.dirty.values():
            grains.update(range(offset // GRAIN, (offset + len(data) + GRAIN - 1) // GRAIN))

    def resize(self, size: int) -> None:
        """Grow with zeros or cut off; from the smaller end on nothing is known any more."""
        end = min(size, len(self.data))
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))
        for grains in self.dirty.values():
            grains.update(range(end // GRAIN, -(-size // GRAIN)))


@dataclass
class FakeMachine:
    """A machine: disks by key, and files that belong to it."""

    disks: dict[str, FakeDisk]
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    memory: FakeDisk | None = None
    """That of a running machine."""
    is_up: bool = True
    """Whether its agent answers."""
    folder: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()


class FakeHypervisor:
    """Machines by name. ``fail_reads`` makes captures fail at that read, counted from 1.

    ``before_capture`` is called with a machine's name before a capture of it waits for its moment; ``notes`` go to each
    restoration.
    """

    name: ClassVar[str] = "fake"
    options: ClassVar[type[BaseModel]] = Options
    writes_files: ClassVar[bool] = False

    def __init__(self, options: Options | None = None, context: HypervisorContext | None = None) -> None:
        del options, context
        self.guests: dict[str, FakeMachine] = {}
        self.committed: list[Marker] = []
        self.open_captures = 0
        self.fail_reads: int | None = None
        self.captures = 0
        """How many captures were begun."""
        self.before_capture: Callable[[str], None] = lambda _: None
        self.notes: list[str] = []
        self.started: list[str] = []
        """The machines that were started after a restore, in that order."""

    def machines(self) -> list[MachineRef]:
        """List the guests; a guest's name is its identity."""
        return [
            MachineRef(name, f"id-{name}", running=True, folder=guest.folder, labels=guest.labels)
            for name, guest in self.guests.items()
        ]

    @contextlib.contextmanager
    def capture(self, machine: str, request: CaptureRequest) -> Iterator[FakeCapture]:
        """Copy the guest's disks as they are now, and begin tracking."""
        if machine not in self.guests:
            raise NotFound(f"there is no machine {machine}")
        self.before_capture(machine)
        if request.moment is not None:
            request.moment()
        self.captures += 1
        self.open_captures += 1
        try:
            yield FakeCapture(self, machine, request, f"marker-{self.captures}")
        finally:
            self.open_captures -= 1

    def commit(self, machine: str, owner: str, marker: Marker) -> None:
        """Forget all markers of the owner but this one."""
        self.committed.append(marker)
        for disk in self.guests[machine].disks.values():
            for name in [n for n in disk.dirty if n.startswith(owner) and n != marker["name"]]:
                del disk.dirty[name]

    def sweep(self, owner: str) -> list[str]:
        """Nothing is left behind."""
        del owner
        return []

    @contextlib.contextmanager
    def restore(
        self,
        machine: MachineDescription,
        disks: Sequence[RestoreDisk],
        files: Mapping[str, bytes],
        request: RestoreRequest,
    ) -> Iterator[FakeRestoration]:
        """Restore as a guest of this hypervisor."""
        name = request.name or machine.name
        if name in self.guests and not request.overwrite:
            raise AlreadyExists(f"machine {name} exists")

        def define(written: dict[str, bytearray]) -> str:
            memory = next((written.pop(disk.key) for disk in disks if disk.is_memory), None)
            kept = {key: FakeDisk(data) for key, data in written.items()}
            self.guests[name] = FakeMachine(kept, dict(files), memory=FakeDisk(memory) if memory is not None else None)
            if request.start:
                self.started.append(name)
            return f"machine {name}"

        yield FakeRestoration(disks, self.notes, define)

    def answers(self, machine: str) -> bool:
        """Whether the guest is up."""
        if machine not in self.guests:
            raise NotFound(f"there is no machine {machine}")
        return self.guests[machine].is_up

    def check(self) -> Sequence[Finding]:
        """Nothing is needed."""
        return [Finding("fake", Level.OK, "in memory")]

    def close(self) -> None:
        """Keep everything; a test may look at it."""


class FakeCapture:
    """A frozen copy of a guest."""

    notes: Sequence[str]

    def __init__(self, owner: FakeHypervisor, name: str, request: CaptureRequest, marker: str) -> None:
        guest = owner.guests[name]
        since = request.since["name"] if request.since else None
        self.marker: Marker | None = {"name": f"{request.owner}/{marker}"}
        self.disks = [FakeSource(owner, key, disk, since) for key, disk in guest.disks.items()]
        self.memory = None
        if request.memory and guest.memory is not None:
            self.memory = FakeSource(owner, "memory", guest.memory, None)
        for disk in guest.disks.values():
            disk.dirty[f"{request.owner}/{marker}"] = set()
        self.machine = MachineDescription(
            name=name,
            id=f"id-{name}",
            disks=tuple(DiskDescription(key=key, size=len(disk.data)) for key, disk in guest.disks.items()),
        )
        self.time: datetime = clock.now()
        self.quiesced = request.quiesce is not Quiesce.NO
        self.files = dict(guest.files)
        self.notes = list(guest.notes)

    def check(self) -> None:
        """A copy in memory cannot be lost."""


class FakeSource:
    """One disk of a capture."""

    def __init__(self, owner: FakeHypervisor, key: str, disk: FakeDisk, since: str | None) -> None:
        self.key = key
        self._owner = owner
        self._data = bytes(disk.data)
        self.size = len(self._data)
        self._dirty = None if since is None else disk.dirty.get(since)
        self._dirty = None if self._dirty is None else set(self._dirty)
        self.full_reason = disk.lost_reason
        if self.full_reason is None and self._dirty is None:
            self.full_reason = "first capture" if since is None else "the marker is gone"

    def extents(self, *, full: bool) -> Iterator[Extent]:
        """Grain by grain."""
        return merge(self._grains(None if full or self.full_reason else self._dirty))

    def _grains(self, dirty: set[int] | None) -> Iterator[Extent]:
        for offset in range(0, self.size, GRAIN):
            part = self._data[offset : offset + GRAIN]
            if dirty is not None and offset // GRAIN not in dirty:
                kind = Kind.UNCHANGED
            else:
                kind = Kind.DATA if any(part) else Kind.ZERO
            yield Extent(offset, len(part), kind)

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read from the copy."""
        for offset, length in ranges:
            if self._owner.fail_reads is not None:
                self._owner.fail_reads -= 1
                if self._owner.fail_reads == 0:
                    raise CaptureLost(f"disk {self.key}: the capture is gone")
            yield Block(offset, self._data[offset : offset + length])

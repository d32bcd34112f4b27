"""A hypervisor in memory, with guests that tests write through. Beside the real ones: for speed and for faults.

See `vbackup.testing.guests` for the machines and what they can be told to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel

from vbackup.api import (
    AlreadyExists,
    Block,
    Busy,
    CaptureLost,
    CaptureRequest,
    DiskDescription,
    Extent,
    Finding,
    GuestError,
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
    Unsupported,
    clock,
    merge,
)
from vbackup.testing.guests import GRAIN, FakeDisk, FakeGuest, FakeMachine, When
from vbackup.testing.restorations import FakeRestoration

__all__ = ["GRAIN", "FakeCapture", "FakeDisk", "FakeGuest", "FakeHypervisor", "FakeMachine", "FakeSource", "When"]


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
        self.open_restores = 0
        self.pending: set[str] = set()
        """The names of the markers that captures which are open have made."""
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
            MachineRef(name, f"id-{name}", running=guest.running, folder=guest.folder, labels=guest.labels)
            for name, guest in self.guests.items()
        ]

    @contextlib.contextmanager
    def capture(self, machine: str, request: CaptureRequest) -> Iterator[FakeCapture]:
        """Copy the guest's disks as they are now, and begin tracking."""
        guest = self._guest(machine)
        if request.quiesce is Quiesce.YES and not guest.freezes:
            raise GuestError(f"{machine} cannot be frozen", hint="set `quiesce: try`")
        self.before_capture(machine)
        guest.happens(When.BEFORE)
        if request.moment is not None:
            request.moment()
        self.captures += 1
        name = f"{request.owner}/marker-{self.captures}"
        self.open_captures += 1
        self.pending.add(name)
        try:
            capture = FakeCapture(self, machine, request, name)
            guest.happens(When.OPEN)
            yield capture
        finally:
            self.pending.remove(name)
            self.open_captures -= 1
            guest.happens(When.CLOSED)

    def commit(self, machine: str, owner: str, marker: Marker) -> None:
        """Forget all markers of the owner but this one."""
        self.committed.append(marker)
        for disk in self._guest(machine).disks.values():
            forget(disk, owner, self.pending | {marker["name"]})

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
        self._refuse(name, request)

        def define(written: dict[str, bytearray]) -> str:
            memory = next((written.pop(disk.key) for disk in disks if disk.is_memory), None)
            kept = {key: FakeDisk(data) for key, data in written.items()}
            of_memory = FakeDisk(memory) if memory is not None else None
            self.guests[name] = FakeMachine(kept, dict(files), memory=of_memory, running=request.start)
            if request.start:
                self.started.append(name)
            return f"machine {name}"

        self.open_restores += 1
        try:
            yield FakeRestoration(disks, self.notes, define)
        finally:
            self.open_restores -= 1

    def _refuse(self, name: str, request: RestoreRequest) -> None:
        if request.disks:
            raise Unsupported("what is in memory only writes no files", hint="`type: image` does")
        if name in self.guests and not request.overwrite:
            raise AlreadyExists(f"machine {name} exists")
        if name in self.guests and self.guests[name].running:
            raise Busy(f"machine {name} is running")

    def answers(self, machine: str) -> bool:
        """Whether the guest is up."""
        return self._guest(machine).is_up

    def _guest(self, name: str) -> FakeMachine:
        if name not in self.guests:
            raise NotFound(f"there is no machine {name}")
        return self.guests[name]

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
        since = request.since.get("name") if request.since else None
        self.marker: Marker | None = {"name": marker}
        self.disks = [
            FakeSource(owner, guest, key, disk, since)
            for key, disk in guest.disks.items()
            if key not in request.exclude
        ]
        self.memory = None
        if request.memory and guest.memory is not None:
            self.memory = FakeSource(owner, guest, "memory", guest.memory, None)
        for disk in guest.disks.values():
            forget(disk, request.owner, owner.pending | {since})
            disk.dirty[marker] = set()
        self.machine = MachineDescription(
            name=name,
            id=f"id-{name}",
            disks=tuple(DiskDescription(key=key, size=len(disk.data)) for key, disk in guest.disks.items()),
        )
        self.time: datetime = clock.now()
        self.quiesced = request.quiesce is not Quiesce.NO and guest.freezes
        self.files = dict(guest.files)
        self.notes = list(guest.notes)
        if request.quiesce is Quiesce.TRY and not guest.freezes:
            self.notes.append("it was not frozen: this guest cannot be")

    def check(self) -> None:
        """A copy in memory cannot be lost."""


class FakeSource:
    """One disk of a capture."""

    def __init__(self, owner: FakeHypervisor, guest: FakeMachine, key: str, disk: FakeDisk, since: str | None) -> None:
        self.key = key
        self._owner = owner
        self._guest = guest
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
            self._guest.happens(When.READ)
            if self._owner.fail_reads is not None:
                self._owner.fail_reads -= 1
                if self._owner.fail_reads == 0:
                    raise CaptureLost(f"disk {self.key}: the capture is gone")
            yield Block(offset, self._data[offset : offset + length])


def forget(disk: FakeDisk, owner: str, needed: Collection[str | None]) -> None:
    """Track no longer for the markers of an owner that are not needed."""
    for name in [each for each in disk.dirty if each.startswith(f"{owner}/") and each not in needed]:
        del disk.dirty[name]

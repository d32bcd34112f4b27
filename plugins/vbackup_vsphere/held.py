"""A snapshot of ours while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vbackup.api import CaptureLost, Marker, NotFound
from vbackup_vsphere import hardware, snapshot, tracking
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.limits import Turn
from vbackup_vsphere.plan import Plan
from vbackup_vsphere.readers.base import Frozen
from vbackup_vsphere.readers.choose import make_ways, open_reader
from vbackup_vsphere.readers.vddk import Vddk
from vbackup_vsphere.session import Session
from vbackup_vsphere.snapshot import Snapshot
from vbackup_vsphere.source import VmSource
from vbackup_vsphere.tracking import EVERYTHING, Areas, Since, TrackedDisk


class Held:
    """A snapshot, its disks, and why their changes are not tracked (None when they are)."""

    def __init__(self, session: Session, plan: Plan, made: Snapshot, untracked: str | None, notes: list[str]) -> None:
        self._session = session
        self._plan = plan
        self._made = made
        self._untracked = untracked
        self._notes = notes
        self._ways = make_ways(session.options)
        self._by_path: set[str] = set()  # disks whose layers may be opened again; VDDK keeps them open
        self.disks = self._read_disks()
        self._has_others = any(one.ref != made.ref for one in snapshot.of_machine(session, plan.found.ref))

    def sources(self, stack: Any, turn: Turn) -> list[VmSource]:
        """Open all disks for reading, until ``stack`` ends."""
        return [stack.enter_context(self._opened(disk, turn)) for disk in self.disks]

    def marker(self) -> Marker | None:
        """Return the change marker of this capture."""
        if self._untracked is not None:
            return None
        disks = {disk.key: kept for disk in self.disks if (kept := TrackedDisk.of(disk)) is not None}
        found, owner = self._plan.found, self._plan.request.owner
        if not disks:
            return None
        return Since(owner=owner, vm=found.uuid, disks=disks, had_snapshots=self._has_others).dump()

    def verify(self) -> None:
        """Raise `CaptureLost` unless the snapshot is there and its disks are those that they were."""
        name = self._plan.found.name
        try:
            there = snapshot.of_machine(self._session, self._plan.found.ref)
        except NotFound as error:
            raise CaptureLost(f"{name} was removed while it was captured") from error
        if self._made not in there:
            raise CaptureLost(f"the snapshot of {name} was removed by someone else while it was captured")
        for then, now in zip(self.disks, self._read_disks(), strict=True):
            if _identity(now) != _identity(then):
                raise CaptureLost(f"disk {then.key} of {name} was moved or replaced while it was captured")
            if now.file != then.file and then.key in self._by_path:
                raise CaptureLost(
                    f"the snapshot below that of {name} was removed, and merged, while disk {then.key} was read",
                    hint="does another host back it up at the same time?",
                )

    def _read_disks(self) -> tuple[VmDisk, ...]:
        """Return the disks that were planned as the snapshot holds them."""
        name = self._plan.found.name
        try:
            facts = self._session.get(self._made.ref, "config.hardware.device")
        except NotFound as error:
            raise CaptureLost(f"the snapshot of {name} was removed by someone else") from error
        held = {disk.key: disk for disk in hardware.disks(self._session, facts.get("config.hardware.device", ()))}
        unplanned = held.keys() - {disk.key for disk in self._plan.disks} - self._plan.request.exclude
        for key in sorted(unplanned):
            if held[key].left_out is None:
                raise CaptureLost(f"disk {key} of {name} was added, or became one to capture, just before the backup")
        frozen = []
        for disk in self._plan.disks:
            now = held.get(disk.key)
            if now is None or (now.size, now.uuid) != (disk.size, disk.uuid):
                raise CaptureLost(f"disk {disk.key} of {name} was removed, resized or replaced just before the backup")
            if now.left_out is not None:
                raise CaptureLost(f"disk {disk.key} of {name} became {now.left_out} just before the backup")
            frozen.append(now)
        return tuple(frozen)

    @contextmanager
    def _opened(self, disk: VmDisk, turn: Turn) -> Iterator[VmSource]:
        plan = self._plan
        frozen = Frozen(self._session, plan.found.name, plan.found.moid, self._made.moid, plan.datacenter)
        with open_reader(self._ways, frozen, disk) as (reader, way, notes):
            if way != Vddk.name:
                self._by_path.add(disk.key)
            self._notes += [note for note in notes if note not in self._notes]
            changed = self._changed(disk, way if reader.is_sequential else None)
            yield VmSource(disk, reader, changed, self._in_use(disk), turn.begin, self.verify)

    def _changed(self, disk: VmDisk, whole: str | None) -> Areas | str:
        """Return what changed on a disk, or why that is not known. ``whole`` is a way that reads whole disks."""
        if self._untracked is not None:
            return self._untracked
        since = self._plan.since
        reason = tracking.why_full(disk, self._plan.found.uuid, since)
        if disk.change_id is None:
            reason = "vSphere gives it no change id"
        if reason is not None or since is None:
            return reason or ""
        if whole is not None:
            return f"the {whole} way reads whole disks"
        return tracking.ask(self.query(disk), disk.size, since.disks[disk.key].change_id)

    def _in_use(self, disk: VmDisk) -> Callable[[], Areas | None]:
        """Return what asks for the areas in use, where the answer can be trusted: what else is not in use is zero.

        VMware documents that for VMFS only, and knows errors of it for chains of layers.
        """

        def ask() -> Areas | None:
            if self._untracked is not None or disk.change_id is None:
                return None
            if disk.datastore_type.upper() != "VMFS" or disk.has_parent:
                return None
            areas = tracking.ask(self.query(disk), disk.size, EVERYTHING)
            if isinstance(areas, Areas):
                return areas
            self._notes.append(f"disk {disk.key}: all of it was read, not only what is in use: {areas}")
            return None

        return ask

    def query(self, disk: VmDisk) -> tracking.Query:
        """Return what asks vSphere for areas of a disk."""
        vm, what = self._plan.found.ref, f"asking for changed areas of disk {disk.key} of {self._plan.found.name}"

        def query(offset: int, change_id: str) -> Any:
            return self._session.call(
                what,
                lambda: vm.QueryChangedDiskAreas(self._made.ref, disk.device, offset, change_id),
                repeat=True,
            )

        return query


def _identity(disk: VmDisk) -> tuple[str, str, str | None]:
    """Return what stays as long as it is the same disk in the same place.

    Its layer's file does not: it is merged into the one below when somebody removes the snapshot below ours.
    """
    return tracking.base_file(disk.file), disk.uuid, disk.change_id

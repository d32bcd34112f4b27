"""Change markers, and what vSphere's changed-block tracking (CBT) says.

A marker is a hint. Whenever there is a doubt about a disk, that disk is read in full, and the reason is kept.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pyVmomi import vmodl

from vbackup.api import Extent, Kind, Marker, Range, VBackupError
from vbackup_vsphere.disks import VmDisk

EVERYTHING = "*"
"""The change id that asks for all areas in use."""

SECTOR = 512
PAGES = 100_000
"""Answers that make up what changed on one disk, at most; vSphere puts about 2000 areas into each."""

Query = Callable[[int, str], Any]
"""Ask ``QueryChangedDiskAreas`` from an offset on, for a change id; gives a ``DiskChangeInfo``."""


class TrackedDisk(BaseModel):
    """A disk as it was at a restore point; size in bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    change_id: str
    size: int
    uuid: str
    file: str

    @classmethod
    def of(cls, disk: VmDisk) -> Self | None:
        """Return what is to be kept of a disk; None when its changes are not tracked."""
        if disk.change_id is None:
            return None
        return cls(change_id=disk.change_id, size=disk.size, uuid=disk.uuid, file=base_file(disk.file))


class Since(BaseModel):
    """A change marker. vSphere keeps nothing for it, so none has to be removed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: str
    vm: str
    """The machine's instanceUuid."""
    disks: dict[str, TrackedDisk]
    had_snapshots: bool = True
    """Whether the machine had other snapshots than that of the capture."""

    @classmethod
    def parse(cls, marker: Marker | None, owner: str) -> Self | None:
        """Return the marker of a restore point; None when there is none, or when it is not this owner's."""
        try:
            since = cls.model_validate(marker)
        except ValidationError:
            return None
        return since if since.owner == owner else None

    def dump(self) -> Marker:
        """Return what is stored."""
        return self.model_dump(mode="json")


class Areas:
    """Ranges of a disk: ascending, apart, and 16 bytes each, since a disk may have millions of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._bounds = array("q")

    def add(self, start: int, end: int) -> None:
        """Add a range that begins where the last one began or later; it is cut to the disk."""
        end = min(end, self._size)
        if start >= end:
            return
        if self._bounds and start <= self._bounds[-1]:
            self._bounds[-1] = max(self._bounds[-1], end)
            return
        self._bounds.append(start)
        self._bounds.append(end)

    def __iter__(self) -> Iterator[Range]:
        for i in range(0, len(self._bounds), 2):
            yield Range(self._bounds[i], self._bounds[i + 1] - self._bounds[i])

    def extents(self, rest: Kind) -> Iterator[Extent]:
        """Yield the areas as data and everything between as ``rest``, covering the disk."""
        position = 0
        for offset, length in self:
            if offset > position:
                yield Extent(position, offset - position, rest)
            yield Extent(offset, length, Kind.DATA)
            position = offset + length
        if position < self._size:
            yield Extent(position, self._size - position, rest)


def ask(query: Query, size: int, change_id: str) -> Areas | str:
    """Return the areas that changed since ``change_id``, or why the answer is not to be trusted.

    vSphere tells of a part of the disk at a time (``DiskChangeInfo.length``), and must not be asked beyond its end.
    Raises: `Unavailable` when nobody answers.
    """
    areas, position = Areas(size), 0
    for _ in range(PAGES):
        try:
            info = query(position, change_id)
        except VBackupError as error:
            # A fault is an answer. One that stays (a lock, a broken .ctk) would else fail every backup from now on.
            if error.transient and not isinstance(error.__cause__, vmodl.MethodFault):
                raise
            return f"vSphere cannot tell what changed: {error.message}"
        nonsense = _why_nonsense(info, position, size)
        if nonsense is not None:
            return f"vSphere's answer on what changed is nonsense: {nonsense}"
        for area in info.changedArea or ():
            areas.add(area.start, area.start + area.length)
        position += info.length
        if position >= size:
            return areas
    return f"vSphere's answer on what changed does not end: {PAGES} parts reach to {position} of {size} bytes"


def _why_nonsense(info: Any, position: int, size: int) -> str | None:
    """Return what is wrong with a ``DiskChangeInfo`` that begins at ``position``, as a phrase."""
    page = f"{info.startOffset}+{info.length}"
    end = info.startOffset + info.length
    if info.startOffset != position or info.length <= 0 or (end < size and info.length % SECTOR):
        return f"{page} at {position} of {size}"
    found = info.changedArea or ()
    if not found and end < size:
        return f"{page} of {size} has no areas, and is not the end"
    last = position
    for area in found:
        reaches_end = area.start + area.length >= size
        if area.length <= 0 or area.start < last or (area.length % SECTOR and not reaches_end):
            return f"{area.start}+{area.length} after {last}"
        last = area.start
    return None


def why_full(disk: VmDisk, vm: str, since: Since | None) -> str | None:
    """Return why a marker says nothing of a disk whose changes are tracked, as a phrase; None when it may."""
    if since is None:
        return "first backup of this disk"
    if since.vm != vm:
        return "the last backup was of another machine of this name"
    then = since.disks.get(disk.key)
    if then is None:
        return "its changes were not tracked at the last backup"
    now = TrackedDisk.of(disk)
    if now is None:
        return "vSphere gives it no change id"
    if then.size != now.size:
        return f"resized from {then.size} to {now.size} bytes"
    if then.uuid != now.uuid:
        return "it was replaced by another disk"
    if then.file != now.file:
        return f"moved from {then.file} to {now.file}"
    later = _why_not_later(then.change_id, now.change_id)
    if later is None and since.had_snapshots:
        # After a revert the host gives numbers again that it gave before: one that grew proves nothing then.
        return "it had snapshots of others, and may have been reverted to one"
    return later


def _why_not_later(then: str, now: str) -> str | None:
    """Compare change ids, ``uuid/number``: the uuid is new after a reset, the number grows with each snapshot."""
    old, new = then.rpartition("/"), now.rpartition("/")
    if old[0] != new[0] or not old[0]:
        return "its change tracking was reset"
    if not (old[2].isdecimal() and new[2].isdecimal()):
        return "its change id is not understood"
    if int(new[2]) <= int(old[2]):
        return "it went back to an earlier state"
    return None


def base_file(file: str) -> str:
    """Return the base disk's VMDK for any layer of it that a snapshot made (``-000001.vmdk``)."""
    return re.sub(r"-\d{6}\.vmdk$", ".vmdk", file)
